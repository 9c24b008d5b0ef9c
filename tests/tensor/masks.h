/* Masks for tests. */
#ifndef TESTS_TENSOR_MASKS_H
#define TESTS_TENSOR_MASKS_H

#include <assert.h>
#include <string.h>

#include "base/random.h"
#include "tensor/mask_rule.h"

enum { MOST_BANDS = 128 };

static inline struct ls_mask_rule causal_rule(int64_t s_q, int64_t s_k)
{
    struct ls_mask_rule rule = ls_mask_rule_full(s_q, s_k);

    rule.right = 0;
    return rule;
}

static inline struct ls_mask full_mask(int64_t s_q, int64_t s_k)
{
    const struct ls_mask_rule rule = ls_mask_rule_full(s_q, s_k);

    return ls_mask_rule_apply(&rule, NULL);
}

static inline struct ls_mask causal_mask(int64_t s_q, int64_t s_k)
{
    const struct ls_mask_rule rule = causal_rule(s_q, s_k);

    return ls_mask_rule_apply(&rule, NULL);
}

/* The same mask for all entries. */
#define ALONE(mask) (&(struct ls_masks){(mask), 1, 1, 0})

/* room [MOST_BANDS] is borrowed for the mask's life. */
static inline struct ls_mask mask_by(const struct ls_mask_rule *rule, struct ls_band *room)
{
    assert(ls_mask_rule_room(rule) <= MOST_BANDS);
    return ls_mask_rule_apply(rule, room);
}

/* ---- bands that no rule makes */

/* Random numbers, each drawn once. */
struct draws {
    uint64_t seed;
    uint32_t next;
};

static inline int64_t draw_below(struct draws *draws, int64_t n)
{
    return (int64_t)ls_random_below(draws->seed, draws->next++, 0, (uint64_t)n);
}

/* Cuts [0, n) into four parts, some of which may be empty. */
static inline void draw_cuts(int64_t cut[5], struct draws *draws, int64_t n)
{
    cut[0] = 0;
    cut[4] = n;
    for (int i = 1; i < 4; i++) cut[i] = draw_below(draws, n + 1);
    for (int i = 1; i < 4; i++)
        for (int j = 1; j < 3; j++)
            if (cut[j] > cut[j + 1]) {
                const int64_t larger = cut[j];

                cut[j] = cut[j + 1];
                cut[j + 1] = larger;
            }
}

/* What is seen of a rectangle, in up to two bands: nothing, all, a window, or what is on both sides
 * of a diagonal. */
static inline int draw_rectangle(struct ls_band out[2], struct draws *draws, struct ls_band whole)
{
    const int64_t first = whole.k_from - whole.q_to + 1, last = whole.k_to - 1 - whole.q_from;
    const int64_t way = draw_below(draws, 4);

    if (way == 0 || first > last) return 0;
    out[0] = out[1] = whole;
    if (way == 1) return 1;
    const int64_t middle = first + draw_below(draws, last - first + 1);
    out[0].high = middle;
    out[1].low = middle + 1;
    if (way == 2) return 2;
    out[0].low = middle - draw_below(draws, last - first + 1);
    return 1;
}

/* Adds band by band as they begin, whatever their order here. */
static inline void add_in_order(struct ls_mask *mask, struct ls_band *band, int n)
{
    for (int left = n; left > 0; left--) {
        int first = 0;

        for (int i = 1; i < left; i++)
            if (band[i].q_from < band[first].q_from) first = i;
        ls_mask_add(mask, band[first]);
        band[first] = band[left - 1];
    }
}

static inline uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Bytes of s_q rows of bits. */
static inline size_t pair_bytes(int64_t s_q, int64_t s_k)
{
    return (size_t)s_q * (size_t)((s_k + 7) / 8);
}

/* Of blocks of 300 queries by 300 keys some are full, some empty, some half full at random; bits
 * behind the last key are set. room [pair_bytes] is borrowed. */
static inline struct ls_pair_bits draw_pairs(uint8_t *room, int64_t s_q, int64_t s_k, uint64_t seed)
{
    const struct ls_pair_bits bits = {.first_row = room, .rows = s_q, .row_bytes = (s_k + 7) / 8};

    memset(room, 0, pair_bytes(s_q, s_k));
    for (int64_t i = 0; i < s_q; i++)
        for (int64_t j = 0; j < s_k; j++) {
            const uint64_t block = mixed(mixed(seed + 1) + (uint64_t)(i / 300 * 1000 + j / 300));
            const uint64_t pair = mixed(block + 1 + (uint64_t)(i * s_k + j));

            if (block % 3 == 0 || (block % 3 == 1 && pair % 2))
                room[i * bits.row_bytes + j / 8] |= (uint8_t)(1 << j % 8);
        }
    for (int64_t i = 0; i < s_q && s_k % 8 != 0; i++)
        room[i * bits.row_bytes + s_k / 8] |= (uint8_t)(0xff << s_k % 8);
    return bits;
}

/* Keys in four parts, of each of which queries in four parts see something else. room [MOST_BANDS]
 * is borrowed for the mask's life. */
static inline struct ls_mask draw_bands(struct ls_band *room, int64_t s_q, int64_t s_k,
                                        uint64_t seed)
{
    struct ls_mask mask = {.s_q = s_q, .s_k = s_k, .shift = s_k - s_q, .band = room};
    struct draws draws = {seed, 0};
    struct ls_band drawn[32];
    int64_t keys[5], queries[5];
    int n = 0;

    draw_cuts(keys, &draws, s_k);
    for (int k = 0; k < 4; k++) {
        draw_cuts(queries, &draws, s_q);
        for (int q = 0; q < 4; q++)
            n += draw_rectangle(drawn + n, &draws,
                                (struct ls_band){.q_from = queries[q],
                                                 .q_to = queries[q + 1],
                                                 .k_from = keys[k],
                                                 .k_to = keys[k + 1],
                                                 .low = -LS_FAR,
                                                 .high = LS_FAR});
    }
    add_in_order(&mask, drawn, n);
    return mask;
}

#endif
