/* AVX-512, with and without AVX512_BF16. Rows go sixteen at a time (softmax_avx512.h). */
#include "cpu/simd.h"

#if defined(__x86_64__)

#include <math.h>
#include <string.h>

#include "cpu/softmax_avx512.h"

/* Keys that the row does not see become -inf. */
TARGET_AVX512 static inline __m512 load_scores(const float *s, int j,
                                               const struct ls_leaf_keys *seen)
{
    return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), seen_mask(j, seen), s + 16 * j);
}

TARGET_AVX512 static inline __m512 row_maximum(const float *s, const struct ls_leaf_keys *seen)
{
    __m512 top[4];

    if (ls_leaf_keys_are_all(seen)) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) top[j] = _mm512_loadu_ps(s + 16 * j);
#pragma GCC unroll 16
        for (int j = 4; j < VECTORS; j++)
            top[j % 4] = _mm512_max_ps(top[j % 4], _mm512_loadu_ps(s + 16 * j));
    } else {
        for (int j = 0; j < 4; j++) top[j] = load_scores(s, j, seen);
        for (int j = 4; j < VECTORS; j++)
            top[j % 4] = _mm512_max_ps(top[j % 4], load_scores(s, j, seen));
    }
    return _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
}

/* Row maxima of up to 16 rows: m, and what exponents are counted from (0 for a row without keys,
 * whose scores are all -inf). */
TARGET_AVX512 static inline void group_maxima(float origin[GROUP], const struct softmax_rows *a,
                                              int first, int rows)
{
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    __m512 top[GROUP];

    for (int r = 0; r < GROUP; r++)
        top[r] = r < rows ? row_maximum(a->s + (first + r) * a->s_stride, keys_of_row(a, first + r))
                          : nothing;
    const __m512 highest = maximum_of_rows(top);
    const __mmask16 seen = _mm512_cmp_ps_mask(highest, nothing, _CMP_NEQ_UQ);
    const __m512 m = _mm512_mask_mul_ps(highest, seen, highest, _mm512_set1_ps(a->scale));

    _mm512_mask_storeu_ps(a->m + first, (__mmask16)((1u << rows) - 1), m);
    _mm512_storeu_ps(origin, _mm512_maskz_mov_ps(seen, m));
}

/* l of up to 16 rows. A NaN does not count for the maximum, so that m may say that there is
 * nothing: the sum corrects it. */
TARGET_AVX512 static inline void store_sums(const struct softmax_rows *a, __m512 sum[GROUP],
                                            int first, int rows)
{
    const __mmask16 present = (__mmask16)((1u << rows) - 1);

    for (int r = rows; r < GROUP; r++) sum[r] = _mm512_setzero_ps();
    const __m512 l = sum_of_rows(sum);
    _mm512_mask_storeu_ps(a->l + first, present, l);
    _mm512_mask_storeu_ps(a->m + first, _mm512_mask_cmp_ps_mask(present, l, l, _CMP_UNORD_Q), l);
}

/* A fused product is exact, its origin was rounded: up to here by less than one in the exponent. */
#define FUSED_LIMIT 0x1p24f

/* s becomes p in registers; returns the lanes' sums. */
TARGET_AVX512 static inline __m512 exponentials(__m512 x[VECTORS], const float *s,
                                                const struct ls_leaf_keys *seen, float scale,
                                                float origin, const float *coefficient, int degree)
{
    const __m512 factor = _mm512_set1_ps(scale), from = _mm512_set1_ps(origin);
    __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};

    if (fabsf(origin) > FUSED_LIMIT) { /* both are rounded: the largest is 0 */
#pragma GCC unroll 16
        for (int j = 0; j < VECTORS; j++) {
            const __m512 score = load_scores(s, j, seen);
            x[j] =
                _mm512_sub_ps(_mm512_mask_mul_ps(score, seen_mask(j, seen), score, factor), from);
        }
    } else if (ls_leaf_keys_are_all(seen)) {
#pragma GCC unroll 16
        for (int j = 0; j < VECTORS; j++)
            x[j] = _mm512_fmsub_ps(_mm512_loadu_ps(s + 16 * j), factor, from);
    } else { /* -inf stays -inf, also if the factor is 0 */
#pragma GCC unroll 16
        for (int j = 0; j < VECTORS; j++)
            x[j] = _mm512_mask_fmsub_ps(load_scores(s, j, seen), seen_mask(j, seen), factor, from);
    }
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; j++) {
        x[j] = exp2_512(x[j], coefficient, degree);
        sum[j % 2] = _mm512_add_ps(sum[j % 2], x[j]);
    }
    return _mm512_add_ps(sum[0], sum[1]);
}

TARGET_AVX512 static void softmax_rows_f32(const struct softmax_rows *a)
{
    static const float coefficient[] = EXP2_DEGREE_5;

    for (int first = 0; first < a->rows; first += GROUP) {
        const int rows = a->rows - first < GROUP ? a->rows - first : GROUP;
        float origin[GROUP];
        __m512 sum[GROUP];

        group_maxima(origin, a, first, rows);
        for (int r = 0; r < rows; r++) {
            float *p = (float *)a->p + (first + r) * a->p_stride;
            __m512 x[VECTORS];

            sum[r] = exponentials(x, a->s + (first + r) * a->s_stride, keys_of_row(a, first + r),
                                  a->scale, origin[r], coefficient, 5);
#pragma GCC unroll 16
            for (int j = 0; j < VECTORS; j++) _mm512_storeu_ps(p + 16 * j, x[j]);
        }
        store_sums(a, sum, first, rows);
    }
}

static void softmax_f32(const struct softmax_rows *a)
{
    WITH_FTZ(softmax_rows_f32(a));
}

/* What p of each key is multiplied by, but of those that the row does not see. */
TARGET_AVX512 static inline void weigh(__m512 x[VECTORS], const float *p_factor,
                                       const struct ls_leaf_keys *seen)
{
    if (!p_factor) return;
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; j++)
        x[j] = _mm512_maskz_mul_ps(seen_mask(j, seen), x[j], _mm512_loadu_ps(p_factor + 16 * j));
}

TARGET_AVX512BF16 static void softmax_rows_bf16(const struct softmax_rows *a)
{
    static const float coefficient[] = EXP2_DEGREE_4;

    for (int first = 0; first < a->rows; first += GROUP) {
        const int rows = a->rows - first < GROUP ? a->rows - first : GROUP;
        float origin[GROUP];
        __m512 sum[GROUP];

        group_maxima(origin, a, first, rows);
        for (int r = 0; r < rows; r++) {
            uint16_t *p = (uint16_t *)a->p + (first + r) * a->p_stride;
            __m512 x[VECTORS];

            sum[r] = exponentials(x, a->s + (first + r) * a->s_stride, keys_of_row(a, first + r),
                                  a->scale, origin[r], coefficient, 4);
            weigh(x, a->p_factor, keys_of_row(a, first + r));
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j += 2)
                _mm512_storeu_si512(p + 16 * j, (__m512i)_mm512_cvtne2ps_pbh(x[j + 1], x[j]));
        }
        store_sums(a, sum, first, rows);
    }
}

static void softmax_bf16(const struct softmax_rows *a)
{
    WITH_FTZ(softmax_rows_bf16(a));
}

/* Weights of 16 rows, and their new m and l. */
TARGET_AVX512 static inline void merge_weights(float *keep, float *add, float *m, float *l,
                                               const float *from_m, const float *from_l,
                                               __mmask16 rows)
{
    static const float coefficient[] = EXP2_DEGREE_6;
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    const __m512 a = _mm512_mask_loadu_ps(nothing, rows, m);
    const __m512 b = _mm512_mask_loadu_ps(nothing, rows, from_m);
    /* the maximum is b if one of them is NaN */
    const __m512 top =
        _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
    const __mmask16 seen = _mm512_cmp_ps_mask(top, nothing, _CMP_NEQ_UQ);
    const __m512 wa = exp2_512(_mm512_maskz_sub_ps(seen, a, top), coefficient, 6);
    const __m512 wb = exp2_512(_mm512_maskz_sub_ps(seen, b, top), coefficient, 6);
    const __mmask16 has_a = rows & _mm512_cmp_ps_mask(a, nothing, _CMP_NEQ_UQ);
    const __mmask16 has_b = rows & _mm512_cmp_ps_mask(b, nothing, _CMP_NEQ_UQ);
    const __m512 la = _mm512_maskz_loadu_ps(has_a, l), lb = _mm512_maskz_loadu_ps(has_b, from_l);

    _mm512_storeu_ps(keep, wa);
    _mm512_storeu_ps(add, wb);
    _mm512_mask_storeu_ps(m, rows, top);
    _mm512_mask_storeu_ps(l, rows, _mm512_fmadd_ps(wa, la, _mm512_mul_ps(wb, lb)));
}

TARGET_AVX512 static inline void merge_row(float *into, const float *from, float keep, float add,
                                           int d)
{
    const __m512 a = _mm512_set1_ps(keep), b = _mm512_set1_ps(add);

    for (int j = 0; j < d; j += 16) {
        const __mmask16 rest = d - j < 16 ? (__mmask16)((1u << (d - j)) - 1) : 0xffff;
        const __m512 added = _mm512_mul_ps(b, _mm512_maskz_loadu_ps(rest, from + j));
        const __m512 kept = _mm512_maskz_loadu_ps(rest, into + j);
        _mm512_mask_storeu_ps(into + j, rest, _mm512_fmadd_ps(a, kept, added));
    }
}

TARGET_AVX512 static void merge_rows(struct ls_row_states into, struct ls_row_states from, int rows,
                                     int d)
{
    const __m512 nothing = _mm512_set1_ps(-INFINITY);

    for (int r = 0; r < rows; r += GROUP) {
        const int n = rows - r < GROUP ? rows - r : GROUP;
        const __mmask16 present = (__mmask16)((1u << n) - 1);
        const __mmask16 into_empty = _mm512_mask_cmp_ps_mask(
            present, _mm512_maskz_loadu_ps(present, into.m + r), nothing, _CMP_EQ_OQ);
        const __mmask16 from_empty = _mm512_mask_cmp_ps_mask(
            present, _mm512_maskz_loadu_ps(present, from.m + r), nothing, _CMP_EQ_OQ);
        float keep[GROUP], add[GROUP];

        merge_weights(keep, add, into.m + r, into.l + r, from.m + r, from.l + r, present);
        for (int i = 0; i < n; i++) {
            float *acc = into.acc + (size_t)(r + i) * (size_t)d;
            const float *other = from.acc + (size_t)(r + i) * (size_t)d;

            if (from_empty >> i & 1) continue;
            if (into_empty >> i & 1)
                memcpy(acc, other, (size_t)d * sizeof *acc);
            else
                merge_row(acc, other, keep[i], add[i], d);
        }
    }
}

TARGET_AVX512 static void scale(float *x, float factor, int n)
{
    for (int i = 0; i < n; i += 16) {
        const __mmask16 rest = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        const __m512 scaled =
            _mm512_mul_ps(_mm512_maskz_loadu_ps(rest, x + i), _mm512_set1_ps(factor));
        _mm512_mask_storeu_ps(x + i, rest, scaled);
    }
}

TARGET_AVX512 static inline __m512 tanh_512(__m512 x)
{
    static const float coefficient[] = EXP2_DEGREE_5, series[TANH_TERMS] = TANH_SERIES;
    const __m512 one = _mm512_set1_ps(1), xx = _mm512_mul_ps(x, x), size = _mm512_abs_ps(x);
    const __mmask16 small = _mm512_cmp_ps_mask(size, _mm512_set1_ps(TANH_SERIES_END), _CMP_LT_OQ);
    const __m512 e = exp2_512(_mm512_mul_ps(size, _mm512_set1_ps(-2 * LOG2E)), coefficient, 5);
    const __m512 far = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    __m512 near = _mm512_set1_ps(series[TANH_TERMS - 1]);

    for (int i = TANH_TERMS - 2; i >= 0; i--)
        near = _mm512_fmadd_ps(near, xx, _mm512_set1_ps(series[i]));
    const __m512 sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0f));
    return _mm512_mask_mul_ps(_mm512_or_ps(far, sign), small, near, x);
}

TARGET_AVX512 static void logits(float *s, const struct logit_row *row)
{
    const __m512 scale = _mm512_set1_ps(row->scale), cap = _mm512_set1_ps(row->soft_cap);
    const __m512 slope = _mm512_set1_ps(row->slope), place = _mm512_set1_ps(row->place);
    const __m512 shift = _mm512_set1_ps(row->shift);
    __m512 key = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    for (int j = 0; j < VECTORS; j++, key = _mm512_add_ps(key, _mm512_set1_ps(16))) {
        const __m512 distance = _mm512_sub_ps(place, key);
        __m512 x = _mm512_fmadd_ps(_mm512_loadu_ps(s + 16 * j), scale, shift);

        if (row->soft_cap != 0) x = _mm512_mul_ps(cap, tanh_512(_mm512_div_ps(x, cap)));
        if (row->slope != 0) x = _mm512_sub_ps(x, _mm512_mul_ps(slope, _mm512_abs_ps(distance)));
        _mm512_storeu_ps(s + 16 * j, x);
    }
}

const struct simd cpu_simd_avx512 = {softmax_f32, NULL, merge_rows, scale, logits};
const struct simd cpu_simd_avx512bf16 = {softmax_f32, softmax_bf16, merge_rows, scale, logits};

#else
const struct simd cpu_simd_avx512 = {0}, cpu_simd_avx512bf16 = {0};
#endif
