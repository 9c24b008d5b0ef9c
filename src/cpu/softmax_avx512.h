/* The parts of a softmax in AVX-512. Rows go sixteen at a time: their maxima and sums are then
 * reduced together, as the columns of a 16 x 16 block. */
#ifndef LS_CPU_SOFTMAX_AVX512_H
#define LS_CPU_SOFTMAX_AVX512_H

#include <immintrin.h>

#include "cpu/exp2.h"
#include "tensor/leaf_keys.h"

#define VECTORS (LS_LEAF / 16)
#define GROUP 16 /* rows */
#define FTZ 0x8000u
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define TARGET_AVX512BF16                                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))

/* Results below 2^-126 are +0, here alone: everything else keeps its subnormals. */
#define WITH_FTZ(body)                                                                             \
    do {                                                                                           \
        const unsigned mode_ = _mm_getcsr();                                                       \
        _mm_setcsr(mode_ | FTZ);                                                                   \
        body;                                                                                      \
        _mm_setcsr(mode_);                                                                         \
    } while (0)

/* scalef takes floor(x) itself, keeps NaN and turns -inf into 0. */
TARGET_AVX512 static inline __m512 exp2_512(__m512 x, const float *coefficient, int degree)
{
    const __m512 fraction = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 value = _mm512_set1_ps(coefficient[degree]);

#pragma GCC unroll 6
    for (int i = degree - 1; i >= 0; i--)
        value = _mm512_fmadd_ps(value, fraction, _mm512_set1_ps(coefficient[i]));
    return _mm512_scalef_ps(value, x);
}

/* One step of a reduction: the lanes of a and b are halved and put side by side. */
#define HALVE(combine, shuffle, a, b) combine(shuffle(a, b, 0x88), shuffle(a, b, 0xdd))

/* Lane r of the result is row r reduced over its sixteen lanes, in an order that is the same for
 * every row. Shuffles by 128-bit lanes first, then inside them. */
#define REDUCE_ROWS(name, combine)                                                                 \
    TARGET_AVX512 static inline __m512 name(__m512 row[GROUP])                                     \
    {                                                                                              \
        _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++) row[i] =                               \
            HALVE(combine, _mm512_shuffle_f32x4, row[i], row[i + 8]);                              \
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) row[i] =                               \
            HALVE(combine, _mm512_shuffle_f32x4, row[i], row[i + 4]);                              \
        row[0] = HALVE(combine, _mm512_shuffle_ps, row[0], row[2]);                                \
        row[1] = HALVE(combine, _mm512_shuffle_ps, row[1], row[3]);                                \
        return _mm512_permutexvar_ps(                                                              \
            _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15),               \
            HALVE(combine, _mm512_shuffle_ps, row[0], row[1]));                                    \
    }

REDUCE_ROWS(maximum_of_rows, _mm512_max_ps)
REDUCE_ROWS(sum_of_rows, _mm512_add_ps)

/* Keys [32 i, 32 i + 32) that the row sees. */
static inline __mmask32 seen_pair(int i, const struct ls_leaf_keys *seen)
{
    return (__mmask32)ls_leaf_keys_bits(seen, 32 * i, 32);
}

/* Keys [16 j, 16 j + 16) that the row sees. */
static inline __mmask16 seen_mask(int j, const struct ls_leaf_keys *seen)
{
    return (__mmask16)ls_leaf_keys_bits(seen, 16 * j, 16);
}

#endif
