/* Products with keys where the caller has them, in AVX-512. */
#include "cpu/decode.h"

#if defined(__x86_64__)

#include "cpu/softmax_avx512.h"

#define KEYS_AT_ONCE 8 /* of V */
#define INLINE TARGET_AVX512 static inline __attribute__((always_inline))

INLINE __m512 widen(__m256i x, ls_dtype type)
{
    if (type == LS_F16) return _mm512_cvtph_ps(x);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

/* 16 elements of a row from e on, or those before d and then zeros. */
INLINE __m512 load(const char *row, int e, int d, bool whole, ls_dtype type)
{
    const char *x = row + e * (type == LS_F32 ? 4 : 2);
    const __mmask16 rest = whole ? 0xffff : (__mmask16)((1u << (d - e)) - 1);

    if (type == LS_F32) return whole ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(rest, x);
    return widen(whole ? _mm256_loadu_si256((const void *)x) : _mm256_maskz_loadu_epi16(rest, x),
                 type);
}

INLINE void add_products(__m512 sum[DECODE_STRIP], const float *q, int pitch, int rows, __m512 k)
{
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        sum[r] = _mm512_fmadd_ps(_mm512_loadu_ps(q + r * pitch), k, sum[r]);
}

/* Lane sums of the products of a few rows with up to 16 keys. */
INLINE void multiply_keys(__m512 sums[DECODE_STRIP][16], const float *q, int rows,
                          const struct key_rows *k, int first, int keys, ls_dtype type)
{
    const int d = k->d, pitch = decode_pitch(k);
    const char *row = k->first + first * k->stride;

    for (int j = 0; j < keys; j++, row += k->stride) {
        __m512 sum[DECODE_STRIP];
        int e = 0;

        decode_prefetch(k, row);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sum[r] = _mm512_setzero_ps();
        for (; e + 16 <= d; e += 16)
            add_products(sum, q + e, pitch, rows, load(row, e, d, true, type));
        if (e < d) add_products(sum, q + e, pitch, rows, load(row, e, d, false, type));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sums[r][j] = sum[r];
    }
}

INLINE void few_scores(float *s, const float *q, int rows, const struct key_rows *k,
                       struct key_span keys, ls_dtype type)
{
    __m512 sums[DECODE_STRIP][16] = {0};

    for (int j = keys.first; j < keys.end; j += 16) {
        const int n = keys.end - j < 16 ? keys.end - j : 16;
        const __mmask16 present = (__mmask16)((1u << n) - 1);

        multiply_keys(sums, q, rows, k, j, n, type);
        for (int r = 0; r < rows; r++)
            _mm512_mask_storeu_ps(s + r * LS_LEAF + j, present, sum_of_rows(sums[r]));
    }
}

/* Sixteen columns from e on, of some keys, for some rows. */
INLINE void add_columns(float *acc, const float *p, int rows, const struct key_rows *v,
                        const char *row, int keys, int e, bool whole, ls_dtype type)
{
    const int pitch = decode_pitch(v);
    __m512 x[KEYS_AT_ONCE];

#pragma GCC unroll 8
    for (int j = 0; j < keys; j++) x[j] = load(row + j * v->stride, e, v->d, whole, type);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        __m512 sum = _mm512_loadu_ps(acc + r * pitch + e);

#pragma GCC unroll 8
        for (int j = 0; j < keys; j++)
            sum = _mm512_fmadd_ps(_mm512_set1_ps(p[r * LS_LEAF + j]), x[j], sum);
        _mm512_storeu_ps(acc + r * pitch + e, sum);
    }
}

INLINE void add_values(float *acc, const float *p, int rows, const struct key_rows *v, int first,
                       int keys, ls_dtype type)
{
    const char *row = v->first + first * v->stride;
    int e = 0;

    for (int j = 0; j < keys; j++) decode_prefetch(v, row + j * v->stride);
    for (; e + 16 <= v->d; e += 16) add_columns(acc, p + first, rows, v, row, keys, e, true, type);
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

TARGET_AVX512 static void scores(float *s, const float *q, int rows, const struct key_rows *k,
                                 struct key_span keys)
{
    if (k->type == LS_BF16)
        scores_of(s, q, rows, k, keys, LS_BF16);
    else if (k->type == LS_F16)
        scores_of(s, q, rows, k, keys, LS_F16);
    else
        scores_of(s, q, rows, k, keys, LS_F32);
}

TARGET_AVX512 static void output(float *acc, const float *p, int rows, const struct key_rows *v,
                                 struct key_span keys)
{
    if (v->type == LS_BF16)
        output_of(acc, p, rows, v, keys, LS_BF16);
    else if (v->type == LS_F16)
        output_of(acc, p, rows, v, keys, LS_F16);
    else
        output_of(acc, p, rows, v, keys, LS_F32);
}

const struct decode_products decode_avx512 = {scores, output};

#else
const struct decode_products decode_avx512 = {0};
#endif
