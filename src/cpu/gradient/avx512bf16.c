/* Backward's tile in bf16 by VDPBF16PS, for CPUs on which that does more than two f32 FMAs do:
 * AMD's. Intel's take two cycles for it, and there f32 blocks are faster. */
#include "cpu/gradient/products.h"

#if defined(__x86_64__)

#include <stdlib.h>

#include "cpu/gemm.h"
#include "cpu/gradient/bf16.h"

#define ROWS 8 /* in registers */

/* Eight rows of a block. */
TARGET_AVX512BF16 static inline void multiply_rows(float *out, ptrdiff_t stride, const char *left,
                                                   const char *right, int steps)
{
    __m512 sum[ROWS][2];

#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    for (int step = 0; step < steps; step++, left += STEP_BYTES, right += STEP_BYTES) {
#pragma GCC unroll 2
        for (int i = 0; i < 16; i++) {
            const __m512bh b0 = (__m512bh)_mm512_load_si512(right + 64 * i);
            const __m512bh b1 = (__m512bh)_mm512_load_si512(right + PACKED_BYTES + 64 * i);

#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                const __m512bh a =
                    (__m512bh)_mm512_set1_epi32(((const int32_t *)(const void *)left)[16 * r + i]);

                sum[r][0] = _mm512_dpbf16_ps(sum[r][0], a, b0);
                sum[r][1] = _mm512_dpbf16_ps(sum[r][1], a, b1);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
        _mm512_storeu_ps(out + r * stride, sum[r][0]);
        _mm512_storeu_ps(out + r * stride + 16, sum[r][1]);
    }
}

static void multiply(float *out, ptrdiff_t stride, const char *left, const char *right, int steps)
{
    for (int row = 0; row < SIDE; row += ROWS)
        multiply_rows(out + row * stride, stride, left + 64 * row, right, steps);
}

static ls_status tile(void *worker, const struct gradient_tile *tile)
{
    cpu_bf16_tile(worker, tile, multiply);
    return LS_OK;
}

static bool fits(ls_isa isa, ls_dtype storage, const struct ls_scores *scores)
{
    return ls_cpu_bf16_pays(isa) && storage == LS_BF16 && ls_scores_are_plain(scores);
}

const struct gradient_products cpu_gradient_avx512bf16 = {
    .name = "AVX-512 bf16 blocks",
    .type = LS_BF16,
    .d_multiple = SIDE,
    .fits = fits,
    .keys_bytes = cpu_bf16_keys_bytes,
    .queries_bytes = cpu_bf16_queries_bytes,
    .scratch_bytes = cpu_bf16_scratch_bytes,
    .create = cpu_bf16_worker_create,
    .destroy = free,
    .pack_keys = cpu_bf16_pack_keys,
    .pack_queries = cpu_bf16_pack_queries,
    .tile = tile,
};

#else
const struct gradient_products cpu_gradient_avx512bf16 = {.name = "AVX-512 bf16 blocks",
                                                          .fits = cpu_gradient_fits_never};
#endif
