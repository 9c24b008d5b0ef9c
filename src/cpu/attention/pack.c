/* Rows of tensors brought into the kernels' type and order. */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "cpu/attention/kernel.h"
#include "cpu/elements.h"
#include "cpu/prefetch.h"
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

/* How rows of one tensor become rows of operands. */
struct row_copy {
    ls_dtype from, to;
    int64_t d;
    size_t to_bytes, padded_bytes; /* of a row */
};

static struct row_copy row_copy(const struct ls_attention_kernel *kernel,
                                const struct ls_tensor *from, int d_pad)
{
    const ls_dtype to = kernel->products->type;
    const size_t size = (size_t)ls_dtype_size(to);
    const int64_t d = from->dim[3] - (ls_dtype_is_of_8_bits(from->type) ? LS_SCALE_BYTES : 0);

    return (struct row_copy){.from = from->type,
                             .to = to,
                             .d = d,
                             .to_bytes = (size_t)d * size,
                             .padded_bytes = (size_t)d_pad * size};
}

static inline void pad_row(char *to, const struct row_copy *copy)
{
    if (copy->padded_bytes > copy->to_bytes)
        memset(to + copy->to_bytes, 0, copy->padded_bytes - copy->to_bytes);
}

static inline void copy_row(char *to, const struct row_copy *copy, const char *row)
{
    if (copy->from == copy->to)
        memcpy(to, row, copy->to_bytes);
    else
        ls_dtype_convert(to, copy->to, row, copy->from, copy->d);
    pad_row(to, copy);
}

#define SUMS 16 /* of a dot product, which then is the same on every instruction set */

static ALWAYS_INLINE float dot(const void *row, ls_dtype type, const float *b, int64_t n)
{
    float sum[SUMS] = {0}, rest = 0;
    int64_t i = 0;

    for (; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++) sum[j] += load_element(row, type, i + j) * b[i + j];
    for (; i < n; i++) rest += load_element(row, type, i) * b[i];
#pragma GCC unroll 4
    for (int half = SUMS / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) sum[j] += sum[j + half];
    return sum[0] + rest;
}

/* out [n] = factor x each of n rows in a kernel's type, so many bytes apart, times one in f32. */
LS_CLONED static void dots(float *out, const char *row, size_t bytes, int n, ls_dtype type,
                           const float *b, int64_t d, float factor)
{
    for (int r = 0; r < n; r++, row += bytes)
        out[r] = factor * (type == LS_BF16 ? dot(row, LS_BF16, b, d) : dot(row, LS_F32, b, d));
}

/* What the mean of the keys adds to the logits of a tile's rows, whose heads see the same keys. */
static void mean_logits(struct worker *w, const struct ls_attention_kernel *kernel,
                        const struct tile *tile)
{
    const struct ls_key_mean *of = &kernel->key_mean;
    const struct ls_scores *scores = &kernel->shape.scores;
    const struct tile_row at = tile_row(kernel, tile, 0);
    const int64_t d = kernel->shape.global.d;
    const int64_t head = (scores->first_head + at.head - of->first_head) / of->group;
    const float *mean = of->mean + (at.batch * of->heads + head) * d;
    const ls_dtype type = kernel->products->type;

    dots(w->shift, w->q, (size_t)kernel->pad.d * (size_t)ls_dtype_size(type), tile->rows, type,
         mean, d, fabsf(scores->scale));
}

void cpu_gather_queries(const struct ls_attention_kernel *kernel, struct worker *w,
                        const struct ls_tensor *q, const struct tile *tile)
{
    const struct row_copy copy = row_copy(kernel, q, kernel->pad.d);
    char *row = w->q;

    for (int r = 0; r < tile->rows; r++, row += copy.padded_bytes) {
        const struct tile_row at = tile_row(kernel, tile, r);
        const char *from = element(q, at.batch, at.row, at.head);

        prefetch_row_to_read(q, from);
        copy_row(row, &copy, from);
        if (kernel->negate) negate(row, copy.to, kernel->pad.d);
    }
    memset(row, 0, (size_t)(TILE_ROWS - tile->rows) * copy.padded_bytes);
    if (kernel->key_mean.mean) mean_logits(w, kernel, tile);
}

static float scale_of(const struct ls_tensor *t, const char *row)
{
    float scale;

    memcpy(&scale, row + t->dim[3] - LS_SCALE_BYTES, sizeof scale);
    return scale;
}

static ALWAYS_INLINE bool multiply_exactly(uint16_t *to, const void *row, ls_dtype type,
                                           float factor, int64_t n)
{
    uint32_t lost = 0;

    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = bits_of_f32(load_element(row, type, i) * factor);

        lost |= bits;
        to[i] = (uint16_t)(bits >> 16);
    }
    return (lost & 0xffff) == 0;
}

/* to = row x factor; whether bf16 holds all of it, which it then is. */
LS_CLONED static bool bf16_exactly(uint16_t *to, const void *row, ls_dtype type, float factor,
                                   int64_t n)
{
    return type == LS_I8 ? multiply_exactly(to, row, LS_I8, factor, n)
                         : multiply_exactly(to, row, LS_F32, factor, n);
}

LS_CLONED static void multiply_row(float *to, const float *row, float factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] = row[i] * factor;
}

/* The numbers of a row of 8 bits times a factor; false: in bf16 some lose digits. */
static bool dequantize_row(char *to, const struct row_copy *copy, const char *row, float factor)
{
    float wide[LS_MAX_HEAD_DIM];

    pad_row(to, copy);
    if (copy->from == LS_I8 && copy->to == LS_BF16)
        return bf16_exactly((void *)to, row, LS_I8, factor, copy->d);
    ls_dtype_convert(wide, LS_F32, row, copy->from, copy->d);
    if (copy->to == LS_BF16) return bf16_exactly((void *)to, wide, LS_F32, factor, copy->d);
    multiply_row((void *)to, wide, factor, copy->d);
    return true;
}

/* The numbers of a row of 8 bits, which are exact in bf16, and its scale where that is exact as
 * well, as it is of rows that Longspan made. Returns the scale that they are without, else 1. */
static float take_scale(char *to, const struct row_copy *copy, const char *row, float scale)
{
    const bool is_short = (bits_of_f32(scale) & 0xffff) == 0;     /* no other is worth a try */
    const bool is_moderate = scale > 0x1p-64F && scale < 0x1p30F; /* nothing is flushed, or inf */

    if (is_short && is_moderate && dequantize_row(to, copy, row, scale)) return 1;
    dequantize_row(to, copy, row, 1);
    return scale;
}

/* Whether 8-bit numbers times this are below V_LIMIT; not if it is NaN. */
static bool scale_is_small(float scale)
{
    return fabsf(scale) < V_LIMIT / 512;
}

/* Whether all scales are small. */
static bool gather_leaf(const struct ls_attention_kernel *kernel, struct worker *w,
                        const struct leaf_source *of)
{
    const struct row_copy copy = row_copy(kernel, of->from, of->d_pad);
    const int64_t h_kv = kernel->shape.global.h_kv;
    const ptrdiff_t stride = of->from->stride[1] * ls_dtype_size(of->from->type);
    const char *source = element(of->from, of->pair / h_kv, of->leaf->row, of->pair % h_kv);
    char *row = w->raw, *const packed = of->packed;
    bool small = true;

    if (of->scales) of->scales->any = false;
    for (int r = 0; r < LS_LEAF; r++, row += copy.padded_bytes, source += stride) {
        float scale = 1;

        prefetch_row_to_read(of->from, source);
        if (packed) prefetch_to_write(packed + (size_t)r * copy.padded_bytes, copy.padded_bytes);
        if (!ls_leaf_keys_have(of->keep, r)) {
            memset(row, 0, copy.padded_bytes);
        } else if (kernel->quantized) {
            scale = scale_of(of->from, source);
            small &= scale_is_small(scale);
            if (of->scales)
                scale = take_scale(row, &copy, source, scale);
            else
                dequantize_row(row, &copy, source, scale);
        } else {
            copy_row(row, &copy, source);
        }
        if (!of->scales) continue;
        of->scales->of_row[r] = scale;
        of->scales->any |= scale != 1;
    }
    return small;
}

bool cpu_gather_values(const struct ls_attention_kernel *kernel, struct worker *w,
                       const struct leaf_source *of)
{
    if (!gather_leaf(kernel, w, of)) return false;
    return of->from->type == LS_I8 ||
           ls_dtype_find_large(w->raw, kernel->products->type, (int64_t)LS_LEAF * of->d_pad,
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
    struct leaf_scales *scales = kernel->has_scales ? &packed->scales[slot] : NULL;
    struct leaf_source of = {.from = call->k,
                             .leaf = leaf,
                             .pair = pair,
                             .keep = &rows,
                             .d_pad = kernel->pad.d,
                             .scales = scales ? &scales->k : NULL,
                             .packed = packed->k + (size_t)slot * kernel->k_bytes};

    gather_leaf(kernel, w, &of);
    LS_TRY(kernel->products->pack_k(of.packed, w->strip.own, w->raw));
    of.from = call->v;
    of.d_pad = kernel->pad.d_v;
    of.scales = scales ? &scales->v : NULL;
    of.packed = packed->v + (size_t)slot * kernel->v_bytes;
    packed->clean[slot] = cpu_gather_values(kernel, w, &of);
    return kernel->products->pack_v(of.packed, w->strip.own, w->raw);
}
