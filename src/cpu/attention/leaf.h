/* Where the rows of leaves and tensors lie. */
#ifndef LS_CPU_ATTENTION_LEAF_H
#define LS_CPU_ATTENTION_LEAF_H

#include "device/attention.h"

/* Rows that a leaf of a sequence of s has. */
static inline int leaf_rows(int64_t number, int64_t s)
{
    const int64_t left = s - number * LS_LEAF;

    return left < LS_LEAF ? (int)left : LS_LEAF;
}

static inline void *element(const struct ls_tensor *t, int64_t batch, int64_t row, int64_t head)
{
    return (char *)t->data + (batch * t->stride[0] + row * t->stride[1] + head * t->stride[2]) *
                                 ls_dtype_size(t->type);
}

#endif
