/* Whatever the bytes of a file are, opening it fails with one line that names the file, or gives
 * what can be read in full. */
#ifndef LS_TEST_TENSOR_HARMLESS_H
#define LS_TEST_TENSOR_HARMLESS_H

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tensor/file.h"

/* NULL for a message of one line that has the path; else what is wrong. */
static inline const char *find_bad_message(const char *path)
{
    if (!strstr(ls_message(), path)) return "a message without the path";
    for (const char *c = ls_message(); *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) return "a control byte in a message";
    return NULL;
}

static inline const char *find_harm_in_tensor(const struct ls_tensor_file *file,
                                              const struct ls_file_tensor *tensor, int64_t bytes)
{
    const char *const path = ls_tensor_file_path(file);
    int64_t n = 1;

    if (tensor->offset < 0 || tensor->bytes < 0 || tensor->offset > bytes - tensor->bytes)
        return "a tensor outside of the file";
    if (!memchr(tensor->name, '\0', sizeof tensor->name)) return "a name without an end";
    if (!ls_tensor_file_find(file, tensor->name)) return "a tensor that is not found";
    if (ls_tensor_file_check(file, tensor) != LS_OK && find_bad_message(path))
        return find_bad_message(path);
    if (tensor->foreign[0] != '\0' && tensor->integer == 0) return NULL;
    for (int j = 0; j < tensor->ndim; j++) n *= tensor->dim[j];
    if (n * ls_element_bytes(tensor) != tensor->bytes) return "a shape that is not its bytes";
    void *const data = malloc((size_t)tensor->bytes + 1);
    const ls_status status = ls_tensor_file_read(data, file, tensor, 0, n);
    free(data);
    return status == LS_OK ? NULL : "a tensor that cannot be read";
}

/* NULL, or what is wrong with what ls_tensor_file_open made of the file. */
static inline const char *find_harm(const char *path)
{
    const char *harm = NULL;
    struct ls_tensor_file *file;
    struct stat about;

    if (ls_tensor_file_open(&file, path) != LS_OK) return find_bad_message(path);
    if (stat(path, &about) != 0) harm = "a file that went";
    for (int i = 0; i < ls_tensor_file_count(file) && !harm; i++)
        harm = find_harm_in_tensor(file, ls_tensor_file_at(file, i), about.st_size);
    ls_tensor_file_close(file);
    return harm;
}

/* The same of ls_integers_load. */
static inline const char *find_harm_in_integers(const char *path)
{
    struct ls_integers got;
    struct stat about;

    if (ls_integers_load(&got, path) != LS_OK) return find_bad_message(path);
    free(got.number);
    if (stat(path, &about) != 0) return "a file that went";
    return got.rows < 0 || got.columns < 0 || got.rows * got.columns > about.st_size / 4
               ? "more numbers than the file holds"
               : NULL;
}

#endif
