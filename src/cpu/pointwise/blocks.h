/* Blocks of a row's elements: what one thread does at once, in f32, and in its nearest cache. */
#ifndef LS_CPU_POINTWISE_BLOCKS_H
#define LS_CPU_POINTWISE_BLOCKS_H

#include <stdbool.h>

#include "cpu/elements.h"
#include "tensor/contiguous.h"
#include "tensor/dtype.h"

#define BLOCK 1024

/* Blocks of all rows; where tensors lie in one piece they are one row. */
struct blocks {
    int64_t s, e;     /* rows of a batch entry, elements of a row */
    int64_t of_a_row; /* blocks */
    int64_t count;
};

/* Rows of `e` elements of b x s rows. */
static inline struct blocks blocks_of_rows(int64_t b, int64_t s, int64_t e)
{
    struct blocks out = {s, e, (e + BLOCK - 1) / BLOCK, 0};

    out.count = b * s * out.of_a_row;
    return out;
}

/* Of tensors of one shape. */
static inline struct blocks blocks_of(const struct ls_tensor *const t[], int n)
{
    const int64_t b = t[0]->dim[0], s = t[0]->dim[1], e = t[0]->dim[2];
    bool is_one = true;

    for (int i = 0; i < n; i++) is_one = is_one && ls_tensor_is_contiguous(t[i]);
    return is_one ? blocks_of_rows(1, 1, b * s * e) : blocks_of_rows(b, s, e);
}

struct block {
    int64_t batch, row, column;
    int n;
};

static inline struct block block_at(const struct blocks *blocks, int64_t i)
{
    const int64_t row = i / blocks->of_a_row, column = i % blocks->of_a_row * BLOCK;
    const int64_t left = blocks->e - column;

    return (struct block){row / blocks->s, row % blocks->s, column,
                          left < BLOCK ? (int)left : BLOCK};
}

/* `column` further to the right. */
static inline void *block_address(const struct ls_tensor *t, const struct block *b, int64_t column)
{
    return (char *)row_of(t, b->batch, b->row) +
           (b->column + column) * (int64_t)ls_dtype_size(t->type);
}

/* In f32: where they are, or in room [BLOCK]. */
static inline const float *read_block(float *room, const struct ls_tensor *t, const struct block *b,
                                      int64_t column)
{
    const void *const at = block_address(t, b, column);

    if (t->type == LS_F32) return at;
    ls_dtype_convert(room, LS_F32, at, t->type, b->n);
    return room;
}

/* Where an output is written, in f32, until write_block brings it to its place. */
static inline float *out_block(float *room, const struct ls_tensor *t, const struct block *b,
                               int64_t column)
{
    return t->type == LS_F32 ? block_address(t, b, column) : room;
}

static inline void write_block(const struct ls_tensor *t, const struct block *b, int64_t column,
                               const float *x)
{
    if (t->type != LS_F32) ls_dtype_convert(block_address(t, b, column), t->type, x, LS_F32, b->n);
}

#endif
