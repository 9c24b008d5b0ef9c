/* Keys and values of 8 bits, each row of a head with its scale behind it. */
#ifndef TESTS_TENSOR_QUANTIZED_H
#define TESTS_TENSOR_QUANTIZED_H

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "longspan/attention.h"
#include "tensor/dtype.h"

static inline bool is_quantized(const struct ls_tensor *t)
{
    return t->type == LS_I8 || t->type == LS_E4M3;
}

/* Numbers of a row of keys or values, without the scale. */
static inline int64_t quantized_dim(const struct ls_tensor *t)
{
    return t->dim[3] - (is_quantized(t) ? LS_SCALE_BYTES : 0);
}

/* Numbers near N(0,1), whose scales differ by a factor of up to 4, and of every other leaf have few
 * digits; rows as they lie in memory. */
static inline void draw_quantized(struct ls_tensor *t, uint64_t seed, uint32_t stream)
{
    const int64_t rows = t->dim[0] * t->dim[1] * t->dim[2], d = quantized_dim(t);
    float *value = malloc((size_t)d * sizeof *value);

    for (int64_t r = 0; r < rows; r++) {
        char *row = (char *)t->data + r * t->dim[3];
        const bool few = r / t->dim[2] % t->dim[1] / LS_LEAF % 2;
        const int64_t drawn = ls_random_below(seed, stream, (uint64_t)r, 300);
        const float scale =
            few ? 0.015625F * (float)(2 + drawn % 2) : 0.0125F * (1 + (float)drawn / 100);

        ls_random_normal(value, seed, stream, r * d, d);
        for (int64_t e = 0; e < d; e++) value[e] /= 0.025F;
        ls_dtype_convert(row, t->type, value, LS_F32, d);
        memcpy(row + d, &scale, sizeof scale);
    }
    free(value);
}

/* out [d] = the numbers that a row stands for; mean [d] was taken out of them, or NULL. */
static inline void widen_row(double *out, const struct ls_tensor *t, const void *row,
                             const float *mean)
{
    const int64_t d = quantized_dim(t);
    float scale = 1;

    ls_dtype_convert(out, LS_F64, row, t->type, d);
    if (is_quantized(t)) memcpy(&scale, (const char *)row + d, sizeof scale);
    for (int64_t e = 0; e < d; e++) out[e] = out[e] * scale + (mean ? mean[e] : 0);
}

/* [n] what may have been taken out of keys: the tenth number is large, as in real keys. */
static inline void draw_mean(float *mean, int64_t n)
{
    for (int64_t i = 0; i < n; i++) mean[i] = i % 16 == 9 ? 10 : 0.25F * (float)(i % 7 - 3);
}

#endif
