/* What stands before and behind the gradient kernel: delta, and sums of partial gradients. */
#include <fenv.h>
#include <string.h>

#include "cpu/gradient_kernel.h"
#include "cpu/leaf.h"
#include "tensor/dtype.h"

#define BLOCK 4096 /* floats */

/* sum_e d_o (o + o_lo) of one row */
static double row_delta(const struct ls_tensor *d_o, const struct ls_tensor *o,
                        const struct ls_tensor *o_lo, int64_t batch, int64_t row, int64_t head)
{
    const int64_t d = o->dim[3];
    float a[LS_MAX_HEAD_DIM], b[LS_MAX_HEAD_DIM], rest[LS_MAX_HEAD_DIM] = {0};
    double sum = 0;

    ls_dtype_convert(a, LS_F32, element(d_o, batch, row, head), d_o->type, d);
    ls_dtype_convert(b, LS_F32, element(o, batch, row, head), o->type, d);
    if (o_lo) ls_dtype_convert(rest, LS_F32, element(o_lo, batch, row, head), o_lo->type, d);
    for (int64_t e = 0; e < d; e++) sum += (double)a[e] * ((double)b[e] + (double)rest[e]);
    return sum;
}

void cpu_delta(float *delta, const struct ls_tensor *d_o, const struct ls_tensor *o,
               const struct ls_tensor *o_lo, const struct ls_tensor *dlse, int threads)
{
    const int64_t b = o->dim[0], s = o->dim[1], h = o->dim[2];

#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < b * h * s; i++) {
        const int64_t batch = i / (h * s), head = i / s % h, row = i % s;
        double sum = row_delta(d_o, o, o_lo, batch, row, head);

        if (dlse)
            sum -= ((const float *)dlse->data)[batch * dlse->stride[0] + head * dlse->stride[1] +
                                               row * dlse->stride[2]];
        delta[i] = (float)sum;
    }
}

void cpu_add(float *into, const float *from, int64_t n, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t end = first + BLOCK < n ? first + BLOCK : n;
        fenv_t callers;

        fegetenv(&callers);
        fesetenv(FE_DFL_ENV);
        for (int64_t i = first; i < end; i++) into[i] += from[i];
        fesetenv(&callers);
    }
}

/* out [d] = `count` rows, a head apart, added by the tree. */
static void add_heads(float *out, const float *sums, int64_t apart, int64_t count, int64_t d)
{
    float right[LS_MAX_HEAD_DIM];
    int64_t half = 1;

    if (count == 1) {
        memcpy(out, sums, (size_t)d * sizeof *out);
        return;
    }
    while (2 * half < count) half *= 2;
    add_heads(out, sums, apart, half, d);
    add_heads(right, sums + half * apart, apart, count - half, d);
    for (int64_t e = 0; e < d; e++) out[e] += right[e];
}

void cpu_round_sums(struct ls_tensor *out, const float *sums, int64_t group, int threads)
{
    const int64_t b = out->dim[0], s = out->dim[1], heads = out->dim[2], d = out->dim[3];

#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < b * heads * s; i++) {
        const int64_t pair = i / s, row = i % s;
        float sum[LS_MAX_HEAD_DIM];
        fenv_t callers;

        fegetenv(&callers);
        fesetenv(FE_DFL_ENV);
        add_heads(sum, sums + (pair * group * s + row) * d, s * d, group, d);
        for (int64_t e = 0; e < d; e++) sum[e] += 0.0f; /* -0 becomes +0 */
        ls_dtype_convert(element(out, pair / heads, row, pair % heads), out->type, sum, LS_F32, d);
        fesetenv(&callers);
    }
}
