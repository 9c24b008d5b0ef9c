#include "attention/combine.h"

#include <math.h>
#include <string.h>

#include "tensor/dtype.h"

#define LN2 0.693147180559945309

int64_t ls_sum_count(const struct ls_attention_shape *shape, int64_t rows)
{
    return shape->b * shape->h * rows * (shape->d + 1);
}

/* sum [1 + d] = l and acc, from their own maximum m to top. */
static void scale_row(float *sum, float m, float top, float l, const float *acc, int64_t d)
{
    if (m == -INFINITY) {
        memset(sum, 0, (size_t)(d + 1) * sizeof *sum);
        return;
    }
    const float weight = exp2f(m - top);
    sum[0] = weight * l;
    for (int64_t j = 0; j < d; j++) sum[1 + j] = weight * acc[j];
}

void ls_sums_scale(float *sums, const struct ls_row_states *states, const float *top,
                   const struct ls_attention_shape *shape, struct ls_row_range rows)
{
    const int64_t d = shape->d;

    for (int64_t head = 0; head < shape->b * shape->h; head++) {
        const int64_t first = head * rows.of + rows.first;

        for (int64_t i = first; i < first + rows.count; i++, sums += d + 1)
            scale_row(sums, states->m[i], top[i], states->l[i], states->acc + i * d, d);
    }
}

/* One more logit, in log2 units, without a value. Returns the new top. */
static float add_sink(float *sum, float top, float sink, int64_t d)
{
    if (sink == -INFINITY) return top;
    const float higher = sum[0] == 0.0f || sink > top ? sink : top;
    const float weight = sum[0] == 0.0f ? 0.0f : exp2f(top - higher);

    for (int64_t j = 0; j <= d; j++) sum[j] *= weight;
    sum[0] += exp2f(sink - higher);
    return higher;
}

/* sum [1 + d] is used up. Where anything was seen, l is above 1/2. */
static void finish_row(void *o, void *o_lo, ls_dtype type, float *lse, float *sum, float top,
                       float kept, int64_t d)
{
    float rounded[LS_MAX_HEAD_DIM];
    const float l = sum[0], inverse = l == 0.0f ? 0.0f : 1.0f / kept / l;

    for (int64_t j = 1; j <= d; j++) sum[j] *= inverse;
    *lse = l == 0.0f ? -INFINITY : (float)((double)top * LN2 + log((double)l));
    ls_dtype_convert(o, type, sum + 1, LS_F32, d);
    if (!o_lo) return;
    ls_dtype_convert(rounded, LS_F32, o, type, d);
    for (int64_t j = 0; j < d; j++) sum[1 + j] -= rounded[j];
    ls_dtype_convert(o_lo, type, sum + 1, LS_F32, d);
}

/* Row `row` of a head; NULL of a tensor that is not wanted. */
static void *row_at(const struct ls_tensor *t, int64_t batch, int64_t head, int64_t row)
{
    if (!t) return NULL;
    return (char *)t->data + (batch * t->stride[0] + row * t->stride[1] + head * t->stride[2]) *
                                 ls_dtype_size(t->type);
}

/* The rows of one head of one batch. */
static void finish_head(const struct ls_sum_results *out, float *sums, const float *top,
                        int64_t batch, int64_t head, int64_t row, int64_t rows)
{
    const int64_t d = out->o->dim[3];
    const struct ls_tensor *lse = out->lse;
    const struct ls_scores *scores = out->scores;
    const float sink = scores->sinks ? (float)(scores->sinks[head] / LN2) : -INFINITY;
    float *to_lse =
        (float *)lse->data + batch * lse->stride[0] + head * lse->stride[1] + row * lse->stride[2];

    for (int64_t i = 0; i < rows; i++) {
        float *sum = sums + i * (d + 1);

        finish_row(row_at(out->o, batch, head, row + i), row_at(out->o_lo, batch, head, row + i),
                   out->o->type, to_lse + i * lse->stride[2], sum, add_sink(sum, top[i], sink, d),
                   1.0f - scores->dropout, d);
    }
}

void ls_sums_finish(const struct ls_sum_results *out, int64_t row, float *sums, int p,
                    const float *top, const struct ls_attention_shape *shape,
                    struct ls_row_range rows)
{
    const int64_t n = ls_sum_count(shape, rows.count);

    for (int r = 1; r < p; r++)
        for (int64_t i = 0; i < n; i++) sums[i] += sums[r * n + i];
    for (int64_t i = 0; i < shape->b * shape->h; i++)
        finish_head(out, sums + i * rows.count * (shape->d + 1), top + i * rows.of + rows.first,
                    i / shape->h, i % shape->h, row, rows.count);
}
