/* Products in f32 by AVX-512, of operands in panels of 64 columns; the last panel of a row may have
 * 32. Six rows by four vectors stay in registers, 24 sums for ten loads: from the second-level
 * cache 203 to 213 GF/s, where thirteen rows by two vectors give 198 to 201 and eight by two 195 to
 * 200. */
#ifndef LS_CPU_ATTENTION_PANELS_F32_H
#define LS_CPU_ATTENTION_PANELS_F32_H

#include "cpu/transpose_avx512.h"

#define PANEL 64
#define HALF_PANEL 32 /* d is padded to a multiple of it */
#define WIDE 4        /* vectors of a panel */
#define ROWS 6        /* the most that are multiplied at once */
#define INLINE_AVX512 TARGET_AVX512 static inline __attribute__((always_inline))

/* [columns / 64][rows][64] from [rows][columns]; returns the end. */
TARGET_AVX512 static inline float *pack_panels(float *to, const float *from, int rows, int columns)
{
    for (int column = 0; column < columns; column += PANEL) {
        const int width = columns - column < PANEL ? HALF_PANEL : PANEL;

        for (int row = 0; row < rows; row++)
            for (int i = column; i < column + width; i += 16, to += 16)
                _mm512_storeu_ps(to, _mm512_loadu_ps(from + row * columns + i));
    }
    return to;
}

/* [rows / 64][columns][64] from [rows][columns]; returns the end. */
TARGET_AVX512 static inline float *pack_transposed(float *to, const float *from, int rows,
                                                   int columns)
{
    for (int row = 0; row < rows; row += 16, from += 16 * columns) {
        float *first = to + row / PANEL * PANEL * columns + row % PANEL;

        for (int column = 0; column < columns; column += 16) {
            __m512i x[16];

#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) x[i] = _mm512_loadu_si512(from + i * columns + column);
            transpose_16x16(x);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(first + (column + i) * PANEL, x[i]);
        }
    }
    return to + rows * columns;
}

/* Of what follows, `rows` and `wide`, in vectors, are constants where it is inlined, so that the
 * sums stay in registers. */

INLINE_AVX512 void clear_sums(__m512 sum[ROWS][WIDE], int rows, int wide)
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < wide; i++) sum[r][i] = _mm512_setzero_ps();
}

/* sum += left x panel [depth][16 wide]; element (r, i) of left is at r row + i step. */
INLINE_AVX512 void multiply_panel(__m512 sum[ROWS][WIDE], int rows, int wide, const float *left,
                                  int row, int step, const float *panel, int depth)
{
#pragma GCC unroll 2
    for (int i = 0; i < depth; i++, left += step, panel += 16 * wide) {
        __m512 b[WIDE];

#pragma GCC unroll 4
        for (int j = 0; j < wide; j++) b[j] = _mm512_loadu_ps(panel + 16 * j);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            const __m512 a = _mm512_set1_ps(left[r * row]);

#pragma GCC unroll 4
            for (int j = 0; j < wide; j++) sum[r][j] = _mm512_fmadd_ps(a, b[j], sum[r][j]);
        }
    }
}

/* sum = from + sum; rows `stride` apart. */
INLINE_AVX512 void add_to_sums(__m512 sum[ROWS][WIDE], int rows, int wide, const float *from,
                               int stride)
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < wide; j++)
            sum[r][j] = _mm512_add_ps(_mm512_loadu_ps(from + r * stride + 16 * j), sum[r][j]);
}

INLINE_AVX512 void store_sums(float *to, int stride, __m512 sum[ROWS][WIDE], int rows, int wide)
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < wide; j++) _mm512_storeu_ps(to + r * stride + 16 * j, sum[r][j]);
}

#endif
