/* From a tile's partial result to what the caller gets. */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "cpu/attention/kernel.h"
#include "cpu/prefetch.h"
#include "tensor/dtype.h"

#define LN2 0.693147180559945309

/* Natural logarithm of a normal x > 0, the same on every machine: x = 2^e f with f near 1, and the
 * series of log f in z = (f - 1) / (f + 1), |z| < 0.172. Infinity and NaN give NaN. */
static inline double logarithm(double x)
{
    const double half_root = 0.70710678118654752;
    uint64_t bits, mantissa;
    double f;

    memcpy(&bits, &x, sizeof bits);
    mantissa = (bits & 0xfffffffffffffull) | 0x3fe0000000000000ull; /* f in [0.5, 1) */
    memcpy(&f, &mantissa, sizeof f);
    const double exponent = (double)((int)(bits >> 52) - 1022) - (f < half_root);
    f = f < half_root ? 2 * f : f;

    const double z = (f - 1) / (f + 1), z2 = z * z, z4 = z2 * z2;
    const double even = ((1.0 / 17 * z4 + 1.0 / 13) * z4 + 1.0 / 9) * z4 + 1.0 / 5;
    const double odd = ((1.0 / 15 * z4 + 1.0 / 11) * z4 + 1.0 / 7) * z4 + 1.0 / 3;
    return exponent * LN2 + 2 * z * (1 + z2 * (odd + z2 * even)) + (x - x);
}

LS_CLONED static void lse_of(float *lse, const float *m, const float *l, int rows)
{
#pragma omp simd
    for (int r = 0; r < rows; r++)
        lse[r] = m[r] == -INFINITY ? m[r] : (float)((double)m[r] * LN2 + logarithm(l[r]));
}

static size_t state_index(const struct ls_attention_kernel *kernel,
                          const struct ls_kernel_call *call, const struct tile_row *at)
{
    return (size_t)((at->batch * kernel->shape.global.h + at->head) * call->q->dim[1] + at->row);
}

static void copy_state(struct ls_row_states to, size_t i, size_t to_stride,
                       const struct ls_row_states *from, size_t j, size_t from_stride, size_t d)
{
    to.m[i] = from->m[j];
    to.l[i] = 0.0f;
    if (from->m[j] == -INFINITY) return;
    to.l[i] = from->l[j];
    memcpy(to.acc + i * to_stride, from->acc + j * from_stride, d * sizeof *to.acc);
}

LS_CLONED static void take_off(float *from, const float *what, int64_t d)
{
    for (int64_t j = 0; j < d; j++) from[j] -= what[j];
}

/* What rounding takes from a row of o; acc [d] is used up. */
static void write_residual(struct ls_tensor *o_lo, char *to, const char *o, float *acc)
{
    const int64_t d = o_lo->dim[3];
    float rounded[LS_MAX_HEAD_DIM];

    prefetch_row_to_write(o_lo, to);
    ls_dtype_convert(rounded, LS_F32, o, o_lo->type, d);
    take_off(acc, rounded, d);
    ls_dtype_convert(to, o_lo->type, acc, LS_F32, d);
}

static void finish_row(const struct ls_attention_kernel *kernel, const struct ls_kernel_call *call,
                       struct ls_row_states state, size_t r, size_t stride,
                       const struct tile_row *at)
{
    struct ls_tensor *const o = call->o, *const o_lo = call->o_lo;
    const int64_t d = o->dim[3];
    float *acc = state.acc + r * stride;

    if (state.m[r] == -INFINITY) {
        memset(acc, 0, (size_t)d * sizeof *acc);
    } else {
        const float kept = 1.0f - kernel->shape.scores.dropout;
        kernel->simd->scale(acc, 1.0f / kept / state.l[r], (int)d);
    }
    char *out = element(o, at->batch, at->row, at->head);
    prefetch_row_to_write(o, out);
    ls_dtype_convert(out, o->type, acc, LS_F32, d);
    if (o_lo) write_residual(o_lo, element(o_lo, at->batch, at->row, at->head), out, acc);
}

/* Room for a second state of each row. */
static struct ls_row_states beside(const struct worker *w, struct ls_row_states result)
{
    return result.acc == w->spare.acc ? w->forest.node[0] : w->spare;
}

/* The tile's rows of what was found, and the result so far, in one of the two. */
static struct ls_row_states merge_found(const struct ls_attention_kernel *kernel, struct worker *w,
                                        const struct ls_kernel_call *call, const struct tile *tile,
                                        struct ls_row_states result, const struct ls_found *found)
{
    const size_t d = (size_t)ls_value_dim(&kernel->shape.global);
    const size_t d_pad = (size_t)kernel->pad.d_v;
    const struct ls_row_states other = beside(w, result);

    for (int r = 0; r < tile->rows; r++) {
        const struct tile_row at = tile_row(kernel, tile, r);
        copy_state(other, (size_t)r, d_pad, found->states, state_index(kernel, call, &at), d, d);
    }
    const struct ls_row_states left = found->after ? result : other;
    kernel->simd->merge(left, found->after ? other : result, tile->rows, kernel->pad.d_v);
    return left;
}

/* One more logit of each row's head, without a value; none of a row behind the last query. */
static void merge_sinks(const struct ls_attention_kernel *kernel, struct worker *w,
                        const struct tile *tile, struct ls_row_states result)
{
    const struct ls_scores *scores = &kernel->shape.scores;
    const struct ls_row_states sink = beside(w, result);

    for (int r = 0; r < tile->rows; r++) {
        const struct tile_row at = tile_row(kernel, tile, r);
        const bool present = ls_mask_has(mask_of(kernel, tile), at.position);

        sink.m[r] =
            present ? (float)(scores->sinks[scores->first_head + at.head] / LN2) : -INFINITY;
        sink.l[r] = present;
    }
    memset(sink.acc, 0, (size_t)tile->rows * (size_t)kernel->pad.d_v * sizeof *sink.acc);
    kernel->simd->merge(result, sink, tile->rows, kernel->pad.d_v);
}

static void finish_rows(const struct ls_attention_kernel *kernel, struct worker *w,
                        const struct ls_kernel_call *call, const struct tile *tile,
                        struct ls_row_states result)
{
    const struct ls_tensor *lse = call->lse;
    float of_row[TILE_ROWS];

    if (kernel->shape.scores.sinks) merge_sinks(kernel, w, tile, result);
    lse_of(of_row, result.m, result.l, tile->rows);
    for (int r = 0; r < tile->rows; r++) {
        const struct tile_row at = tile_row(kernel, tile, r);

        ((float *)lse->data)[at.batch * lse->stride[0] + at.head * lse->stride[1] +
                             at.row * lse->stride[2]] = of_row[r];
        finish_row(kernel, call, result, (size_t)r, (size_t)kernel->pad.d_v, &at);
    }
}

void cpu_finish_tile(const struct ls_attention_kernel *kernel, struct worker *w,
                     const struct ls_kernel_call *call, const struct tile *tile,
                     struct ls_row_states result)
{
    const size_t d = (size_t)ls_value_dim(&kernel->shape.global);
    const size_t d_pad = (size_t)kernel->pad.d_v;

    for (int i = 0; i < call->found_count; i++)
        result = merge_found(kernel, w, call, tile, result, &call->found[i]);
    if (call->o) {
        finish_rows(kernel, w, call, tile, result);
        return;
    }
    for (int r = 0; r < tile->rows; r++) {
        const struct tile_row at = tile_row(kernel, tile, r);
        const size_t i = state_index(kernel, call, &at);

        copy_state(*call->states, i, d, &result, (size_t)r, d_pad, d);
    }
}
