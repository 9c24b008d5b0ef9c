/* What the targets of libFuzzer share: files that are memory. */
#ifndef LS_FUZZ_FILES_TARGET_H
#define LS_FUZZ_FILES_TARGET_H

#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tensor/harmless.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* Ends the program where a reader does harm with these bytes. */
static inline void try_reader(const char *(*find)(const char *path), const uint8_t *bytes, size_t n)
{
    static int fd = -1;
    char path[32];

    if (fd < 0) fd = memfd_create("fuzzed", 0);
    if (ftruncate(fd, (off_t)n) != 0 || pwrite(fd, bytes, n, 0) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const char *const harm = find(path);
    if (!harm) return;
    fprintf(stderr, "%s: %s\n", harm, ls_message());
    abort();
}

/* The same bytes with a little-endian length at `at` that leads to behind the last '}', which
 * chance would hardly find. */
static inline void try_with_length(const char *(*find)(const char *path), const uint8_t *bytes,
                                   size_t n, size_t at, size_t width)
{
    const uint8_t *const end = n > 0 ? memrchr(bytes, '}', n) : NULL;
    const size_t first = at + width;

    if (!end || end < bytes + first) return;
    uint8_t *const copy = malloc(n);
    memcpy(copy, bytes, n);
    for (size_t i = 0; i < width; i++)
        copy[at + i] = (uint8_t)((uint64_t)(end + 1 - bytes - first) >> 8 * i);
    try_reader(find, copy, n);
    free(copy);
}

#endif
