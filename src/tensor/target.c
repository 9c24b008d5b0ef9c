#define _GNU_SOURCE 1 /* asprintf */

#include "tensor/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/transfer.h"

enum { COPY_BYTES = 1 << 20 };

/* A full disk is a failure while running, everything else the caller's input. */
static ls_status fail_file(const char *path, const char *what, const char *where)
{
    const ls_status code = errno == ENOSPC || errno == EDQUOT || errno == EIO ? LS_EIO : LS_EFILE;

    return ls_fail(code, "%s: %s %s: %s", path, what, where, strerror(errno));
}

/* Takes over name, as a pointer that is NULL if there was no memory for it. */
static ls_status keep_name(char **out, char *name, const char *path)
{
    if (name == NULL) return ls_fail(LS_ENOMEM, "%s: no memory for its name", path);
    *out = name;
    return LS_OK;
}

static const char *last_part(const char *path)
{
    const char *const slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

/* Absolute name of a file that need not exist, in a folder that must. */
static ls_status resolve_new(char **out, const char *path)
{
    const char *const name = last_part(path);
    char *const folder = name > path ? strndup(path, (size_t)(name - path)) : strdup(".");
    char *real, *joined = NULL;
    ls_status status;

    if (folder == NULL) return ls_fail(LS_ENOMEM, "%s: no memory for its name", path);
    if (*name == '\0') {
        status = ls_fail(LS_EFILE, "\"%s\" names no file", path);
    } else if ((real = realpath(folder, NULL)) == NULL) {
        status = fail_file(path, "cannot use folder", folder);
    } else {
        if (asprintf(&joined, "%s/%s", real, name) < 0) joined = NULL;
        status = keep_name(out, joined, path);
        free(real);
    }
    free(folder);
    return status;
}

static ls_status resolve_existing(char **out, const char *path)
{
    char *const real = realpath(path, NULL);

    if (real == NULL) return fail_file(path, "cannot find", "its folder");
    if (access(real, W_OK) == 0) return keep_name(out, real, path);
    free(real);
    return fail_file(path, "cannot replace", "the file there");
}

static ls_status open_sink(struct ls_target *out, const char *path)
{
    do out->sink = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    while (out->sink < 0 && errno == EINTR); /* a pipe's open waits for its reader */
    if (out->sink < 0) return fail_file(path, "cannot open", "for writing");
    return keep_name(&out->path, strdup(path), path);
}

static ls_status open_standard_output(struct ls_target *out)
{
    static const char name[] = "standard output";

    out->sink = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    if (out->sink < 0) return fail_file(name, "cannot open", "it");
    return keep_name(&out->path, strdup(name), name);
}

static ls_status resolve(struct ls_target *out, const char *path)
{
    struct stat about;

    if (strcmp(path, "-") == 0) return open_standard_output(out);
    if (stat(path, &about) == 0) {
        if (S_ISDIR(about.st_mode))
            return ls_fail(LS_EFILE, "%s: is a folder: name a file in it", path);
        if (!S_ISREG(about.st_mode)) return open_sink(out, path);
        out->mode = about.st_mode & 0777;
        return resolve_existing(&out->path, path);
    }
    if (errno != ENOENT) return fail_file(path, "cannot be", "written");
    if (lstat(path, &about) == 0)
        return ls_fail(LS_EFILE, "%s: is a link to a file that does not exist: remove it", path);
    return resolve_new(&out->path, path);
}

static ls_status create_temporary(struct ls_target *out, const char *folder, mode_t mode)
{
    if (ls_temporary_create(&out->temporary, folder, last_part(out->path), mode)) return LS_OK;
    return fail_file(out->path, "cannot create a file in", folder);
}

static ls_status create_beside(struct ls_target *out)
{
    const size_t length = (size_t)(last_part(out->path) - out->path);
    char *const folder = strndup(out->path, length > 1 ? length - 1 : 1); /* "/" stays */

    if (folder == NULL) return ls_fail(LS_ENOMEM, "%s: no memory for its name", out->path);
    ls_status status = create_temporary(out, folder, out->mode ? out->mode : 0666);
    free(folder);
    if (status == LS_OK && out->mode &&
        fchmod(out->temporary.fd, out->mode) != 0) /* whatever the umask */
        status = fail_file(out->path, "cannot keep", "its mode");
    return status;
}

static ls_status create_spool(struct ls_target *out)
{
    const char *const folder = getenv("TMPDIR"); /* a relative one would be another's elsewhere */

    return create_temporary(out, folder != NULL && *folder == '/' ? folder : "/tmp", 0600);
}

ls_status ls_target_open(struct ls_target *out, const char *path)
{
    struct ls_target target = LS_NO_TARGET;
    ls_status status;

    LS_TRY_GOTO(status, resolve(&target, path), fail);
    LS_TRY_GOTO(status, target.sink == LS_NO_SINK ? create_beside(&target) : create_spool(&target),
                fail);
    *out = target;
    return LS_OK;
fail:
    ls_target_close(&target);
    return status;
}

ls_status ls_target_join(struct ls_target *out, const char *temporary)
{
    struct ls_target target = LS_NO_TARGET;

    target.joined = true;
    target.temporary.fd = open(temporary, O_WRONLY | O_CLOEXEC);
    if (target.temporary.fd < 0)
        return fail_file(temporary, "cannot open", "what another rank created");
    const ls_status status = keep_name(&target.path, strdup(temporary), temporary);
    if (status != LS_OK) {
        ls_target_close(&target);
        return status;
    }
    *out = target;
    return LS_OK;
}

static ls_status write_on(int fd, const char *path, const char *in, size_t bytes)
{
    while (bytes > 0) {
        const ssize_t put = write(fd, in, bytes);

        if (put < 0 && errno == EINTR) continue;
        if (put < 0)
            return ls_fail(LS_EIO, "%s: cannot write, %zu bytes to go: %s", path, bytes,
                           strerror(errno));
        in += put;
        bytes -= (size_t)put;
    }
    return LS_OK;
}

static ls_status empty_into_sink(struct ls_target *target)
{
    char *const buffer = malloc(COPY_BYTES);
    const off_t bytes = lseek(target->temporary.fd, 0, SEEK_END);
    ls_status status = LS_OK;

    if (buffer == NULL) return ls_fail(LS_ENOMEM, "%s: no memory to copy", target->path);
    for (off_t at = 0; at < bytes && status == LS_OK; at += COPY_BYTES) {
        const off_t n = bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES;

        LS_TRY_GOTO(status, ls_read_at(buffer, target->temporary.fd, target->path, n, at), done);
        status = write_on(target->sink, target->path, buffer, (size_t)n);
    }
done:
    free(buffer);
    return status;
}

/* So that the new name outlasts a crash; where a folder cannot be synced, the file is whole
 * nevertheless. */
static void sync_folder(const char *path)
{
    const char *const name = last_part(path);
    char *const folder = strndup(path, (size_t)(name - path));
    const int fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

ls_status ls_target_publish(struct ls_target *target)
{
    struct ls_temporary *const temporary = &target->temporary;

    if (target->sink != LS_NO_SINK) {
        ls_temporary_hide(temporary);
        return empty_into_sink(target);
    }
    if (fsync(temporary->fd) != 0)
        return ls_fail(LS_EIO, "%s: cannot write: %s", target->path, strerror(errno));
    if (target->joined) return LS_OK;
    if (!ls_temporary_publish(temporary, target->path))
        return ls_fail(LS_EIO, "%s: cannot rename %s to it: %s", target->path, temporary->name,
                       strerror(errno));
    sync_folder(target->path);
    return LS_OK;
}

ls_status ls_target_share(const char **out, struct ls_target *target)
{
    if (!target->joined && !ls_temporary_name(&target->temporary))
        return fail_file(target->path, "cannot give a name to", "what is written");
    *out = target->joined ? target->path : target->temporary.name;
    return LS_OK;
}

void ls_target_close(struct ls_target *target)
{
    ls_temporary_close(&target->temporary);
    if (target->sink != LS_NO_SINK) close(target->sink);
    free(target->path);
}
