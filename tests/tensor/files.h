/* What the tests of tensor files share: a folder for each test, and files that must be refused. */
#ifndef LS_TEST_TENSOR_FILES_H
#define LS_TEST_TENSOR_FILES_H

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harmless.h"

#define PATH_LENGTH 4096

/* A struct ls_file_tensor for a writer; the shape is a list in braces. */
#define TENSOR(name_, type_, ndim_, ...)                                                           \
    {                                                                                              \
        .name = name_, .type = (type_), .ndim = (ndim_), .dim = __VA_ARGS__                        \
    }

static char folder[PATH_LENGTH / 2];

static inline const char *in_folder(const char *name)
{
    static char path[PATH_LENGTH];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static inline void make_folder(void)
{
    const char *const place = getenv("TMPDIR");

    snprintf(folder, sizeof folder, "%s/longspan-XXXXXX", place != NULL ? place : "/tmp");
    cr_assert_not_null(mkdtemp(folder));
}

/* Entries, hidden ones included; each is handed to visit if there is one. */
static inline int count_entries(int (*visit)(const char *path))
{
    DIR *const open_folder = opendir(folder);
    const struct dirent *entry;
    int n = 0;

    cr_assert_not_null(open_folder);
    while ((entry = readdir(open_folder)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (visit != NULL) visit(in_folder(entry->d_name));
        n++;
    }
    closedir(open_folder);
    return n;
}

static inline void remove_folder(void)
{
    count_entries(remove);
    rmdir(folder);
}

static inline void put_file(const char *path, const void *bytes, size_t n)
{
    FILE *const file = fopen(path, "wb");

    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, n, file), n);
    cr_assert_eq(fclose(file), 0);
}

/* Of a writer's temporary file. */
static inline const char *name_of(struct ls_tensor_writer *writer)
{
    const char *name = NULL;

    cr_assert_eq(ls_tensor_writer_share(&name, writer), LS_OK, "%s", ls_message());
    return name;
}

/* Opening must fail with this status and one line that names the file and has this word. */
static inline void expect_refused(const char *path, ls_status status, const char *word,
                                  const char *what)
{
    struct ls_tensor_file *file = NULL;
    const ls_status got = ls_tensor_file_open(&file, path);

    cr_expect_eq(got, status, "%s: %s, not %s: %s", what, ls_status_name(got),
                 ls_status_name(status), ls_message());
    cr_expect_null(file, "%s: a file was set", what);
    cr_expect_not_null(strstr(ls_message(), path), "%s: no path in: %s", what, ls_message());
    cr_expect_not_null(strstr(ls_message(), word), "%s: no \"%s\" in: %s", what, word,
                       ls_message());
    for (const char *c = ls_message(); *c != '\0'; c++)
        cr_expect((unsigned char)*c >= ' ', "%s: control byte in: %s", what, ls_message());
    ls_tensor_file_close(file);
}

/* Files that fuzzing starts from: those whose names begin with "good" can be opened, others cannot,
 * and none does harm. */
static inline void expect_corpus(const char *kind, const char *(*find)(const char *path))
{
    const char *const sources = getenv("srcdir");
    char path[PATH_LENGTH];
    const struct dirent *entry;
    int n = 0;

    snprintf(path, sizeof path, "%s/tests/fuzz-files/corpus/%s", sources ? sources : "..", kind);
    DIR *const corpus = opendir(path);
    cr_assert_not_null(corpus, "%s", path);
    const size_t length = strlen(path);
    while ((entry = readdir(corpus)) != NULL) {
        struct ls_tensor_file *file = NULL;

        if (entry->d_name[0] == '.') continue;
        snprintf(path + length, sizeof path - length, "/%s", entry->d_name);
        cr_expect_eq(ls_tensor_file_open(&file, path) == LS_OK,
                     strncmp(entry->d_name, "good", 4) == 0, "%s: %s", path, ls_message());
        ls_tensor_file_close(file);
        const char *const harm = find(path);
        cr_expect_null(harm, "%s: %s: %s", path, harm, ls_message());
        n++;
    }
    closedir(corpus);
    cr_expect_gt(n, 0);
}

/* A file that is longer by a byte, and every shorter one, is refused. bytes[n] exists. */
static inline void expect_length_matters(const char *path, char *bytes, size_t n)
{
    bytes[n] = 'x';
    put_file(path, bytes, n + 1);
    expect_refused(path, LS_EFORMAT, "trailing", "one byte more");
    while (n-- > 0) {
        char what[64];

        snprintf(what, sizeof what, "cut to %zu bytes", n);
        cr_assert_eq(truncate(path, (off_t)n), 0);
        expect_refused(path, LS_EFORMAT, n == 0 ? "empty" : "truncated", what);
    }
}

/* Every byte of the header replaced by each of a few that mean something. */
static inline void expect_mutants_harmless(const char *path, const char *bytes, size_t n,
                                           size_t header_bytes)
{
    static const char replacements[] = "\0\x01\xff{}[](),:'\"90-L \\";

    put_file(path, bytes, n);
    const int fd = open(path, O_WRONLY);
    for (size_t i = 0; i < header_bytes; i++) {
        for (size_t j = 0; j < sizeof replacements; j++) {
            cr_assert_eq(pwrite(fd, &replacements[j], 1, (off_t)i), 1);
            const char *const harm = find_harm(path);
            cr_assert_null(harm, "byte %zu is %d: %s: %s", i, replacements[j], harm, ls_message());
        }
        cr_assert_eq(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
    }
    close(fd);
}

#endif
