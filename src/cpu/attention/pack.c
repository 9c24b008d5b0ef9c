/* Rows of tensors brought into the kernels' type and order. */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "cpu/attention/kernel.h"
#include "tensor/bf16.h"
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
    const int64_t d = from->dim[3] - (from_size == 1 ? LS_SCALE_BYTES : 0);

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

#define LANES 16 /* of a sum, which then is the same on every instruction set */

LS_CLONED static float dot_of_rows(const float *a, const float *b, int64_t n)
{
    float lane[LANES] = {0}, sum = 0;
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] += a[i + j] * b[i + j];
    for (; i < n; i++) sum += a[i] * b[i];
    for (int j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

/* What the mean of the keys adds to the logits of query `head`, whose row is in the kernel's type.
 */
static float mean_logit(const struct ls_attention_kernel *kernel, const char *row,
                        const struct tile_row *at)
{
    const struct ls_key_mean *of = &kernel->key_mean;
    const struct ls_scores *scores = &kernel->shape.scores;
    const int64_t d = kernel->shape.global.d;
    const int64_t head = (scores->first_head + at->head - of->first_head) / of->group;
    const float *mean = of->mean + (at->batch * of->heads + head) * d;
    float q[LS_MAX_HEAD_DIM];

    ls_dtype_convert(q, LS_F32, row, kernel->products->type, d);
    return fabsf(scores->scale) * dot_of_rows(q, mean, d);
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
        if (kernel->key_mean.mean) w->shift[r] = mean_logit(kernel, row, &at);
    }
    memset(row, 0, (size_t)(TILE_ROWS - tile->rows) * copy.padded_bytes);
}

static float scale_of(const struct ls_tensor *t, const char *row)
{
    float scale;

    memcpy(&scale, row + t->dim[3] - LS_SCALE_BYTES, sizeof scale);
    return scale;
}

/* Whether numbers of this type times the scale all but keep their digits in bf16: 1 or 3 times a
 * power of two gives those of i8 up to two bits more, and few lose the last. */
static bool is_short(float scale, ls_dtype type)
{
    const uint32_t rest = type == LS_I8 ? 0x003fffff : 0x000fffff;
    uint32_t bits;

    memcpy(&bits, &scale, sizeof bits);
    return (bits & rest) == 0 && scale < 0x1p30F && (scale > 0x1p-64F || scale == 0);
}

/* out [LS_LEAF] = the scales of the rows in `keep`, 0 of others. */
static void gather_scales(float *out, const struct ls_tensor *from, const char *row,
                          const struct ls_leaf_keys *keep)
{
    for (int r = 0; r < LS_LEAF; r++, row += from->stride[1])
        out[r] = ls_leaf_keys_have(keep, r) ? scale_of(from, row) : 0;
}

LS_CLONED static void scale_row(float *row, float factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) row[i] *= factor;
}

/* In one go, as most rows come and go. */
LS_CLONED static void bf16_of_i8(uint16_t *to, const int8_t *row, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] = bf16_of_f32((float)row[i] * scale);
}

/* The numbers that a row of 8 bits stands for. */
static void dequantize_row(char *to, const struct row_copy *copy, const char *row, float scale)
{
    float wide[LS_MAX_HEAD_DIM];

    memset(to + copy->to_bytes, 0, copy->padded_bytes - copy->to_bytes);
    if (copy->from == LS_I8 && copy->to == LS_BF16) {
        bf16_of_i8((uint16_t *)(void *)to, (const int8_t *)row, scale, copy->d);
        return;
    }
    ls_dtype_convert(wide, LS_F32, row, copy->from, copy->d);
    scale_row(wide, scale, copy->d);
    ls_dtype_convert(to, copy->to, wide, LS_F32, copy->d);
}

/* apart [LS_LEAF]: the scales that a row's numbers are without; NULL: they have them. */
static void gather_leaf(const struct ls_attention_kernel *kernel, struct worker *w,
                        const struct ls_tensor *from, int d_pad, const struct ls_leaf *leaf,
                        int64_t pair, const struct ls_leaf_keys *keep, float *apart)
{
    const struct row_copy copy = row_copy(kernel, from, d_pad);
    const int64_t h_kv = kernel->shape.global.h_kv;
    const ptrdiff_t stride = from->stride[1] * ls_dtype_size(from->type);
    const char *source = element(from, pair / h_kv, leaf->row, pair % h_kv);
    char *row = w->raw;

    for (int r = 0; r < LS_LEAF; r++, row += copy.padded_bytes, source += stride) {
        if (!ls_leaf_keys_have(keep, r))
            memset(row, 0, copy.padded_bytes);
        else if (kernel->quantized)
            dequantize_row(row, &copy, source, apart && apart[r] != 1 ? 1 : scale_of(from, source));
        else
            copy_row(row, &copy, source);
    }
}

/* Scales that numbers can take become 1. Whether all are. */
static bool take_short_scales(float *scales, ls_dtype type)
{
    bool all = true;

    for (int r = 0; r < LS_LEAF; r++) {
        if (is_short(scales[r], type))
            scales[r] = 1;
        else
            all = false;
    }
    return all;
}

/* Whether 8-bit numbers times these are as large as V_LIMIT, or NaN. */
static bool scales_are_large(const float *scales)
{
    bool large = false;

    for (int r = 0; r < LS_LEAF; r++) large |= !(fabsf(scales[r]) < V_LIMIT / 512);
    return large;
}

bool cpu_gather_values(struct leaf_scales *scales, const struct ls_attention_kernel *kernel,
                       struct worker *w, const struct ls_tensor *v, const struct ls_leaf *leaf,
                       int64_t pair, const struct ls_leaf_keys *keep)
{
    const int64_t h_kv = kernel->shape.global.h_kv;

    if (scales) {
        gather_scales(scales->v, v, element(v, pair / h_kv, leaf->row, pair % h_kv), keep);
        scales->v_apart = !take_short_scales(scales->v, v->type);
    }
    gather_leaf(kernel, w, v, kernel->pad.d_v, leaf, pair, keep, scales ? scales->v : NULL);
    return !(scales && scales_are_large(scales->v)) &&
           ls_dtype_find_large(w->raw, kernel->products->type, (int64_t)LS_LEAF * kernel->pad.d_v,
                               V_LIMIT) < 0;
}

/* Scores have the scales of keys, which are exact then. */
static void gather_keys(struct leaf_scales *scales, const struct ls_attention_kernel *kernel,
                        struct worker *w, const struct ls_tensor *k, const struct ls_leaf *leaf,
                        int64_t pair, const struct ls_leaf_keys *keep)
{
    const int64_t h_kv = kernel->shape.global.h_kv;

    if (scales) gather_scales(scales->k, k, element(k, pair / h_kv, leaf->row, pair % h_kv), keep);
    gather_leaf(kernel, w, k, kernel->pad.d, leaf, pair, keep, scales ? scales->k : NULL);
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

    gather_keys(scales, kernel, w, call->k, leaf, pair, &rows);
    LS_TRY(
        kernel->products->pack_k(packed->k + (size_t)slot * kernel->k_bytes, w->strip.own, w->raw));
    packed->clean[slot] = cpu_gather_values(scales, kernel, w, call->v, leaf, pair, &rows);
    return kernel->products->pack_v(packed->v + (size_t)slot * kernel->v_bytes, w->strip.own,
                                    w->raw);
}
