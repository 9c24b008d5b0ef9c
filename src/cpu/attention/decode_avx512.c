/* Products with keys where the caller has them, in AVX-512. */
#include "cpu/attention/decode_products.h"

#if defined(__x86_64__)

#include "cpu/softmax_avx512.h"

#define LANES 16
#define TARGET TARGET_AVX512
#define INLINE TARGET static inline __attribute__((always_inline))

typedef __m512 vector;

INLINE vector widen(__m256i x, ls_dtype type)
{
    if (type == LS_F16) return _mm512_cvtph_ps(x);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

/* As an f16 number 2^8 times smaller, which has subnormals as well; NaN has all bits but the sign.
 */
INLINE vector widen_e4m3(__m128i x)
{
    const __m512i wide = _mm512_cvtepi8_epi32(x), magnitude = _mm512_set1_epi32(0x7f);
    const __mmask16 nan = _mm512_cmpeq_epi32_mask(_mm512_and_si512(wide, magnitude), magnitude);
    const __m256i half = _mm256_or_si256(
        _mm256_and_si256(_mm256_cvtepi8_epi16(x), _mm256_set1_epi16((short)0x8000)),
        _mm256_slli_epi16(_mm256_and_si256(_mm256_cvtepi8_epi16(x), _mm256_set1_epi16(0x7f)), 7));
    const vector y = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(0x1p8f));

    return _mm512_mask_mov_ps(y, nan, _mm512_set1_ps(__builtin_nanf("")));
}

/* 16 elements of a row from e on, or those before d and then zeros. */
INLINE vector load(const char *row, int e, int d, bool whole, ls_dtype type)
{
    const char *x = row + e * decode_size(type);
    const __mmask16 rest = whole ? 0xffff : (__mmask16)((1u << (d - e)) - 1);

    if (type == LS_I8 || type == LS_E4M3) {
        const __m128i bytes =
            whole ? _mm_loadu_si128((const void *)x) : _mm_maskz_loadu_epi8(rest, x);

        return type == LS_I8 ? _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)) : widen_e4m3(bytes);
    }
    if (type == LS_F32) return whole ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(rest, x);
    return widen(whole ? _mm256_loadu_si256((const void *)x) : _mm256_maskz_loadu_epi16(rest, x),
                 type);
}

INLINE vector read_lanes(const float *x)
{
    return _mm512_loadu_ps(x);
}

INLINE void write_lanes(float *x, vector y)
{
    _mm512_storeu_ps(x, y);
}

INLINE vector all_lanes(float x)
{
    return _mm512_set1_ps(x);
}

INLINE vector multiply_add(vector x, vector y, vector z)
{
    return _mm512_fmadd_ps(x, y, z);
}

#include "cpu/attention/decode_vector.h"

/* Lane sums of the products of a few rows with up to 16 keys. */
INLINE void multiply_keys(vector sums[DECODE_STRIP][LANES], const float *q, int rows,
                          const struct key_rows *k, int first, int keys, ls_dtype type)
{
    const int d = k->d, pitch = decode_pitch(k);
    const char *row = k->first + first * k->stride;

    for (int j = 0; j < keys; j++, row += k->stride) {
        vector sum[DECODE_STRIP];
        int e = 0;

        decode_prefetch(k, row);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sum[r] = _mm512_setzero_ps();
        for (; e + LANES <= d; e += LANES)
            add_products(sum, q + e, pitch, rows, load(row, e, d, true, type));
        if (e < d) add_products(sum, q + e, pitch, rows, load(row, e, d, false, type));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            sums[r][j] = ls_dtype_is_of_8_bits(type)
                             ? _mm512_mul_ps(sum[r], _mm512_set1_ps(decode_scale(k, row)))
                             : sum[r];
    }
}

INLINE void few_scores(float *s, const float *q, int rows, const struct key_rows *k,
                       struct key_span keys, ls_dtype type)
{
    vector sums[DECODE_STRIP][LANES] = {0};

    for (int j = keys.first; j < keys.end; j += 16) {
        const int n = keys.end - j < 16 ? keys.end - j : 16;
        const __mmask16 present = (__mmask16)((1u << n) - 1);

        multiply_keys(sums, q, rows, k, j, n, type);
        for (int r = 0; r < rows; r++)
            _mm512_mask_storeu_ps(s + r * LS_LEAF + j, present, sum_of_rows(sums[r]));
    }
}

const struct decode_products cpu_decode_avx512 = {scores, output};

#else
const struct decode_products cpu_decode_avx512 = {0};
#endif
