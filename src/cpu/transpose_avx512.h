/* Rows and columns of a square of vectors change places. */
#ifndef LS_CPU_TRANSPOSE_AVX512_H
#define LS_CPU_TRANSPOSE_AVX512_H

#include "cpu/softmax_avx512.h"

/* Rows of 16 dwords become columns. */
TARGET_AVX512 static inline void transpose_16x16(__m512i x[16])
{
    __m512i y[16];

#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    /* now x[4 g + c] has columns c, c + 4, c + 8, c + 12 of rows 4 g to 4 g + 3 */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        y[c] = _mm512_shuffle_i32x4(x[c], x[c + 4], 0x88);
        y[c + 4] = _mm512_shuffle_i32x4(x[c], x[c + 4], 0xdd);
        y[c + 8] = _mm512_shuffle_i32x4(x[c + 8], x[c + 12], 0x88);
        y[c + 12] = _mm512_shuffle_i32x4(x[c + 8], x[c + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        x[c] = _mm512_shuffle_i32x4(y[c], y[c + 8], 0x88);
        x[c + 8] = _mm512_shuffle_i32x4(y[c], y[c + 8], 0xdd);
        x[c + 4] = _mm512_shuffle_i32x4(y[c + 4], y[c + 12], 0x88);
        x[c + 12] = _mm512_shuffle_i32x4(y[c + 4], y[c + 12], 0xdd);
    }
}

#endif
