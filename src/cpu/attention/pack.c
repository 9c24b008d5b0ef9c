/* Rows of tensors brought into the kernels' type and order. */
#include <string.h>

#include "cpu/attention/kernel.h"
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

#define ROWS_AHEAD 8 /* of strided tensors, which the hardware does not foresee */

/* How rows of one tensor become rows of operands. */
struct row_copy {
    ls_dtype from, to;
    int64_t d;
    size_t from_bytes, to_bytes, padded_bytes; /* of a row */
    ptrdiff_t ahead;                           /* bytes */
};

static struct row_copy row_copy(const struct ls_attention_kernel *kernel,
                                const struct ls_tensor *from, int d_pad)
{
    const ls_dtype to = kernel->products->type;
    const size_t from_size = (size_t)ls_dtype_size(from->type), size = (size_t)ls_dtype_size(to);
    const int64_t d = from->dim[3];

    return (struct row_copy){.from = from->type,
                             .to = to,
                             .d = d,
                             .from_bytes = (size_t)d * from_size,
                             .to_bytes = (size_t)d * size,
                             .padded_bytes = (size_t)d_pad * size,
                             .ahead = ROWS_AHEAD * from->stride[1] * (ptrdiff_t)from_size};
}

static inline void copy_row(char *to, const struct row_copy *copy, const char *row)
{
    for (size_t i = 0; i < copy->from_bytes; i += 64) __builtin_prefetch(row + copy->ahead + i);
    if (copy->from == copy->to)
        memcpy(to, row, copy->to_bytes);
    else
        ls_dtype_convert(to, copy->to, row, copy->from, copy->d);
    memset(to + copy->to_bytes, 0, copy->padded_bytes - copy->to_bytes);
}

void cpu_gather_queries(const struct ls_attention_kernel *kernel, struct worker *w,
                        const struct ls_tensor *q, const struct tile *tile)
{
    const struct row_copy copy = row_copy(kernel, q, kernel->pad.d);
    char *row = w->q;

    for (int r = 0; r < tile->rows; r++, row += copy.padded_bytes) {
        const struct tile_row at = tile_row(kernel, tile, r);

        copy_row(row, &copy, element(q, at.batch, at.row, at.head));
        if (kernel->negate) negate(row, copy.to, kernel->pad.d);
    }
    memset(row, 0, (size_t)(TILE_ROWS - tile->rows) * copy.padded_bytes);
}

static void gather_leaf(const struct ls_attention_kernel *kernel, struct worker *w,
                        const struct ls_tensor *from, int d_pad, const struct ls_leaf *leaf,
                        int64_t pair, const struct ls_leaf_keys *keep)
{
    const struct row_copy copy = row_copy(kernel, from, d_pad);
    const int64_t h_kv = kernel->shape.global.h_kv;
    const ptrdiff_t stride = from->stride[1] * ls_dtype_size(from->type);
    const char *source = element(from, pair / h_kv, leaf->row, pair % h_kv);
    char *row = w->raw;

    for (int r = 0; r < LS_LEAF; r++, row += copy.padded_bytes) {
        if (ls_leaf_keys_have(keep, r))
            copy_row(row, &copy, source + r * stride);
        else
            memset(row, 0, copy.padded_bytes);
    }
}

bool cpu_gather_values(const struct ls_attention_kernel *kernel, struct worker *w,
                       const struct ls_tensor *v, const struct ls_leaf *leaf, int64_t pair,
                       const struct ls_leaf_keys *keep)
{
    gather_leaf(kernel, w, v, kernel->pad.d_v, leaf, pair, keep);
    return ls_dtype_find_large(w->raw, kernel->products->type, (int64_t)LS_LEAF * kernel->pad.d_v,
                               V_LIMIT) < 0;
}

ls_status cpu_pack_leaf(struct ls_attention_kernel *kernel, struct worker *w,
                        const struct ls_kernel_call *call, int64_t wave_first, int64_t pair,
                        int64_t index)
{
    const struct ls_leaf *leaf = &call->k_leaves.leaf[index];
    const struct ls_leaf_keys rows =
        ls_leaf_keys_run(0, leaf_rows(leaf->number, kernel->shape.global.s_k));
    const int64_t slot = (pair - wave_first) * call->k_leaves.count + index;
    const struct packed *packed = &kernel->packed;

    gather_leaf(kernel, w, call->k, kernel->pad.d, leaf, pair, &rows);
    LS_TRY(
        kernel->products->pack_k(packed->k + (size_t)slot * kernel->k_bytes, w->strip.own, w->raw));
    packed->clean[slot] = cpu_gather_values(kernel, w, call->v, leaf, pair, &rows);
    return kernel->products->pack_v(packed->v + (size_t)slot * kernel->v_bytes, w->strip.own,
                                    w->raw);
}
