#include "cpu/quantize/quantize.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/exact_sum.h"
#include "base/float_bits.h"
#include "cpu/attention/leaf.h"
#include "cpu/device.h"
#include "tensor/dtype.h"

/* One head of one batch, whose rows are read as f32. */
struct rows {
    const struct ls_tensor *x;
    int64_t batch, head;
    const float *mean; /* [d]; NULL: 0 */
};

static struct rows rows_of_pair(const struct ls_tensor *x, int64_t pair, const float *mean)
{
    const int64_t h = x->dim[2];

    return (struct rows){
        .x = x, .batch = pair / h, .head = pair % h, .mean = mean ? mean + pair * x->dim[3] : NULL};
}

LS_CLONED static void subtract(float *row, const float *mean, int64_t d)
{
    for (int64_t e = 0; e < d; e++) row[e] -= mean[e];
}

LS_CLONED static float largest_of(const float *row, int64_t d)
{
    float most = 0;

    for (int64_t e = 0; e < d; e++) {
        const float size = fabsf(row[e]);
        most = size > most ? size : most;
    }
    return most;
}

/* out [d] = a row less the mean; whether it is finite, and then its largest magnitude. */
static bool read_row(float *out, float *largest, const struct rows *rows, int64_t i)
{
    const struct ls_tensor *x = rows->x;
    const int64_t d = x->dim[3];

    ls_dtype_convert(out, LS_F32, element(x, rows->batch, i, rows->head), x->type, d);
    if (ls_dtype_find_nonfinite(out, LS_F32, d) >= 0) return false;
    if (rows->mean) subtract(out, rows->mean, d);
    *largest = largest_of(out, d);
    return true;
}

LS_CLONED static void add_row(double *sum, const float *row, int64_t d)
{
    for (int64_t e = 0; e < d; e++) sum[e] += (double)row[e];
}

/* Rows [first, end). */
static int64_t add_rows(int64_t *limb, const struct rows *rows, int64_t first, int64_t end)
{
    const int64_t d = rows->x->dim[3];
    double sum[LS_MAX_HEAD_DIM] = {0};
    float row[LS_MAX_HEAD_DIM], largest;
    int64_t added = 0;

    for (int64_t i = first; i < end; i++) {
        if (!read_row(row, &largest, rows, i)) continue;
        add_row(sum, row, d);
        added++;
    }
    for (int64_t e = 0; e < d; e++) ls_exact_add(limb + e * LS_EXACT_LIMBS, sum[e]);
    return added;
}

static void sum(void *self, int64_t *limb, int64_t *rows, const struct ls_tensor *x)
{
    const int64_t pairs = x->dim[0] * x->dim[2], s = x->dim[1];
    const int64_t leaves = (s + LS_LEAF - 1) / LS_LEAF;

#pragma omp parallel for num_threads(((const struct cpu *)self)->threads)
    for (int64_t i = 0; i < pairs * leaves; i++) {
        const int64_t pair = i / leaves, first = i % leaves * LS_LEAF;
        const struct rows of = rows_of_pair(x, pair, NULL);
        const int64_t end = s - first < LS_LEAF ? s : first + LS_LEAF;
        const int64_t added = add_rows(limb + pair * x->dim[3] * LS_EXACT_LIMBS, &of, first, end);

        __atomic_fetch_add(&rows[pair], added, __ATOMIC_RELAXED);
    }
}

static void largest(void *self, float *out, const struct ls_tensor *x, const float *mean)
{
    const int64_t pairs = x->dim[0] * x->dim[2];

#pragma omp parallel for num_threads(((const struct cpu *)self)->threads)
    for (int64_t pair = 0; pair < pairs; pair++) {
        const struct rows rows = rows_of_pair(x, pair, mean);
        float row[LS_MAX_HEAD_DIM], of_row;

        out[pair] = 0;
        for (int64_t i = 0; i < x->dim[1]; i++)
            if (read_row(row, &of_row, &rows, i) && of_row > out[pair]) out[pair] = of_row;
    }
}

/* Not less than x > 0, with so many bits behind the leading one. */
static float round_up(float x, int bits)
{
    const uint32_t unit = UINT32_C(1) << (23 - bits);

    return f32_of_bits((bits_of_f32(x) + unit - 1) / unit * unit);
}

/* Positive, also for rows of zeros and where the quotient vanishes; and of few bits, so that bf16
 * can hold the numbers times it: 1 or 3 times a power of two for i8, 8 to 15 times for e4m3, whose
 * numbers have 4 bits. */
static float scale_for(float largest, ls_dtype type)
{
    const float scale = largest / (type == LS_I8 ? 127.0F : 448.0F);

    if (scale < 0x1p-60F) return largest > 0 ? 0x1p-60F : 1;
    return scale < 0x1p127F ? round_up(scale, type == LS_I8 ? 1 : 3) : scale;
}

LS_CLONED static void divide(float *row, float scale, int64_t d)
{
    for (int64_t e = 0; e < d; e++) row[e] /= scale;
}

/* Three times a whole number above 85 has more than the 8 bits of bf16 unless that is even. Adding
 * and subtracting a number whose last place is 2 rounds to even ones. */
LS_CLONED static void make_large_even(float *row, int64_t d)
{
    for (int64_t e = 0; e < d; e++) {
        const float size = fabsf(row[e]), even = (size + 0x1.8p24F) - 0x1.8p24F;
        const float most = even < 126 ? even : 126;

        row[e] = size > 85.5F ? copysignf(most, row[e]) : row[e];
    }
}

static bool is_power_of_two(float x)
{
    int exponent;

    return frexpf(x, &exponent) == 0.5F;
}

static void round_row(char *out, ls_dtype type, const struct rows *rows, int64_t i,
                      const float *largest)
{
    const int64_t d = rows->x->dim[3];
    float row[LS_MAX_HEAD_DIM], scale = NAN, of_row;

    if (read_row(row, &of_row, rows, i)) {
        scale = scale_for(largest ? *largest : of_row, type);
        divide(row, scale, d);
        if (type == LS_I8 && !is_power_of_two(scale)) make_large_even(row, d);
        ls_dtype_convert(out, type, row, LS_F32, d);
    } else {
        memset(out, 0, (size_t)d);
    }
    memcpy(out + d, &scale, sizeof scale);
}

static void round_rows(void *self, struct ls_tensor *out, const struct ls_tensor *x,
                       const float *mean, const float *largest)
{
    const int64_t pairs = x->dim[0] * x->dim[2], s = x->dim[1];

#pragma omp parallel for num_threads(((const struct cpu *)self)->threads)
    for (int64_t n = 0; n < pairs * s; n++) {
        const int64_t pair = n / s, i = n % s;
        const struct rows rows = rows_of_pair(x, pair, mean);

        round_row(element(out, rows.batch, i, rows.head), out->type, &rows, i,
                  largest ? &largest[pair] : NULL);
    }
}

const struct ls_quantize_ops cpu_quantize_ops = {
    .sum = sum, .largest = largest, .round = round_rows};
