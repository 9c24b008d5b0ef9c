/* What is asked for before its turn: rows of strided tensors, which the hardware does not foresee,
 * and places that are written without having been read. */
#ifndef LS_CPU_PREFETCH_H
#define LS_CPU_PREFETCH_H

#include <stddef.h>

#include "longspan/tensor.h"

#define PREFETCH_ROWS 8

static inline void prefetch_to_read(const char *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i);
}

static inline void prefetch_to_write(const char *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 1);
}

/* The row so many rows behind this one of a tensor [b, s, h, d]. */
static inline void prefetch_row_to_read(const struct ls_tensor *t, const char *row)
{
    const int64_t size = ls_dtype_size(t->type);

    prefetch_to_read(row + PREFETCH_ROWS * t->stride[1] * size, (size_t)(t->dim[3] * size));
}

static inline void prefetch_row_to_write(const struct ls_tensor *t, const char *row)
{
    const int64_t size = ls_dtype_size(t->type);

    prefetch_to_write(row + PREFETCH_ROWS * t->stride[1] * size, (size_t)(t->dim[3] * size));
}

#endif
