/* Work and memory from shape and mask alone, against loops that count. */
#include <criterion/criterion.h>

#include "../tensor/masks.h"
#include "base/random.h"
#include "plan/attention_size.h"
#include "tensor/dealing.h"
#include "tensor/layout.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

/* ---- masks of every kind */

enum { RULES = 12, MASKS = 17, MAX_DOCUMENTS = 40, MOST = 1700 };

static int64_t draw(uint64_t seed, uint32_t stream, int64_t below)
{
    return (int64_t)ls_random_below(seed, stream, 0, (uint64_t)below);
}

/* What a mask refers to. */
struct room {
    int64_t documents[MAX_DOCUMENTS + 1];
    struct ls_band bands[MOST_BANDS];
    uint8_t bits[MOST * (MOST / 8 + 1)];
};

/* Full, causal, windows on one side or both, with and without prefix, offset or documents, some of
 * which are empty. */
static struct ls_mask_rule draw_rule(int64_t *documents, int number, int64_t s_q, int64_t s_k,
                                     uint64_t seed)
{
    struct ls_mask_rule rule = number % 2 ? causal_rule(s_q, s_k) : ls_mask_rule_full(s_q, s_k);
    const int64_t reach = s_q + s_k + 1;

    if (number % 6 >= 2) rule.left = draw(seed, 0, number % 3 ? 1 + reach / 4 : reach);
    if (number % 6 == 4) rule.right = draw(seed, 1, 1 + reach / 3);
    if (number % 6 >= 4) rule.prefix = draw(seed, 2, s_k + 1);
    if (number % 6 == 3 || number % 6 == 4) rule.shift = draw(seed, 3, reach) - s_q;
    if (number < 6) return rule;
    rule.documents = documents;
    rule.document_count = 1 + draw(seed, 4, MAX_DOCUMENTS);
    documents[0] = 0;
    for (int64_t i = 1; i < rule.document_count; i++)
        documents[i] =
            documents[i - 1] + draw(seed, 5 + (uint32_t)i, 1 + (s_k - documents[i - 1]) / 3);
    documents[rule.document_count] = s_k;
    return rule;
}

/* By a rule, or bands that none makes, the last ones with bits. */
static struct ls_mask draw_mask(struct room *room, int number, int64_t s_q, int64_t s_k,
                                uint64_t seed)
{
    if (number >= RULES) {
        struct ls_mask mask = draw_bands(room->bands, s_q, s_k, seed);

        if (number >= MASKS - 2) mask.bits = draw_pairs(room->bits, s_q, s_k, seed);
        return mask;
    }
    const struct ls_mask_rule rule = draw_rule(room->documents, number, s_q, s_k, seed);

    return mask_by(&rule, room->bands);
}

static double count_pairs(const struct ls_mask *mask)
{
    double pairs = 0;

    for (int64_t i = 0; i < mask->s_q; i++) pairs += (double)ls_mask_count(mask, i, 0, mask->s_k);
    return pairs;
}

Test(attention_size, visible_pairs_are_counted)
{
    static struct room room;

    for (int64_t s_q = 0; s_q <= 24; s_q++) {
        for (int64_t s_k = 0; s_k <= 24; s_k++) {
            for (int number = 0; number < 3 * MASKS; number++) {
                const struct ls_mask mask =
                    draw_mask(&room, number % MASKS, s_q, s_k, (uint64_t)number);

                cr_expect_eq(ls_visible_pairs(ALONE(&mask)), count_pairs(&mask),
                             "%ld x %ld, mask %d: %g, not %g", (long)s_q, (long)s_k, number,
                             ls_visible_pairs(ALONE(&mask)), count_pairs(&mask));
            }
        }
    }
}

/* Leaves of keys that rows [begin, end) see. */
static int64_t leaves_seen(const struct ls_mask *mask, int64_t begin, int64_t end)
{
    int64_t seen = 0;

    for (int64_t start = 0; start < mask->s_k; start += LS_LEAF) {
        const int64_t left = mask->s_k - start, keys = left < LS_LEAF ? left : LS_LEAF;
        bool visible = false;

        for (int64_t i = begin; i < end; i++) visible |= ls_mask_count(mask, i, start, keys) > 0;
        seen += visible;
    }
    return seen;
}

static int64_t count_tiles(const struct ls_attention_shape *s, const struct ls_mask *mask)
{
    int64_t tiles = 0;

    for (int64_t begin = 0; begin < s->s_q; begin += LS_LEAF) {
        const int64_t end = begin + LS_LEAF < s->s_q ? begin + LS_LEAF : s->s_q;
        const int64_t seen = leaves_seen(mask, begin, end);

        for (int64_t row = 0; row < s->h / s->h_kv * (end - begin); row += LS_LEAF) tiles += seen;
    }
    return s->b * s->h_kv * tiles;
}

Test(attention_size, tiles_are_counted)
{
    static const int64_t lengths[] = {0, 1, 100, 255, 256, 257, 511, 513, 600, 768, 1100};
    static const struct {
        int64_t b, h, h_kv;
    } heads[] = {{1, 1, 1}, {2, 6, 2}, {1, 5, 1}};
    static struct room room;

    for (int i = 0; i < LENGTH(lengths) * LENGTH(lengths) * 2 * MASKS; i++) {
        const int pair = i / (2 * MASKS), number = i % MASKS, head = i % LENGTH(heads);
        const struct ls_attention_shape s = {.b = heads[head].b,
                                             .h = heads[head].h,
                                             .h_kv = heads[head].h_kv,
                                             .s_q = lengths[pair / LENGTH(lengths)],
                                             .s_k = lengths[pair % LENGTH(lengths)],
                                             .d = 64};
        const struct ls_mask mask = draw_mask(&room, number, s.s_q, s.s_k, (uint64_t)i);

        cr_expect_eq(ls_attention_tiles(&s, ALONE(&mask), 0), count_tiles(&s, &mask),
                     "h %ld/%ld s %ld x %ld mask %d: %ld, not %ld", (long)s.h, (long)s.h_kv,
                     (long)s.s_q, (long)s.s_k, number,
                     (long)ls_attention_tiles(&s, ALONE(&mask), 0), (long)count_tiles(&s, &mask));
    }
}

Test(attention_size, work_of_a_leaf_is_the_leaves_that_it_sees)
{
    static struct room room;
    int64_t work[6];

    for (int number = 0; number < 4 * MASKS; number++) {
        const int64_t s_q = 1400 - number, s_k = number % 8 ? 1300 + number : 100;
        const struct ls_mask mask = draw_mask(&room, number % MASKS, s_q, s_k, (uint64_t)number);

        ls_leaf_work(work, 6, ALONE(&mask));
        for (int64_t leaf = 0; leaf < 6; leaf++) {
            const int64_t end = (leaf + 1) * LS_LEAF < s_q ? (leaf + 1) * LS_LEAF : s_q;

            cr_expect_eq(work[leaf], leaves_seen(&mask, leaf * LS_LEAF, end), "mask %d leaf %ld",
                         number, (long)leaf);
        }
    }
}

/* A billion and more of positions: no loop over them, no narrow product. */
Test(attention_size, huge_sizes_are_exact, .timeout = 5)
{
    const int64_t s = INT64_C(1) << 36, leaves = s / LS_LEAF;
    const struct ls_attention_shape shape = {1, 8, 2, s, s, 128, LS_BF16, 0};
    const struct ls_mask full = full_mask(s, s), causal = causal_mask(s, s);
    struct ls_mask window = causal;

    window.one.low = -1023;
    cr_expect_eq(ls_attention_tiles(&shape, ALONE(&full), 0), 8 * leaves * leaves);
    cr_expect_eq(ls_attention_tiles(&shape, ALONE(&causal), 0), 8 * (leaves * (leaves + 1) / 2));
    cr_expect_eq(ls_attention_tiles(&shape, ALONE(&window), 0), 8 * (5 * leaves - 4 - 3 - 2 - 1));
    cr_expect_eq(ls_visible_pairs(ALONE(&full)), 0x1p72);
    cr_expect_float_eq(ls_visible_pairs(ALONE(&causal)) / 0x1p71, 1, 1e-9);
    cr_expect_eq(ls_visible_pairs(ALONE(&window)), 0x1p46 - 1024 * 1023 / 2);
    for (int kind = LS_LAYOUT_CONTIGUOUS; kind <= LS_LAYOUT_STRIPED; kind++) {
        const struct ls_layout layout = {.kind = (ls_layout_kind)kind, .s = s, .p = 3};

        cr_expect_float_eq(ls_most_pairs_of_keys(&layout, ALONE(&full)) / 0x1p72, 1 / 3.0, 1e-6);
        cr_expect_float_eq(ls_most_pairs_of_queries(&layout, ALONE(&causal)) / 0x1p71,
                           kind == LS_LAYOUT_CONTIGUOUS ? 5 / 9.0 : 1 / 3.0, 1e-6);
    }
    cr_expect_eq(ls_key_value_bytes(&shape, s), (size_t)2 * 2 * 128 * 2 << 36);
    cr_expect_eq(ls_row_state_bytes(&shape, s), (size_t)8 * 130 * 4 << 36);
}

Test(attention_size, bytes_of_small_shapes)
{
    struct ls_attention_shape s = {2, 6, 3, 10, 20, 5, LS_F16, 0};

    cr_expect_eq(ls_key_value_bytes(&s, 20), 2 * 2 * 20 * 3 * 5 * 2);
    cr_expect_eq(ls_key_value_bytes(&s, 0), 0);
    cr_expect_eq(ls_row_state_bytes(&s, 10), 2 * 6 * 10 * (5 + 2) * 4);
    cr_expect_eq(ls_pair_flops(&s), 4 * 5 * 2 * 6);
    cr_expect_eq(ls_backward_work(&s), 2.5, "five products instead of two");
    s.d_v = 7;
    cr_expect_eq(ls_key_bytes(&s, 20), 2 * 20 * 3 * 5 * 2);
    cr_expect_eq(ls_value_bytes(&s, 20), 2 * 20 * 3 * 7 * 2);
    cr_expect_eq(ls_key_value_bytes(&s, 20), 2 * 20 * 3 * (5 + 7) * 2);
    cr_expect_eq(ls_row_state_bytes(&s, 10), 2 * 6 * 10 * (7 + 2) * 4);
    cr_expect_eq(ls_pair_flops(&s), 2 * (5 + 7) * 2 * 6);
    cr_expect_eq(ls_backward_work(&s), 29.0 / 12, "two products are 7 wide");
}

/* Pairs of the rank with most, where it takes its own queries or its own keys. */
static double count_most_pairs(const struct ls_layout *layout, const struct ls_mask *mask,
                               bool keys)
{
    double most = 0;

    for (int r = 0; r < layout->p; r++) {
        double pairs = 0;

        for (int64_t row = 0; row < ls_layout_part_rows(layout, r); row++) {
            const int64_t at = ls_layout_position(layout, r, row);

            if (!keys) pairs += (double)ls_mask_count(mask, at, 0, mask->s_k);
            for (int64_t i = 0; keys && i < mask->s_q; i++) pairs += ls_mask_sees(mask, i, at);
        }
        if (pairs > most) most = pairs;
    }
    return most;
}

Test(attention_size, the_largest_share_of_pairs_is_found)
{
    static const int64_t lengths[] = {0, 1, 40, 257, 1100, 1700};
    static const int64_t work[] = {5, 1, 1, 3, 0, 2, 9};
    static struct room room;

    for (int i = 0; i < LENGTH(lengths) * LENGTH(lengths) * 4 * MASKS; i++) {
        const bool keys = i / MASKS % 2;
        const int64_t s = lengths[i / (4 * MASKS) % LENGTH(lengths)];
        const int64_t other = lengths[i / (4 * MASKS) / LENGTH(lengths)];
        const struct ls_mask mask =
            draw_mask(&room, i % MASKS, keys ? other : s, keys ? s : other, (uint64_t)i);
        struct ls_layout layout = {
            .kind = LS_LAYOUT_CONTIGUOUS + (i / MASKS + i) % 4, .s = s, .p = 1 + i % 5};
        struct ls_dealing *dealing;

        cr_assert_eq(ls_dealing_create(&dealing, work, ls_layout_leaves(&layout), layout.p), LS_OK);
        layout.dealing = dealing;
        const double exact = count_most_pairs(&layout, &mask, keys);
        const double found = keys ? ls_most_pairs_of_keys(&layout, ALONE(&mask))
                                  : ls_most_pairs_of_queries(&layout, ALONE(&mask));

        cr_expect_eq(found, exact, "%s, %s of %ld, %ld, mask %d, p %d: %g, not %g",
                     ls_layout_name(layout.kind), keys ? "keys" : "queries", (long)s, (long)other,
                     i % MASKS, layout.p, found, exact);
        ls_dealing_destroy(dealing);
    }
}

/* Packed documents of random length over 8 ranks: tiles of the busiest over the mean. */
Test(attention_size, balanced_documents_are_even)
{
    enum { S = 65536, P = 8 };
    static int64_t documents[S + 1], work[S / LS_LEAF];
    static struct ls_band bands[S];

    for (uint64_t seed = 0; seed < 20; seed++) {
        struct ls_mask_rule rule = seed % 2 ? causal_rule(S, S) : ls_mask_rule_full(S, S);
        int64_t most = 0, all = 0, n = 0;
        struct ls_dealing *dealing;

        while (documents[n] < S) {
            const int64_t end = documents[n] + 1 + draw(seed, (uint32_t)n, 8192);

            documents[++n] = end < S ? end : S;
        }
        rule.documents = documents;
        rule.document_count = n;
        const struct ls_mask mask = ls_mask_rule_apply(&rule, bands);
        ls_leaf_work(work, S / LS_LEAF, ALONE(&mask));
        cr_assert_eq(ls_dealing_create(&dealing, work, S / LS_LEAF, P), LS_OK);
        for (int r = 0; r < P; r++) {
            int64_t tiles = 0;

            for (int64_t i = dealing->first[r]; i < dealing->first[r + 1]; i++)
                tiles += work[dealing->leaf[i]];
            all += tiles;
            if (tiles > most) most = tiles;
        }
        cr_expect_leq((double)most, 1.05 * (double)all / P, "seed %d: %ld tiles of %ld", (int)seed,
                      (long)most, (long)all);
        ls_dealing_destroy(dealing);
    }
}

Test(attention_size, most_rows_and_leaves_of_a_layout)
{
    static const int64_t lengths[] = {0, 1, 255, 256, 257, 3001, 4096, 10000};

    for (int i = 0; i < LENGTH(lengths) * 3 * 8; i++) {
        const struct ls_layout layout = {
            .kind = LS_LAYOUT_CONTIGUOUS + i % 3, .s = lengths[i / 24], .p = 1 + i / 3 % 8};
        int64_t rows = 0, leaves = 0;

        for (int r = 0; r < layout.p; r++) {
            const int64_t here = ls_layout_part_rows(&layout, r);
            const int64_t leaves_here = ls_layout_part_leaves(&layout, r);

            if (here > rows) rows = here;
            if (leaves_here > leaves) leaves = leaves_here;
        }
        cr_expect_eq(ls_layout_most_rows(&layout), rows, "%s s %ld p %d",
                     ls_layout_name(layout.kind), (long)layout.s, layout.p);
        cr_expect_eq(ls_layout_most_leaves(&layout), leaves, "%s s %ld p %d",
                     ls_layout_name(layout.kind), (long)layout.s, layout.p);
    }
}
