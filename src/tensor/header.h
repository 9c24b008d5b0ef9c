/* What the headers of both file formats have in common. */
#ifndef LS_TENSOR_HEADER_H
#define LS_TENSOR_HEADER_H

#include <stdbool.h>
#include <stddef.h>

#include "tensor/file.h"

/* A regular file that is open for reading. */
struct ls_source {
    const char *path;
    int fd;
    int64_t bytes;
};

/* Bytes of a tensor's elements. False if a dimension is negative or if the product, zeros counted
 * as ones, has no place in 63 bits: strides of such a shape could not be computed either. */
bool ls_extent_bytes(int64_t *out, const struct ls_file_tensor *tensor);

/* Whether a possible extent has elements [first, first + n). */
bool ls_extent_holds(const struct ls_file_tensor *tensor, int64_t first, int64_t n);

#define LS_QUOTE_LENGTH 64

/* Foreign text made fit for a one-line message: cut to what fits, control bytes become '?'.
 * Returns out. */
const char *ls_quote(char out[LS_QUOTE_LENGTH], const char *text, size_t length);

#endif
