/* Elements of f32 and bf16, one at a time (i8 as well, to be read) or 16, for loops that compilers
 * make vectors of: the type is a constant where these are inlined, and the arithmetic the same on
 * every instruction set.
 */
#ifndef LS_CPU_ELEMENTS_H
#define LS_CPU_ELEMENTS_H

#include <stdint.h>

#include "longspan/tensor.h"
#include "tensor/bf16.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

static ALWAYS_INLINE float load_element(const void *row, ls_dtype type, int64_t i)
{
    if (type == LS_F32) return ((const float *)row)[i];
    if (type == LS_I8) return (float)((const int8_t *)row)[i];
    return f32_of_bf16(((const uint16_t *)row)[i]);
}

/* Rounds once, to nearest. */
static ALWAYS_INLINE void store_element(void *row, ls_dtype type, int64_t i, float x)
{
    if (type == LS_F32)
        ((float *)row)[i] = x;
    else
        ((uint16_t *)row)[i] = bf16_of_f32(x);
}

/* ---- 16 at a time */

#define LANES 8
#define PAIR (2 * LANES)

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t lane_words __attribute__((vector_size(4 * LANES), aligned(2), may_alias));

/* PAIR elements of a row, in an order that is quick to come by: of bf16 those of even number, then
 * the odd ones, as a word has one of each; of f32 as they lie. */
struct pair {
    lanes x[2];
};

static ALWAYS_INLINE int half_of(ls_dtype type, int j)
{
    return type == LS_BF16 ? j % 2 : j / LANES;
}

static ALWAYS_INLINE int lane_of(ls_dtype type, int j)
{
    return type == LS_BF16 ? j / 2 : j % LANES;
}

/* Loops over a row do whole pairs, and then what is left: n is a constant in the former. Elements
 * [i, i + n), and `rest` in the lanes behind. */
static ALWAYS_INLINE struct pair load_pair(const void *row, ls_dtype type, int64_t i, int n,
                                           float rest)
{
    struct pair out;

    if (n < PAIR) {
        for (int j = 0; j < PAIR; j++)
            out.x[half_of(type, j)][lane_of(type, j)] =
                j < n ? load_element(row, type, i + j) : rest;
    } else if (type == LS_F32) {
        out.x[0] = *(const lanes *)((const float *)row + i);
        out.x[1] = *(const lanes *)((const float *)row + i + LANES);
    } else {
        const lane_words words = *(const lane_words *)((const uint16_t *)row + i);

        out.x[0] = (lanes)(words << 16);
        out.x[1] = (lanes)(words & 0xffff0000);
    }
    return out;
}

/* *out = x, rounded as bf16_of_f32 does, in the upper half of each word. */
static ALWAYS_INLINE void round_lanes(lane_words *out, const lanes *x)
{
    const lane_words bits = (lane_words)*x, nan = (lane_words)(*x != *x);

    *out = (nan & (bits | 0x00400000)) | (~nan & (bits + 0x7fff + ((bits >> 16) & 1)));
}

static ALWAYS_INLINE void store_pair(void *row, ls_dtype type, int64_t i, int n, struct pair x)
{
    if (n < PAIR) {
        for (int j = 0; j < n; j++)
            store_element(row, type, i + j, x.x[half_of(type, j)][lane_of(type, j)]);
    } else if (type == LS_F32) {
        *(lanes *)((float *)row + i) = x.x[0];
        *(lanes *)((float *)row + i + LANES) = x.x[1];
    } else {
        lane_words even, odd;

        round_lanes(&even, &x.x[0]);
        round_lanes(&odd, &x.x[1]);
        *(lane_words *)((uint16_t *)row + i) = even >> 16 | (odd & 0xffff0000);
    }
}

/* As f32, x being of elements of this type. */
static ALWAYS_INLINE void store_sums(float *out, ls_dtype type, int64_t i, int n, struct pair x)
{
    if (n == PAIR && type == LS_BF16)
        x = (struct pair){{__builtin_shufflevector(x.x[0], x.x[1], 0, 8, 1, 9, 2, 10, 3, 11),
                           __builtin_shufflevector(x.x[0], x.x[1], 4, 12, 5, 13, 6, 14, 7, 15)}};
    if (n == PAIR)
        store_pair(out, LS_F32, i, n, x);
    else
        for (int j = 0; j < n; j++) out[i + j] = x.x[half_of(type, j)][lane_of(type, j)];
}

static ALWAYS_INLINE double sum_of_pair(struct pair x)
{
    const lanes both = x.x[0] + x.x[1];

    return (((double)both[0] + (double)both[4]) + ((double)both[1] + (double)both[5])) +
           (((double)both[2] + (double)both[6]) + ((double)both[3] + (double)both[7]));
}

/* Where row `row` of a batch entry begins, of a tensor [b, s, e]. */
static inline void *row_of(const struct ls_tensor *t, int64_t batch, int64_t row)
{
    return (char *)t->data +
           (batch * t->stride[0] + row * t->stride[1]) * (int64_t)ls_dtype_size(t->type);
}

#endif
