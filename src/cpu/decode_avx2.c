/* Products with keys where the caller has them, in AVX2 with FMA and F16C. */
#include "cpu/decode.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define KEYS_AT_ONCE 8 /* of V */
#define TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define INLINE TARGET_AVX2 static inline __attribute__((always_inline))

INLINE __m256 widen(__m128i x, ls_dtype type)
{
    if (type == LS_F16) return _mm256_cvtph_ps(x);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

/* 8 elements of a row from e on, or those before d and then zeros. */
INLINE __m256 load(const char *row, int e, int d, bool whole, ls_dtype type)
{
    const size_t size = type == LS_F32 ? 4 : 2;
    const char *x = row + (size_t)e * size;
    float rest[8] = {0};

    if (!whole) x = memcpy(rest, x, (size_t)(d - e) * size);
    if (type == LS_F32) return _mm256_loadu_ps((const float *)(const void *)x);
    return widen(_mm_loadu_si128((const void *)x), type);
}

INLINE float lane_sum(__m256 x)
{
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

INLINE void add_products(__m256 sum[DECODE_STRIP], const float *q, int pitch, int rows, __m256 k)
{
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        sum[r] = _mm256_fmadd_ps(_mm256_loadu_ps(q + r * pitch), k, sum[r]);
}

INLINE void few_scores(float *s, const float *q, int rows, const struct key_rows *k,
                       struct key_span keys, ls_dtype type)
{
    const int d = k->d, pitch = decode_pitch(k);

    for (int j = keys.first; j < keys.end; j++) {
        const char *row = k->first + j * k->stride;
        __m256 sum[DECODE_STRIP];
        int e = 0;

        decode_prefetch(k, row);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sum[r] = _mm256_setzero_ps();
        for (; e + 8 <= d; e += 8)
            add_products(sum, q + e, pitch, rows, load(row, e, d, true, type));
        if (e < d) add_products(sum, q + e, pitch, rows, load(row, e, d, false, type));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) s[r * LS_LEAF + j] = lane_sum(sum[r]);
    }
}

/* Eight columns from e on, of some keys, for some rows. */
INLINE void add_columns(float *acc, const float *p, int rows, const struct key_rows *v,
                        const char *row, int keys, int e, bool whole, ls_dtype type)
{
    const int pitch = decode_pitch(v);
    __m256 x[KEYS_AT_ONCE];

#pragma GCC unroll 8
    for (int j = 0; j < keys; j++) x[j] = load(row + j * v->stride, e, v->d, whole, type);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        __m256 sum = _mm256_loadu_ps(acc + r * pitch + e);

#pragma GCC unroll 8
        for (int j = 0; j < keys; j++)
            sum = _mm256_fmadd_ps(_mm256_set1_ps(p[r * LS_LEAF + j]), x[j], sum);
        _mm256_storeu_ps(acc + r * pitch + e, sum);
    }
}

INLINE void add_values(float *acc, const float *p, int rows, const struct key_rows *v, int first,
                       int keys, ls_dtype type)
{
    const char *row = v->first + first * v->stride;
    int e = 0;

    for (int j = 0; j < keys; j++) decode_prefetch(v, row + j * v->stride);
    for (; e + 8 <= v->d; e += 8) add_columns(acc, p + first, rows, v, row, keys, e, true, type);
    if (e < v->d) add_columns(acc, p + first, rows, v, row, keys, e, false, type);
}

INLINE void few_outputs(float *acc, const float *p, int rows, const struct key_rows *v,
                        struct key_span keys, ls_dtype type)
{
    int j = keys.first;

    for (; j + KEYS_AT_ONCE <= keys.end; j += KEYS_AT_ONCE)
        add_values(acc, p, rows, v, j, KEYS_AT_ONCE, type);
    for (; j < keys.end; j++) add_values(acc, p, rows, v, j, 1, type);
}

INLINE void scores_of(float *s, const float *q, int rows, const struct key_rows *k,
                      struct key_span keys, ls_dtype type)
{
    if (rows == 1)
        few_scores(s, q, 1, k, keys, type);
    else
        few_scores(s, q, DECODE_STRIP, k, keys, type);
}

INLINE void output_of(float *acc, const float *p, int rows, const struct key_rows *v,
                      struct key_span keys, ls_dtype type)
{
    if (rows == 1)
        few_outputs(acc, p, 1, v, keys, type);
    else
        few_outputs(acc, p, DECODE_STRIP, v, keys, type);
}

TARGET_AVX2 static void scores(float *s, const float *q, int rows, const struct key_rows *k,
                               struct key_span keys)
{
    if (k->type == LS_BF16)
        scores_of(s, q, rows, k, keys, LS_BF16);
    else if (k->type == LS_F16)
        scores_of(s, q, rows, k, keys, LS_F16);
    else
        scores_of(s, q, rows, k, keys, LS_F32);
}

TARGET_AVX2 static void output(float *acc, const float *p, int rows, const struct key_rows *v,
                               struct key_span keys)
{
    if (v->type == LS_BF16)
        output_of(acc, p, rows, v, keys, LS_BF16);
    else if (v->type == LS_F16)
        output_of(acc, p, rows, v, keys, LS_F16);
    else
        output_of(acc, p, rows, v, keys, LS_F32);
}

const struct decode_products decode_avx2 = {scores, output};

#else
const struct decode_products decode_avx2 = {0};
#endif
