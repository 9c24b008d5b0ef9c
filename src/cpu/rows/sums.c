/* What stands before and behind the gradient kernel: delta, and sums of partial gradients. The
 * family of operations on rows (device/rows.h). */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "cpu/attention/leaf.h"
#include "cpu/device.h"
#include "cpu/float_mode.h"
#include "cpu/gradient/sum_forest.h"
#include "cpu/prefetch.h"
#include "cpu/rows/rows.h"
#include "tensor/dtype.h"

#define BLOCK 4096 /* floats */
#define LANES 8    /* sums of a row, so that its bits are the same on every instruction set */

LS_CLONED static double dot_product(const float *a, const float *b, const float *b_rest, int64_t d)
{
    double lane[LANES] = {0};

    for (int64_t e = 0; e < d; e += LANES)
#pragma omp simd
        for (int i = 0; i < LANES; i++)
            lane[i] += (double)a[e + i] * ((double)b[e + i] + (double)b_rest[e + i]);
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) +
           ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

/* In f32, zero up to the next multiple of LANES. */
static void load_row(float *out, const struct ls_tensor *t, int64_t batch, int64_t row,
                     int64_t head)
{
    const int64_t d = t->dim[3];
    const char *from = element(t, batch, row, head);

    prefetch_row_to_read(t, from);
    ls_dtype_convert(out, LS_F32, from, t->type, d);
    memset(out + d, 0, (size_t)(-d & (LANES - 1)) * sizeof *out);
}

/* sum_e d_o (o + o_lo) of one row */
static double row_delta(const struct ls_tensor *d_o, const struct ls_tensor *o,
                        const struct ls_tensor *o_lo, int64_t batch, int64_t row, int64_t head)
{
    static const float nothing[LS_MAX_HEAD_DIM];
    float a[LS_MAX_HEAD_DIM], b[LS_MAX_HEAD_DIM], rest[LS_MAX_HEAD_DIM];

    load_row(a, d_o, batch, row, head);
    load_row(b, o, batch, row, head);
    if (o_lo) load_row(rest, o_lo, batch, row, head);
    return dot_product(a, b, o_lo ? rest : nothing, o->dim[3]);
}

static void find_delta(void *self, float *delta, const struct ls_tensor *d_o,
                       const struct ls_tensor *o, const struct ls_tensor *o_lo,
                       const struct ls_tensor *dlse)
{
    const int threads = ((const struct cpu *)self)->threads;
    const int64_t b = o->dim[0], s = o->dim[1], h = o->dim[2];

#pragma omp parallel num_threads(threads)
    {
        const fenv_t callers = cpu_float_mode_enter();

#pragma omp for
        for (int64_t i = 0; i < b * h * s; i++) {
            const int64_t batch = i / (h * s), row = i / h % s, head = i % h;
            double sum = row_delta(d_o, o, o_lo, batch, row, head);

            if (dlse)
                sum -= ((const float *)dlse->data)[batch * dlse->stride[0] +
                                                   head * dlse->stride[1] + row * dlse->stride[2]];
            delta[(batch * h + head) * s + row] = (float)sum;
        }
        fesetenv(&callers);
    }
}

static void add(void *self, float *into, const float *from, int64_t n)
{
    const int threads = ((const struct cpu *)self)->threads;

#pragma omp parallel num_threads(threads)
    {
        const fenv_t callers = cpu_float_mode_enter();

#pragma omp for
        for (int64_t first = 0; first < n; first += BLOCK)
            cpu_add_floats(into + first, into + first, from + first,
                           first + BLOCK < n ? BLOCK : n - first);
        fesetenv(&callers);
    }
}

/* out = a + b; b may be NULL; -0 becomes +0. */
LS_CLONED static void add_terms(float *out, const float *a, const float *b, int64_t d)
{
    if (b) {
#pragma omp simd
        for (int64_t e = 0; e < d; e++) out[e] = (a[e] + b[e]) + 0.0F;
    } else {
#pragma omp simd
        for (int64_t e = 0; e < d; e++) out[e] = a[e] + 0.0F;
    }
}

/* out [d] = `count` rows of a + b, a head apart, added by the tree. */
static void add_heads(float *out, const float *a, const float *b, int64_t apart, int64_t count,
                      int64_t d)
{
    float right[LS_MAX_HEAD_DIM];
    int64_t half = 1;

    if (count == 1) {
        prefetch_to_read((const char *)(a + PREFETCH_ROWS * d), (size_t)d * sizeof *a);
        add_terms(out, a, b, d);
        return;
    }
    while (2 * half < count) half *= 2;
    add_heads(out, a, b, apart, half, d);
    add_heads(right, a + half * apart, b ? b + half * apart : NULL, apart, count - half, d);
    cpu_add_floats(out, out, right, d);
}

/* A row of a tensor = the sum of `count` rows of a + b, rounded. */
static void round_row(struct ls_tensor *out, int64_t batch, int64_t row, int64_t head,
                      const float *a, const float *b, int64_t apart, int64_t count)
{
    const int64_t d = out->dim[3];
    char *to = element(out, batch, row, head);
    float sum[LS_MAX_HEAD_DIM];

    prefetch_row_to_write(out, to);
    add_heads(sum, a, b, apart, count, d);
    ls_dtype_convert(to, out->type, sum, LS_F32, d);
}

void cpu_round_rows(struct ls_tensor *out, int64_t batch, int64_t row, int64_t head,
                    struct sums sums, int rows)
{
    for (int r = 0; r < rows; r++)
        round_row(out, batch, row + r, head, sums.at + r * sums.stride, NULL, 0, 1);
}

static void round_sums(void *self, struct ls_tensor *out, const float *a, const float *b,
                       int64_t group)
{
    const int threads = ((const struct cpu *)self)->threads;
    const int64_t batches = out->dim[0], s = out->dim[1], heads = out->dim[2], d = out->dim[3];

#pragma omp parallel num_threads(threads)
    {
        const fenv_t callers = cpu_float_mode_enter();

#pragma omp for
        for (int64_t i = 0; i < batches * heads * s; i++) {
            const int64_t pair = i / s, row = i % s, at = (pair * group * s + row) * d;

            round_row(out, pair / heads, row, pair % heads, a + at, b ? b + at : NULL, s * d,
                      group);
        }
        fesetenv(&callers);
    }
}

/* A row whose sink is -inf as well may see nothing at all. */
static double sink_term(double sink, double lse, double delta)
{
    return lse == -INFINITY ? 0 : -exp(sink - lse) * delta;
}

static void add_sinks(void *self, double *out, const float *sinks, const struct ls_sink_rows *rows)
{
    const int threads = ((const struct cpu *)self)->threads;

#pragma omp parallel num_threads(threads)
    {
        const fenv_t callers = cpu_float_mode_enter();

#pragma omp for
        for (int64_t i = 0; i < rows->h * rows->leaves; i++) {
            const int64_t head = i / rows->leaves, leaf = i % rows->leaves;
            double sum = 0;

            for (int64_t b = 0; b < rows->b; b++) {
                const int64_t first = (b * rows->h + head) * rows->s + rows->first[leaf];

                for (int64_t j = first; j < first + rows->rows[leaf]; j++)
                    sum += sink_term((double)sinks[head], (double)rows->lse[j],
                                     (double)rows->delta[j]);
            }
            out[i] = sum;
        }
        fesetenv(&callers);
    }
}

const struct ls_row_ops cpu_row_ops = {
    .copy = cpu_copy,
    .zero = cpu_zero,
    .add = add,
    .round_sums = round_sums,
    .delta = find_delta,
    .sinks = add_sinks,
    .sum_bytes = cpu_sum_rows_bytes,
    .sum = cpu_sum_rows,
};
