/* What the fast rows of gradient_products share, in AVX-512 with queries in lanes: which keys a
 * row sees, probabilities and gradients of scores. */
#ifndef LS_CPU_GRADIENT_AVX512_H
#define LS_CPU_GRADIENT_AVX512_H

#include "cpu/gradient/products.h"
#include "cpu/softmax_avx512.h"

/* A tile's numbers as vectors want them. */
struct tile_lanes {
    float delta[LS_LEAF]; /* times scale */
    int32_t prefix[LS_LEAF], from[LS_LEAF], to[LS_LEAF];
    const float *lse;
    float scale, factor; /* of dp; of scores, log2(e) folded in */
    float keep;          /* what dropout multiplies by what it keeps; 1 without */
    bool full;           /* every row sees every key: prefix, from and to are not set */
} __attribute__((aligned(64)));

enum sight { SEES_NOTHING, SEES_SOME, SEES_ALL };

static inline void lanes_of_tile(struct tile_lanes *lanes, const struct gradient_tile *tile)
{
    lanes->lse = tile->lse;
    lanes->factor = (float)((double)tile->scale * 1.44269504088896340736);
    lanes->keep = tile->kept ? 1 / (1 - tile->scores->dropout) : 1;
    lanes->scale = tile->scale * lanes->keep;
    lanes->full = !tile->visible && tile->key_count == LS_LEAF;
    for (int r = 0; r < LS_LEAF; r++) lanes->delta[r] = tile->delta[r] * tile->scale;
    if (lanes->full) return;
    for (int r = 0; r < LS_LEAF; r++) {
        struct ls_leaf_keys seen = {.to = (int16_t)(r < tile->rows ? tile->key_count : 0)};

        if (tile->visible && r < tile->rows) seen = tile->visible[r];
        lanes->prefix[r] = seen.prefix;
        lanes->from[r] = seen.from;
        lanes->to[r] = seen.to;
    }
}

static inline struct ls_leaf_keys keys_of_query(const struct tile_lanes *lanes, int query)
{
    return (struct ls_leaf_keys){.prefix = (int16_t)lanes->prefix[query],
                                 .from = (int16_t)lanes->from[query],
                                 .to = (int16_t)lanes->to[query]};
}

/* How much of keys [key, key + keys) queries [query, query + queries) see, sixteen at a time. */
TARGET_AVX512 static inline enum sight block_sight(const struct tile_lanes *lanes, int key,
                                                   int keys, int query, int queries)
{
    const __m512i first = _mm512_set1_epi32(key), end = _mm512_set1_epi32(key + keys);
    __mmask16 all = 0xffff, some = 0;

    if (lanes->full) return SEES_ALL;
    for (int r = query; r < query + queries; r += 16) {
        const __m512i prefix = _mm512_load_si512(lanes->prefix + r);
        const __m512i from = _mm512_load_si512(lanes->from + r);
        const __m512i to = _mm512_load_si512(lanes->to + r);

        all &= _mm512_cmple_epi32_mask(end, prefix) |
               (_mm512_cmple_epi32_mask(from, first) & _mm512_cmple_epi32_mask(end, to));
        some |= _mm512_cmplt_epi32_mask(first, prefix) |
                (_mm512_cmplt_epi32_mask(from, _mm512_min_epi32(end, to)) &
                 _mm512_cmplt_epi32_mask(first, to));
    }
    return all == 0xffff ? SEES_ALL : some ? SEES_SOME : SEES_NOTHING;
}

/* Of sixteen queries, those that see this key. */
TARGET_AVX512 static inline __mmask16 lanes_that_see(const struct tile_lanes *lanes, int key,
                                                     int query)
{
    const __m512i at = _mm512_set1_epi32(key);

    return _mm512_cmplt_epi32_mask(at, _mm512_load_si512(lanes->prefix + query)) |
           (_mm512_cmple_epi32_mask(_mm512_load_si512(lanes->from + query), at) &
            _mm512_cmplt_epi32_mask(at, _mm512_load_si512(lanes->to + query)));
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
