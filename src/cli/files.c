#include "cli/files.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/comm.h"

static bool is_option(const struct cli_file *file, const char *option)
{
    return option && file->option && strcmp(file->option, option) == 0;
}

void cli_files_add(struct cli_files *files, const char *option, const char *path, bool written)
{
    int i = 0;

    while (i < files->count && !is_option(&files->at[i], option)) i++;
    assert(i < CLI_MOST_FILES);
    files->at[i] = (struct cli_file){.option = option, .path = path, .written = written};
    if (i == files->count) files->count++;
}

/* What a path names: a file, whatever it is called, or a name in a folder that nothing has yet. */
struct place {
    bool known;
    struct stat about; /* of the file or of the folder */
    char name[NAME_MAX + 1];
};

static bool is_stdout(const struct cli_file *file)
{
    return strcmp(file->path, "-") == 0;
}

static void locate(struct place *out, const struct cli_file *file)
{
    const char *slash = strrchr(file->path, '/');
    const char *name = slash ? slash + 1 : file->path;
    char folder[PATH_MAX];

    *out = (struct place){.known = true};
    if (file->written && is_stdout(file)) {
        out->known = fstat(STDOUT_FILENO, &out->about) == 0;
        return;
    }
    if (stat(file->path, &out->about) == 0) return;
    snprintf(folder, sizeof(folder), "%.*s.", (int)(name - file->path), file->path);
    snprintf(out->name, sizeof(out->name), "%s", name);
    out->known = file->written && stat(folder, &out->about) == 0;
}

/* A device is not changed by what is written to it. */
static bool is_same(const struct place *a, const struct place *b)
{
    return a->known && b->known && !S_ISCHR(a->about.st_mode) &&
           a->about.st_dev == b->about.st_dev && a->about.st_ino == b->about.st_ino &&
           strcmp(a->name, b->name) == 0;
}

static ls_status check_pair(const struct cli_file *file, const struct cli_file *other)
{
    struct place a, b;

    if (!file->written) return LS_OK;
    if (other->written && is_stdout(file) && is_stdout(other))
        return ls_fail(LS_EVALUE, "--%s and --%s cannot both be standard output: name a file",
                       file->option, other->option);
    locate(&a, file);
    locate(&b, other);
    if (!is_same(&a, &b)) return LS_OK;
    return ls_fail(LS_EVALUE, "--%s %s and %s%s %s are the same file: name another to be written",
                   file->option, file->path, other->option ? "--" : "argument",
                   other->option ? other->option : "", other->path);
}

/* A file that replaces the one into which the shell sends the text would take the text away. */
static ls_status check_text(const struct cli_file *file, int descriptor, const char *name)
{
    struct place a, text = {.known = fstat(descriptor, &text.about) == 0};

    if (!file->written || is_stdout(file) || !S_ISREG(text.about.st_mode)) return LS_OK;
    locate(&a, file);
    if (!is_same(&a, &text)) return LS_OK;
    return ls_fail(LS_EVALUE,
                   "--%s %s is where %s goes: name another file, or - for standard output",
                   file->option, file->path, name);
}

static ls_status check(const struct cli_files *files)
{
    for (int i = 0; i < files->count; i++) {
        const struct cli_file *file = &files->at[i];

        LS_TRY(check_text(file, STDOUT_FILENO, "standard output"));
        LS_TRY(check_text(file, STDERR_FILENO, "standard error"));
        for (int j = 0; j < files->count; j++)
            if (j != i) LS_TRY(check_pair(file, &files->at[j]));
    }
    return LS_OK;
}

ls_status cli_files_check(bool *takes_stdout, const struct cli_files *files,
                          const struct cli_world *world)
{
    *takes_stdout = false;
    for (int i = 0; i < files->count; i++)
        *takes_stdout |= files->at[i].written && is_stdout(&files->at[i]);
    return ls_comm_agree(world->comm, world->rank == 0 ? check(files) : LS_OK);
}
