/* Products with keys where the caller has them, in AVX2 with FMA and F16C. */
#include "cpu/attention/decode_products.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define LANES 8
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))

typedef __m256 vector;

INLINE vector widen(__m128i x, ls_dtype type)
{
    if (type == LS_F16) return _mm256_cvtph_ps(x);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

/* As an f16 number 2^8 times smaller, which has subnormals as well; NaN has all bits but the sign.
 */
INLINE vector widen_e4m3(__m128i x)
{
    const __m128i wide = _mm_cvtepi8_epi16(x), magnitude = _mm_set1_epi16(0x7f);
    const __m128i size = _mm_and_si128(wide, magnitude);
    const __m128i half =
        _mm_or_si128(_mm_and_si128(wide, _mm_set1_epi16((short)0x8000)), _mm_slli_epi16(size, 7));
    const __m256i nan = _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(size, magnitude));

    return _mm256_or_ps(_mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(0x1p8f)),
                        _mm256_castsi256_ps(nan));
}

/* 8 elements of a row from e on, or those before d and then zeros. */
INLINE vector load(const char *row, int e, int d, bool whole, ls_dtype type)
{
    const size_t size = (size_t)decode_size(type);
    const char *x = row + (size_t)e * size;
    float rest[8] = {0};

    if (!whole) x = memcpy(rest, x, (size_t)(d - e) * size);
    if (type == LS_F32) return _mm256_loadu_ps((const float *)(const void *)x);
    if (type == LS_I8)
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)x)));
    if (type == LS_E4M3) return widen_e4m3(_mm_loadl_epi64((const void *)x));
    return widen(_mm_loadu_si128((const void *)x), type);
}

INLINE float lane_sum(vector x)
{
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

INLINE vector read_lanes(const float *x)
{
    return _mm256_loadu_ps(x);
}

INLINE void write_lanes(float *x, vector y)
{
    _mm256_storeu_ps(x, y);
}

INLINE vector all_lanes(float x)
{
    return _mm256_set1_ps(x);
}

INLINE vector multiply_add(vector x, vector y, vector z)
{
    return _mm256_fmadd_ps(x, y, z);
}

#include "cpu/attention/decode_vector.h"

INLINE void few_scores(float *s, const float *q, int rows, const struct key_rows *k,
                       struct key_span keys, ls_dtype type)
{
    const int d = k->d, pitch = decode_pitch(k);

    for (int j = keys.first; j < keys.end; j++) {
        const char *row = k->first + j * k->stride;
        vector sum[DECODE_STRIP];
        int e = 0;

        decode_prefetch(k, row);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sum[r] = _mm256_setzero_ps();
        for (; e + LANES <= d; e += LANES)
            add_products(sum, q + e, pitch, rows, load(row, e, d, true, type));
        if (e < d) add_products(sum, q + e, pitch, rows, load(row, e, d, false, type));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            s[r * LS_LEAF + j] = ls_dtype_is_of_8_bits(type)
                                     ? lane_sum(sum[r]) * decode_scale(k, row)
                                     : lane_sum(sum[r]);
    }
}

const struct decode_products cpu_decode_avx2 = {scores, output};

#else
const struct decode_products cpu_decode_avx2 = {0};
#endif
