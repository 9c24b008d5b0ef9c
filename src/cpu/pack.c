/* Rows of tensors brought into the kernels' type and order. */
#include <string.h>

#include "cpu/kernel.h"
#include "tensor/dtype.h"

/* Flips the signs of n elements. */
static void negate(void *row, ls_dtype type, int64_t n)
{
    if (type == LS_BF16) {
        for (int64_t i = 0; i < n; i++) ((uint16_t *)row)[i] ^= 0x8000;
    } else {
        for (int64_t i = 0; i < n; i++) ((float *)row)[i] = -((float *)row)[i];
    }
}

static size_t row_bytes(const struct ls_attention_kernel *kernel)
{
    return (size_t)kernel->d_pad * (size_t)ls_dtype_size(kernel->products->type);
}

static void pad_row(const struct ls_attention_kernel *kernel, char *row)
{
    const size_t used =
        (size_t)kernel->shape.global.d * (size_t)ls_dtype_size(kernel->products->type);

    memset(row + used, 0, row_bytes(kernel) - used);
}

#define ROWS_AHEAD 8 /* rows of strided tensors, which the hardware does not foresee */

/* One row of a tensor into one of operands. */
static void gather_row(char *to, const struct ls_attention_kernel *kernel,
                       const struct ls_tensor *from, const char *row)
{
    const char *ahead = row + ROWS_AHEAD * from->stride[1] * ls_dtype_size(from->type);
    const int64_t bytes = kernel->shape.global.d * ls_dtype_size(from->type);

    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(ahead + i);
    ls_dtype_convert(to, kernel->products->type, row, from->type, kernel->shape.global.d);
    pad_row(kernel, to);
}

void gather_queries(const struct ls_attention_kernel *kernel, struct worker *w,
                    const struct ls_tensor *q, const struct tile *tile)
{
    char *row = w->q;

    for (int r = 0; r < tile->rows; r++, row += row_bytes(kernel)) {
        const struct tile_row at = tile_row(kernel, tile, r);

        gather_row(row, kernel, q, element(q, at.batch, at.row, at.head));
        if (kernel->negate) negate(row, kernel->products->type, kernel->d_pad);
    }
    memset(row, 0, (size_t)(TILE_ROWS - tile->rows) * row_bytes(kernel));
}

void gather_leaf(const struct ls_attention_kernel *kernel, struct worker *w,
                 const struct ls_tensor *from, const struct ls_leaf *leaf, int64_t pair, int keep)
{
    const int64_t h_kv = kernel->shape.global.h_kv;
    char *row = w->raw;

    for (int r = 0; r < keep; r++, row += row_bytes(kernel))
        gather_row(row, kernel, from, element(from, pair / h_kv, leaf->row + r, pair % h_kv));
    memset(row, 0, (size_t)(LS_LEAF - keep) * row_bytes(kernel));
}

ls_status pack_leaf(struct ls_attention_kernel *kernel, struct worker *w,
                    const struct ls_kernel_call *call, int64_t wave_first, int64_t pair,
                    int64_t index)
{
    const struct ls_leaf *leaf = &call->k_leaves.leaf[index];
    const int rows = leaf_rows(leaf->number, kernel->shape.global.s_k);
    const int64_t slot = (pair - wave_first) * call->k_leaves.count + index;
    const struct packed *packed = &kernel->packed;

    gather_leaf(kernel, w, call->k, leaf, pair, rows);
    LS_TRY(kernel->products->pack_k(packed->k + (size_t)slot * kernel->packed_bytes, w->strip.own,
                                    w->raw));
    gather_leaf(kernel, w, call->v, leaf, pair, rows);
    packed->clean[slot] =
        ls_dtype_find_nonfinite(w->raw, kernel->products->type, (int64_t)rows * kernel->d_pad) < 0;
    return kernel->products->pack_v(packed->v + (size_t)slot * kernel->packed_bytes, w->strip.own,
                                    w->raw);
}
