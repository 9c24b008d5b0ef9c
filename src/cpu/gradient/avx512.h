/* What the fast rows of gradient_products share, in AVX-512: how much of a block is seen, and
 * probabilities. */
#ifndef LS_CPU_GRADIENT_AVX512_H
#define LS_CPU_GRADIENT_AVX512_H

#include "cpu/gradient/products.h"
#include "cpu/softmax_avx512.h"

/* A tile's numbers as vectors want them. */
struct tile_lanes {
    float delta[LS_LEAF]; /* times scale */
    const float *lse;
    float scale, factor; /* of dp; of scores, log2(e) folded in */
    float keep;          /* what dropout multiplies by what it keeps; 1 without */
} __attribute__((aligned(64)));

enum sight { SEES_NOTHING, SEES_SOME, SEES_ALL };

static inline void lanes_of_tile(struct tile_lanes *lanes, const struct gradient_tile *tile)
{
    lanes->lse = tile->lse;
    lanes->factor = (float)((double)tile->scale * 1.44269504088896340736);
    lanes->keep = tile->kept ? 1 / (1 - tile->scores->dropout) : 1;
    lanes->scale = tile->scale * lanes->keep;
    for (int r = 0; r < LS_LEAF; r++) lanes->delta[r] = tile->delta[r] * tile->scale;
}

/* A tile's keys for sixteen queries at a time: of 32 keys each, a word for each query. */
struct lane_keys {
    uint32_t word[LS_LEAF / 32][LS_LEAF];
} __attribute__((aligned(64)));

/* Of keys [LS_LEAF] of queries. */
static inline void lane_keys(struct lane_keys *out, const struct ls_leaf_keys *keys)
{
    for (int i = 0; i < LS_LEAF / 32; i++)
        for (int r = 0; r < LS_LEAF; r++)
            out->word[i][r] = (uint32_t)ls_leaf_keys_bits(&keys[r], 32 * i, 32);
}

/* Of sixteen queries, those that have this key. */
TARGET_AVX512 static inline __mmask16 lanes_with(const struct lane_keys *keys, int key, int query)
{
    return _mm512_test_epi32_mask(_mm512_load_si512(keys->word[key / 32] + query),
                                  _mm512_set1_epi32((int)(UINT32_C(1) << key % 32)));
}

/* How much 32 queries see of 32 keys. */
TARGET_AVX512 static inline enum sight lanes_sight(const struct lane_keys *keys, int key, int query)
{
    const __m512i a = _mm512_load_si512(keys->word[key / 32] + query);
    const __m512i b = _mm512_load_si512(keys->word[key / 32] + query + 16);
    const __m512i all = _mm512_and_si512(a, b), some = _mm512_or_si512(a, b);

    if (_mm512_cmpeq_epi32_mask(all, _mm512_set1_epi32(-1)) == 0xffff) return SEES_ALL;
    return _mm512_test_epi32_mask(some, some) ? SEES_SOME : SEES_NOTHING;
}

/* p of sixteen scores; +0 where not seen, and below 2^-126. */
TARGET_AVX512 static inline __m512 probability_512(__m512 score, __m512 factor, __m512 lse,
                                                   __mmask16 seen, const float *coefficient,
                                                   int degree)
{
    const __m512 x = _mm512_fmsub_ps(score, factor, lse);
    const __mmask16 present =
        _mm512_mask_cmp_ps_mask(seen, x, _mm512_set1_ps(EXP2_LOWEST), _CMP_NLT_UQ);

    return _mm512_maskz_mov_ps(present, exp2_512(x, coefficient, degree));
}

/* A tile's `ahead`, in as many shares as the tile has parts. */
struct ahead {
    const char *at, *end;
    int lines; /* of a share; the last ones may have fewer */
};

static inline struct ahead ahead_of_tile(const struct gradient_tile *tile, int parts)
{
    const size_t share = (size_t)parts * 64;

    if (!tile->ahead) return (struct ahead){0};
    return (struct ahead){.at = tile->ahead,
                          .end = tile->ahead + tile->ahead_bytes,
                          .lines = (int)((tile->ahead_bytes + share - 1) / share)};
}

static inline void bring_nearer(struct ahead *ahead)
{
    for (int i = 0; i < ahead->lines && ahead->at < ahead->end; i++, ahead->at += 64)
        _mm_prefetch(ahead->at, _MM_HINT_T1);
}

#endif
