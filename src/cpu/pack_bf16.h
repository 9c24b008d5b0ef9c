/* Packing of bf16 operands into blocks of 1 KiB, 16 lines of 16 pairs, the shape of an AMX tile. A
 * left operand has a row of 32 elements in each line; a right one, whose columns are 16, in each
 * line its rows 2i and 2i + 1, element by element. `stride` is that of the source, in elements. */
#ifndef LS_CPU_PACK_BF16_H
#define LS_CPU_PACK_BF16_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/transpose_avx512.h"

#define PACKED_BYTES 1024
#define PACKED_SIDE 32 /* rows or columns of two of them, and what a left row holds */
#define PACKED_STEP_BYTES (2 * PACKED_BYTES) /* 32 rows or columns, 32 deep */

TARGET_AVX512 static inline void load_rows(__m512i x[16], const uint16_t *from, ptrdiff_t stride)
{
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) x[i] = _mm512_loadu_si512(from + i * stride);
}

/* Rows 2i and 2i + 1 of 16 columns, element by element. */
TARGET_AVX512 static inline void load_pairs(__m512i x[16], const uint16_t *from, ptrdiff_t stride)
{
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++, from += 2 * stride) {
        const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)from));
        const __m512i odd =
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(from + stride)));

        x[i] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
    }
}

TARGET_AVX512 static inline char *store_packed(char *to, const __m512i x[16])
{
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + 64 * i, x[i]);
    return to + PACKED_BYTES;
}

/* Each packs what it is called from the rows at `from` and returns what comes after it. */
TARGET_AVX512 static inline char *pack_left(char *to, const uint16_t *from, ptrdiff_t stride)
{
    __m512i x[16];

    load_rows(x, from, stride);
    return store_packed(to, x);
}

TARGET_AVX512 static inline char *pack_left_transposed(char *to, const uint16_t *from,
                                                       ptrdiff_t stride)
{
    __m512i x[16];

    load_pairs(x, from, stride);
    transpose_16x16(x);
    return store_packed(to, x);
}

TARGET_AVX512 static inline char *pack_right(char *to, const uint16_t *from, ptrdiff_t stride)
{
    __m512i x[16];

    load_pairs(x, from, stride);
    return store_packed(to, x);
}

TARGET_AVX512 static inline char *pack_right_transposed(char *to, const uint16_t *from,
                                                        ptrdiff_t stride)
{
    __m512i x[16];

    load_rows(x, from, stride);
    transpose_16x16(x);
    return store_packed(to, x);
}

/* out [32][32] = left x right, `steps` times 32 deep (0 or more), rows of out `stride` floats
 * apart. A step of an operand is two packs. */
typedef void multiply_block(float *out, ptrdiff_t stride, const char *left, const char *right,
                            int steps);

typedef char *pack_function(char *to, const uint16_t *from, ptrdiff_t stride);

/* For each 32 of the 256 rows, for each 32 columns: two packs of 16 rows. */
static inline char *pack_by_rows(char *to, const uint16_t *from, int d_pad, pack_function *pack)
{
    for (int row = 0; row < LS_LEAF; row += PACKED_SIDE)
        for (int column = 0; column < d_pad; column += PACKED_SIDE)
            for (int half = 0; half < PACKED_SIDE; half += 16)
                to = pack(to, from + (row + half) * d_pad + column, d_pad);
    return to;
}

/* For each 32 columns, for each 32 of the 256 rows: two packs of 16 columns. */
static inline char *pack_by_columns(char *to, const uint16_t *from, int d_pad, pack_function *pack)
{
    for (int column = 0; column < d_pad; column += PACKED_SIDE)
        for (int row = 0; row < LS_LEAF; row += PACKED_SIDE)
            for (int half = 0; half < PACKED_SIDE; half += 16)
                to = pack(to, from + row * d_pad + column + half, d_pad);
    return to;
}

#endif
