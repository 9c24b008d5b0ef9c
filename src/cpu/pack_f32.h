/* Rows of f32 as operands of products in AVX-512. */
#ifndef LS_CPU_PACK_F32_H
#define LS_CPU_PACK_F32_H

#include <string.h>

#include "cpu/softmax_avx512.h"

#define PANEL 32 /* columns of a product: two vectors */

/* [d_pad / 32][rows][32] from [rows][d_pad]; returns the end. */
static inline float *pack_panels(float *to, const float *from, int rows, int d_pad)
{
    for (int column = 0; column < d_pad; column += PANEL)
        for (int row = 0; row < rows; row++, to += PANEL)
            memcpy(to, from + row * d_pad + column, PANEL * sizeof *to);
    return to;
}

/* [rows / 32][d_pad][32] from [rows][d_pad]; returns the end. */
TARGET_AVX512 static inline float *pack_transposed(float *to, const float *from, int rows,
                                                   int d_pad)
{
    const __m512i row =
        _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                           _mm512_set1_epi32(d_pad));

    for (int first = 0; first < rows; first += PANEL, from += PANEL * d_pad) {
        for (int e = 0; e < d_pad; e++, to += PANEL) {
            _mm512_storeu_ps(to, _mm512_i32gather_ps(row, from + e, 4));
            _mm512_storeu_ps(to + 16, _mm512_i32gather_ps(row, from + 16 * d_pad + e, 4));
        }
    }
    return to;
}

#endif
