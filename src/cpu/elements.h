/* Elements of f32 and bf16, one at a time or 16, for loops that compilers make vectors of: the type
 * is a constant where these are inlined, and the arithmetic the same on every instruction set. */
#ifndef LS_CPU_ELEMENTS_H
#define LS_CPU_ELEMENTS_H

#include <stdint.h>
#include <string.h>

#include "cpu/tanh.h"
#include "longspan/tensor.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

static ALWAYS_INLINE float load_element(const void *row, ls_dtype type, int64_t i)
{
    if (type == LS_F32) return ((const float *)row)[i];
    return float_of((uint32_t)((const uint16_t *)row)[i] << 16);
}

/* To nearest, ties to even: just under half of the last place that stays, plus its own last bit,
 * carries where rounding goes up. NaN stays one. */
static ALWAYS_INLINE void store_element(void *row, ls_dtype type, int64_t i, float x)
{
    const uint32_t bits = bits_of(x), quiet = 0x0040;

    if (type == LS_F32)
        ((float *)row)[i] = x;
    else
        ((uint16_t *)row)[i] = (uint16_t)choose(x != x, bits >> 16 | quiet,
                                                (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* ---- sums along a row, of a fixed number of partial ones */

#define LANES 16

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t lane_words __attribute__((vector_size(4 * LANES)));
typedef uint16_t lane_halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

/* Loops over a row do whole LANES at a time, and then what is left: n is a constant in the former.
 * *out = elements [i, i + n), and `rest` in the lanes behind. */
static ALWAYS_INLINE void load_lanes(lanes *out, const void *row, ls_dtype type, int64_t i, int n,
                                     float rest)
{
    if (n < LANES) {
        for (int j = 0; j < LANES; j++) (*out)[j] = j < n ? load_element(row, type, i + j) : rest;
    } else if (type == LS_F32) {
        *out = *(const lanes *)((const float *)row + i);
    } else {
        const lane_halves halves = *(const lane_halves *)((const uint16_t *)row + i);

        *out = (lanes)(__builtin_convertvector(halves, lane_words) << 16);
    }
}

/* Elements [i, i + n) = x. */
static ALWAYS_INLINE void store_lanes(float *row, const lanes *x, int64_t i, int n)
{
    if (n == LANES)
        *(lanes *)(row + i) = *x;
    else
        for (int j = 0; j < n; j++) row[i + j] = (*x)[j];
}

static ALWAYS_INLINE double sum_of_lanes(const lanes *x)
{
    double sum[LANES];

    for (int j = 0; j < LANES; j++) sum[j] = (double)(*x)[j];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) sum[j] += sum[j + half];
    return sum[0];
}

/* Where row `row` of a batch entry begins, of a tensor [b, s, e]. */
static inline void *row_of(const struct ls_tensor *t, int64_t batch, int64_t row)
{
    return (char *)t->data +
           (batch * t->stride[0] + row * t->stride[1]) * (int64_t)ls_dtype_size(t->type);
}

#endif
