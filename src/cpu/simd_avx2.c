/* AVX2 with FMA. */
#include "cpu/simd.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "cpu/exp2.h"

#define TARGET_AVX2 __attribute__((target("avx2,fma")))

/* NaN stays NaN: max takes its second operand then, and no comparison with NaN holds. */
TARGET_AVX2 static inline __m256 exp2_256(__m256 x, const float *coefficient, int degree)
{
    const __m256 lowest = _mm256_set1_ps(EXP2_LOWEST);
    const __m256 vanishes = _mm256_cmp_ps(x, lowest, _CMP_LT_OQ);
    const __m256 clamped = _mm256_max_ps(lowest, x);
    const __m256 whole = _mm256_floor_ps(clamped);
    const __m256 fraction = _mm256_sub_ps(clamped, whole);
    __m256 value = _mm256_set1_ps(coefficient[degree]);

    for (int i = degree - 1; i >= 0; i--)
        value = _mm256_fmadd_ps(value, fraction, _mm256_set1_ps(coefficient[i]));
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
    value = _mm256_mul_ps(value, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
    return _mm256_andnot_ps(vanishes, value);
}

/* All-ones lanes: keys [8 j, 8 j + 8) that the row sees. */
TARGET_AVX2 static inline __m256 seen_mask(int j, const struct ls_leaf_keys *seen)
{
    const __m256i key = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i bits = _mm256_set1_epi32((int)ls_leaf_keys_bits(seen, 8 * j, 8));

    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(bits, key), key));
}

TARGET_AVX2 static inline __m256 load_scores(const float *s, int j, const struct ls_leaf_keys *seen)
{
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_loadu_ps(s + 8 * j),
                            seen_mask(j, seen));
}

TARGET_AVX2 static inline __m128 fold(__m256 x, __m128 (*how)(__m128, __m128))
{
    __m128 y = how(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    y = how(y, _mm_movehl_ps(y, y));
    return how(y, _mm_shuffle_ps(y, y, 1));
}

TARGET_AVX2 static __m128 larger(__m128 a, __m128 b)
{
    return _mm_max_ps(a, b);
}

TARGET_AVX2 static __m128 sum(__m128 a, __m128 b)
{
    return _mm_add_ps(a, b);
}

TARGET_AVX2 static void softmax_row(float *p, float *m, float *l, const float *s,
                                    const struct ls_leaf_keys *seen, float scale)
{
    static const float coefficient[] = EXP2_DEGREE_5;
    const __m256 factor = _mm256_set1_ps(scale);
    __m256 top = _mm256_set1_ps(-INFINITY), total = _mm256_setzero_ps();

    for (int j = 0; j < LS_LEAF / 8; j++) top = _mm256_max_ps(top, load_scores(s, j, seen));
    const float highest = _mm_cvtss_f32(fold(top, larger));
    *m = highest == -INFINITY ? highest : scale * highest;
    const __m256 origin = _mm256_set1_ps(highest == -INFINITY ? 0.0f : *m);
    for (int j = 0; j < LS_LEAF / 8; j++) {
        /* not fused: equal factors give equal products, so x is never above zero */
        const __m256 x = _mm256_sub_ps(_mm256_mul_ps(_mm256_loadu_ps(s + 8 * j), factor), origin);
        const __m256 value = _mm256_and_ps(exp2_256(x, coefficient, 5), seen_mask(j, seen));
        _mm256_storeu_ps(p + 8 * j, value);
        total = _mm256_add_ps(total, value);
    }
    *l = _mm_cvtss_f32(fold(total, sum));
    if (isnan(*l)) *m = *l; /* NaN does not count for highest */
}

TARGET_AVX2 static void softmax_f32(const struct softmax_rows *a)
{
    for (int r = 0; r < a->rows; r++)
        softmax_row((float *)a->p + r * a->p_stride, a->m + r, a->l + r, a->s + r * a->s_stride,
                    keys_of_row(a, r), a->scale);
}

TARGET_AVX2 static inline void merge_row(float *into, const float *from, float keep, float add,
                                         int d)
{
    const __m256 a = _mm256_set1_ps(keep), b = _mm256_set1_ps(add);

    int j = 0;

    for (; j + 8 <= d; j += 8) {
        const __m256 added = _mm256_mul_ps(b, _mm256_loadu_ps(from + j));
        _mm256_storeu_ps(into + j, _mm256_fmadd_ps(a, _mm256_loadu_ps(into + j), added));
    }
    for (; j < d; j++) into[j] = __builtin_fmaf(keep, into[j], add * from[j]);
}

TARGET_AVX2 static void merge(struct ls_row_states into, struct ls_row_states from, int rows, int d)
{
    static const float coefficient[] = EXP2_DEGREE_6;

    for (int r = 0; r < rows; r++, into.acc += d, from.acc += d) {
        if (from.m[r] == -INFINITY) continue;
        if (into.m[r] == -INFINITY) {
            into.m[r] = from.m[r];
            into.l[r] = from.l[r];
            memcpy(into.acc, from.acc, (size_t)d * sizeof *into.acc);
            continue;
        }
        const float top = into.m[r] > from.m[r] ? into.m[r] : from.m[r];
        float weight[8];
        _mm256_storeu_ps(
            weight, exp2_256(_mm256_setr_ps(into.m[r] - top, from.m[r] - top, 0, 0, 0, 0, 0, 0),
                             coefficient, 6));
        merge_row(into.acc, from.acc, weight[0], weight[1], d);
        into.l[r] = weight[0] * into.l[r] + weight[1] * from.l[r];
        into.m[r] = top;
    }
}

/* The compiler makes vectors of it. */
TARGET_AVX2 static void scale(float *x, float factor, int n)
{
    for (int i = 0; i < n; i++) x[i] *= factor;
}

TARGET_AVX2 static inline __m256 tanh_256(__m256 x)
{
    static const float coefficient[] = EXP2_DEGREE_5, series[TANH_TERMS] = TANH_SERIES;
    const __m256 one = _mm256_set1_ps(1), sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    const __m256 xx = _mm256_mul_ps(x, x), size = _mm256_xor_ps(x, sign);
    const __m256 small = _mm256_cmp_ps(size, _mm256_set1_ps(TANH_SERIES_END), _CMP_LT_OQ);
    const __m256 e = exp2_256(_mm256_mul_ps(size, _mm256_set1_ps(-2 * LOG2E)), coefficient, 5);
    const __m256 far = _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e));
    __m256 near = _mm256_set1_ps(series[TANH_TERMS - 1]);

    for (int i = TANH_TERMS - 2; i >= 0; i--)
        near = _mm256_fmadd_ps(near, xx, _mm256_set1_ps(series[i]));
    return _mm256_blendv_ps(_mm256_or_ps(far, sign), _mm256_mul_ps(near, x), small);
}

TARGET_AVX2 static void logits(float *s, const struct logit_row *row)
{
    const __m256 scale = _mm256_set1_ps(row->scale), cap = _mm256_set1_ps(row->soft_cap);
    const __m256 slope = _mm256_set1_ps(row->slope), place = _mm256_set1_ps(row->place);
    const __m256 shift = _mm256_set1_ps(row->shift);
    __m256 key = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);

    for (int j = 0; j < LS_LEAF / 8; j++, key = _mm256_add_ps(key, _mm256_set1_ps(8))) {
        const __m256 far = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_sub_ps(place, key));
        __m256 x = _mm256_fmadd_ps(_mm256_loadu_ps(s + 8 * j), scale, shift);

        if (row->soft_cap != 0) x = _mm256_mul_ps(cap, tanh_256(_mm256_div_ps(x, cap)));
        if (row->slope != 0) x = _mm256_sub_ps(x, _mm256_mul_ps(slope, far));
        _mm256_storeu_ps(s + 8 * j, x);
    }
}

const struct simd cpu_simd_avx2 = {softmax_f32, NULL, merge, scale, logits};

#else
const struct simd cpu_simd_avx2 = {0};
#endif
