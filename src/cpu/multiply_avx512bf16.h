/* Blocks of 32 by 32 of bf16 operands packed as in pack_bf16.h, by VDPBF16PS. */
#ifndef LS_CPU_MULTIPLY_AVX512BF16_H
#define LS_CPU_MULTIPLY_AVX512BF16_H

#include "cpu/pack_bf16.h"

#define BF16_ROWS 8 /* in registers */

/* Eight rows of a block. */
TARGET_AVX512BF16 static inline void multiply_rows(float *out, ptrdiff_t stride, const char *left,
                                                   const char *right, int steps)
{
    __m512 sum[BF16_ROWS][2];

#pragma GCC unroll 8
    for (int r = 0; r < BF16_ROWS; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    for (int step = 0; step < steps;
         step++, left += PACKED_STEP_BYTES, right += PACKED_STEP_BYTES) {
#pragma GCC unroll 2
        for (int i = 0; i < 16; i++) {
            const __m512bh b0 = (__m512bh)_mm512_load_si512(right + 64 * i);
            const __m512bh b1 = (__m512bh)_mm512_load_si512(right + PACKED_BYTES + 64 * i);

#pragma GCC unroll 8
            for (int r = 0; r < BF16_ROWS; r++) {
                const __m512bh a =
                    (__m512bh)_mm512_set1_epi32(((const int32_t *)(const void *)left)[16 * r + i]);

                sum[r][0] = _mm512_dpbf16_ps(sum[r][0], a, b0);
                sum[r][1] = _mm512_dpbf16_ps(sum[r][1], a, b1);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < BF16_ROWS; r++) {
        _mm512_storeu_ps(out + r * stride, sum[r][0]);
        _mm512_storeu_ps(out + r * stride + 16, sum[r][1]);
    }
}

/* A multiply_block (pack_bf16.h). */
static void multiply_avx512bf16(float *out, ptrdiff_t stride, const char *left, const char *right,
                                int steps)
{
    for (int row = 0; row < PACKED_SIDE; row += BF16_ROWS)
        multiply_rows(out + row * stride, stride, left + 64 * row, right, steps);
}

#endif
