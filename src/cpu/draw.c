#include "cpu/draw.h"

#include <string.h>

static void draw_generic(uint8_t kept[LS_PHILOX_KEYS], const struct drawing *d, uint64_t row,
                         uint64_t block)
{
    uint32_t word[LS_PHILOX_KEYS];

    ls_philox_dropout(word, d->seed, d->kind, d->stream, row, block);
    for (int j = 0; j < LS_PHILOX_KEYS; j++) kept[j] = word[j] >= d->least;
}

#if defined(__x86_64__)

#include <immintrin.h>

/* A word of the counter has 64 bits to itself, of which the upper half may be anything: products
 * take the lower one, and give both halves of what the next round needs. Compilers, which are told
 * of words of 32 bits, move halves about for longer than they multiply. */
#define ROUNDS 10

/* The last word of the counter but for the block's share, as ls_dropout_counter has it. */
static uint64_t last_word(const struct drawing *d, uint64_t row)
{
    uint32_t counter[4];

    ls_dropout_counter(counter, d->kind, 0, row, 0);
    return counter[3];
}

#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define LANES_AVX512 8
#define VECTORS_AVX512 4 /* at once, so that one's products need not wait for another's */

TARGET_AVX512 static inline void rounds_avx512(__m512i c[4][VECTORS_AVX512], uint64_t seed)
{
    const __m512i multiplier_0 = _mm512_set1_epi64((int64_t)LS_PHILOX_MULTIPLIER_0);
    const __m512i multiplier_1 = _mm512_set1_epi64((int64_t)LS_PHILOX_MULTIPLIER_1);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int round = 0; round < ROUNDS; round++, k0 += LS_PHILOX_WEYL_0, k1 += LS_PHILOX_WEYL_1) {
        const __m512i key_0 = _mm512_set1_epi64(k0), key_1 = _mm512_set1_epi64(k1);

#pragma GCC unroll 4
        for (int i = 0; i < VECTORS_AVX512; i++) {
            const __m512i product_0 = _mm512_mul_epu32(multiplier_0, c[0][i]);
            const __m512i product_1 = _mm512_mul_epu32(multiplier_1, c[2][i]);

            c[0][i] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product_1, 32), c[1][i], key_0,
                                                0x96); /* a ^ b ^ c */
            c[1][i] = product_1;
            c[2][i] =
                _mm512_ternarylogic_epi64(_mm512_srli_epi64(product_0, 32), c[3][i], key_1, 0x96);
            c[3][i] = product_0;
        }
    }
}

TARGET_AVX512 static void draw_avx512(uint8_t kept[LS_PHILOX_KEYS], const struct drawing *d,
                                      uint64_t row, uint64_t block)
{
    const __m512i last = _mm512_set1_epi64((int64_t)last_word(d, row));
    const __m512i least = _mm512_set1_epi64(d->least), low = _mm512_set1_epi64(0xffffffff);
    __m512i c[4][VECTORS_AVX512];

    for (int i = 0; i < VECTORS_AVX512; i++) {
        const __m512i at = _mm512_add_epi64(_mm512_set1_epi64((int64_t)block + i * LANES_AVX512),
                                            _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));

        c[0][i] = at;
        c[1][i] = _mm512_set1_epi64((int64_t)row);
        c[2][i] = _mm512_set1_epi64(d->stream);
        c[3][i] = _mm512_or_si512(last, _mm512_slli_epi64(_mm512_srli_epi64(at, 32), 2));
    }
    rounds_avx512(c, d->seed);
    for (int i = 0; i < VECTORS_AVX512; i++) {
        __m512i bytes = _mm512_setzero_si512();

        for (int word = 0; word < 4; word++) {
            const __mmask8 keeps =
                _mm512_cmpge_epu64_mask(_mm512_and_si512(c[word][i], low), least);

            bytes = _mm512_mask_or_epi64(bytes, keeps, bytes, _mm512_set1_epi64(1 << 8 * word));
        }
        _mm256_storeu_si256((void *)(kept + 4 * LANES_AVX512 * i), _mm512_cvtepi64_epi32(bytes));
    }
}

#define TARGET_AVX2 __attribute__((target("avx2")))
#define LANES_AVX2 4
#define VECTORS_AVX2 2 /* of which 16 registers hold no more */

TARGET_AVX2 static inline void rounds_avx2(__m256i c[4][VECTORS_AVX2], uint64_t seed)
{
    const __m256i multiplier_0 = _mm256_set1_epi64x((int64_t)LS_PHILOX_MULTIPLIER_0);
    const __m256i multiplier_1 = _mm256_set1_epi64x((int64_t)LS_PHILOX_MULTIPLIER_1);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int round = 0; round < ROUNDS; round++, k0 += LS_PHILOX_WEYL_0, k1 += LS_PHILOX_WEYL_1) {
        const __m256i key_0 = _mm256_set1_epi64x(k0), key_1 = _mm256_set1_epi64x(k1);

#pragma GCC unroll 2
        for (int i = 0; i < VECTORS_AVX2; i++) {
            const __m256i product_0 = _mm256_mul_epu32(multiplier_0, c[0][i]);
            const __m256i product_1 = _mm256_mul_epu32(multiplier_1, c[2][i]);

            c[0][i] = _mm256_xor_si256(_mm256_srli_epi64(product_1, 32),
                                       _mm256_xor_si256(c[1][i], key_0));
            c[1][i] = product_1;
            c[2][i] = _mm256_xor_si256(_mm256_srli_epi64(product_0, 32),
                                       _mm256_xor_si256(c[3][i], key_1));
            c[3][i] = product_0;
        }
    }
}

/* Of as many columns as fit into registers. */
TARGET_AVX2 static inline void draw_few_avx2(uint8_t *kept, const struct drawing *d, uint64_t row,
                                             uint64_t block)
{
    const __m256i last = _mm256_set1_epi64x((int64_t)last_word(d, row));
    /* without a sign, numbers compare as those with one do after their first bit is turned */
    const __m256i turn = _mm256_set1_epi32(INT32_MIN);
    const __m256i least = _mm256_xor_si256(_mm256_set1_epi32((int32_t)d->least), turn);
    __m256i c[4][VECTORS_AVX2];

    for (int i = 0; i < VECTORS_AVX2; i++) {
        const __m256i at = _mm256_add_epi64(_mm256_set1_epi64x((int64_t)block + i * LANES_AVX2),
                                            _mm256_setr_epi64x(0, 1, 2, 3));

        c[0][i] = at;
        c[1][i] = _mm256_set1_epi64x((int64_t)row);
        c[2][i] = _mm256_set1_epi64x(d->stream);
        c[3][i] = _mm256_or_si256(last, _mm256_slli_epi64(_mm256_srli_epi64(at, 32), 2));
    }
    rounds_avx2(c, d->seed);
    for (int i = 0; i < VECTORS_AVX2; i++) {
        __m256i bytes = _mm256_setzero_si256();

        for (int word = 0; word < 4; word++) {
            const __m256i drops = _mm256_cmpgt_epi32(least, _mm256_xor_si256(c[word][i], turn));

            bytes = _mm256_or_si256(bytes,
                                    _mm256_andnot_si256(drops, _mm256_set1_epi64x(1 << 8 * word)));
        }
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0));
        _mm_storeu_si128((void *)(kept + 4 * LANES_AVX2 * i), _mm256_castsi256_si128(bytes));
    }
}

TARGET_AVX2 static void draw_avx2(uint8_t kept[LS_PHILOX_KEYS], const struct drawing *d,
                                  uint64_t row, uint64_t block)
{
    enum { FEW = 4 * LANES_AVX2 * VECTORS_AVX2 };

    for (int j = 0; j < LS_PHILOX_KEYS; j += FEW)
        draw_few_avx2(kept + j, d, row, block + (uint64_t)j / 4);
}

#endif

struct drawing drawing_of(const struct ls_dropout *dropout, enum ls_random_kind kind, ls_isa isa)
{
    struct drawing d = {kind, dropout->seed, dropout->stream, ls_dropout_least_word(dropout),
                        draw_generic};

#if defined(__x86_64__)
    if (isa >= LS_ISA_AVX2) d.some = draw_avx2;
    if (isa >= LS_ISA_AVX512) d.some = draw_avx512;
#else
    (void)isa;
#endif
    return d;
}

void draw(uint8_t *mask, const struct drawing *d, int64_t row, int64_t column, int n)
{
    uint8_t kept[LS_PHILOX_KEYS];

    for (; n >= LS_PHILOX_KEYS; n -= LS_PHILOX_KEYS, mask += LS_PHILOX_KEYS) {
        d->some(mask, d, (uint64_t)row, (uint64_t)column / 4);
        column += LS_PHILOX_KEYS;
    }
    if (n == 0) return;
    d->some(kept, d, (uint64_t)row, (uint64_t)column / 4);
    memcpy(mask, kept, (size_t)n);
}
