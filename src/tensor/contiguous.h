/* Whether the elements of a tensor follow each other, last dimension fastest. */
#ifndef LS_TENSOR_CONTIGUOUS_H
#define LS_TENSOR_CONTIGUOUS_H

#include <stdbool.h>

#include "longspan/tensor.h"

/* The last dimension with another stride, and the stride that it should have; -1: there is none. */
static inline int ls_tensor_gap(int64_t *stride, const struct ls_tensor *t)
{
    *stride = 1;
    for (int i = t->ndim - 1; i >= 0; *stride *= t->dim[i--])
        if (t->dim[i] > 1 && t->stride[i] != *stride) return i;
    return -1;
}

static inline bool ls_tensor_is_contiguous(const struct ls_tensor *t)
{
    int64_t stride;

    return ls_tensor_gap(&stride, t) < 0;
}

#endif
