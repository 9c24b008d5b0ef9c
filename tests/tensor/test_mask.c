/* Unions of bands, with and without bits of pairs, against a table of all their pairs. */
#include <criterion/criterion.h>
#include <string.h>

#include "masks.h"

enum { MOST = 800, BEHIND = 3 }; /* queries and keys that are asked about and are not there */

/* A mask and, from the definition of bands, each of its pairs; below it, how many are above and
 * left of it. */
static struct table {
    struct ls_mask mask;
    struct ls_band room[MOST_BANDS];
    uint8_t bits[(MOST + 1) * (MOST / 8 + 1)];
    uint64_t seed;
    bool sees[MOST + BEHIND][MOST + BEHIND];
    int32_t before[MOST + BEHIND + 1][MOST + BEHIND + 1];
} table;

static void fill_band(const struct ls_band *band)
{
    for (int64_t i = band->q_from; i < band->q_to; i++)
        for (int64_t j = band->k_from; j < band->k_to; j++) {
            if (j - i < band->low || j - i > band->high) continue;
            cr_assert(!table.sees[i][j], "seed %ld: two bands share a pair", (long)table.seed);
            table.sees[i][j] = ls_pair_bits_have(&table.mask.bits, i, j);
        }
}

static void draw_table(int64_t s_q, int64_t s_k, uint64_t seed)
{
    memset(table.sees, 0, sizeof table.sees);
    table.seed = seed;
    table.mask = draw_bands(table.room, s_q, s_k, seed);
    if (seed % 3 == 2) table.mask.bits = draw_pairs(table.bits, s_q, s_k, seed);
    for (int64_t b = 0; b < table.mask.count; b++) fill_band(&table.room[b]);
    for (int64_t i = 0; i < s_q + BEHIND; i++)
        for (int64_t j = 0; j < s_k + BEHIND; j++)
            table.before[i + 1][j + 1] = table.sees[i][j] + table.before[i][j + 1] +
                                         table.before[i + 1][j] - table.before[i][j];
}

/* Pairs of queries [first, end) with keys [key, to). */
static int64_t pairs(int64_t first, int64_t end, int64_t key, int64_t to)
{
    const int64_t s_k = table.mask.s_k + BEHIND, last = to < s_k ? to : s_k;

    if (key >= last) return 0;
    return table.before[end][last] - table.before[first][last] - table.before[end][key] +
           table.before[first][key];
}

/* Tables of three leaves and more, or of a few queries and keys. */
static void each_table(int n, int64_t most, void (*test)(struct draws *draws))
{
    for (int i = 0; i < n; i++) {
        struct draws draws = {(uint64_t)i, 1000};

        draw_table(draw_below(&draws, most + 1), draw_below(&draws, most + 1), (uint64_t)i);
        test(&draws);
    }
}

static void check_pairs(struct draws *draws)
{
    (void)draws;
    for (int64_t i = 0; i < table.mask.s_q + BEHIND; i++)
        for (int64_t j = 0; j < table.mask.s_k + BEHIND; j++)
            cr_assert_eq(ls_mask_sees(&table.mask, i, j), table.sees[i][j], "seed %ld: %ld, %ld",
                         (long)table.seed, (long)i, (long)j);
}

Test(mask, a_query_sees_what_is_in_a_band)
{
    each_table(20, MOST, check_pairs);
    each_table(200, 12, check_pairs);
}

static void check_rectangle(int64_t first, int64_t end, int64_t key, int64_t to)
{
    const int64_t n = pairs(first, end, key, to);

    cr_assert_eq(ls_mask_meets(&table.mask, first, end - first, key, to - key), n > 0,
                 "seed %ld: [%ld, %ld) x [%ld, %ld)", (long)table.seed, (long)first, (long)end,
                 (long)key, (long)to);
    if (end - first != 1) return;
    cr_assert_eq(ls_mask_count(&table.mask, first, key, to - key), n, "seed %ld: %ld x [%ld, %ld)",
                 (long)table.seed, (long)first, (long)key, (long)to);
}

static void check_all_rectangles(struct draws *draws)
{
    const int64_t s_q = table.mask.s_q + BEHIND, s_k = table.mask.s_k + BEHIND;

    (void)draws;
    for (int64_t first = 0; first < s_q; first++)
        for (int64_t end = first + 1; end <= s_q; end++)
            for (int64_t key = 0; key < s_k; key++)
                for (int64_t to = key + 1; to <= s_k; to++) check_rectangle(first, end, key, to);
}

static void check_some_rectangles(struct draws *draws)
{
    for (int i = 0; i < 500; i++) {
        const int64_t first = draw_below(draws, table.mask.s_q + BEHIND);
        const int64_t key = draw_below(draws, table.mask.s_k + BEHIND);
        const int64_t rows = draw_below(draws, table.mask.s_q + BEHIND - first);

        check_rectangle(first, first + (i % 2 ? rows : 0) + 1, key,
                        key + 1 + draw_below(draws, table.mask.s_k + BEHIND - key));
    }
}

Test(mask, pairs_of_queries_and_keys_are_found_and_counted)
{
    each_table(100, 8, check_all_rectangles);
    each_table(40, MOST, check_some_rectangles);
}

/* Whether the band has a pair of one of these queries with key j. */
static bool band_has(const struct ls_band *band, int64_t first, int64_t end, int64_t j)
{
    for (int64_t i = first; i < end; i++)
        if (i >= band->q_from && i < band->q_to && j >= band->k_from && j < band->k_to &&
            j - i >= band->low && j - i <= band->high)
            return true;
    return false;
}

static void check_bands(int64_t first, int64_t end)
{
    const struct ls_bands near = ls_mask_bands(&table.mask, first, end);

    for (const struct ls_band *band = table.room; band < table.room + table.mask.count; band++) {
        const struct ls_range keys = ls_band_keys(band, first, end);
        bool any = false;

        for (int64_t j = 0; j < table.mask.s_k + BEHIND; j++) {
            const bool has = band_has(band, first, end, j);

            any |= has;
            cr_assert_eq(has, j >= keys.from && j < keys.to, "seed %ld: [%ld, %ld), key %ld",
                         (long)table.seed, (long)first, (long)end, (long)j);
        }
        cr_assert(!any || (band >= near.from && band < near.to),
                  "seed %ld: band %ld is missing for [%ld, %ld)", (long)table.seed,
                  (long)(band - table.room), (long)first, (long)end);
    }
}

static void check_all_bands(struct draws *draws)
{
    (void)draws;
    for (int64_t first = 0; first < table.mask.s_q + BEHIND; first++)
        for (int64_t end = first; end <= table.mask.s_q + BEHIND; end++) check_bands(first, end);
}

Test(mask, the_bands_of_queries_and_their_keys_are_known)
{
    each_table(200, 12, check_all_bands);
}

/* ---- leaves */

static bool leaf_is_seen(int64_t first, int64_t end, int64_t leaf)
{
    return pairs(first, end, leaf * LS_LEAF, (leaf + 1) * LS_LEAF) > 0;
}

static void check_run(int64_t first, int64_t end, int64_t leaf)
{
    const struct ls_range run = ls_mask_leaves(&table.mask, first, end - first, leaf);
    const int64_t leaves = (table.mask.s_k + LS_LEAF - 1) / LS_LEAF;
    int64_t from = leaf;

    while (from < leaves && !leaf_is_seen(first, end, from)) from++;
    int64_t to = from;
    while (to < leaves && leaf_is_seen(first, end, to)) to++;
    if (from == to)
        cr_assert_eq(run.from, run.to);
    else
        cr_assert(run.from == from && run.to == to,
                  "seed %ld: [%ld, %ld) from leaf %ld: [%ld, %ld), not [%ld, %ld)",
                  (long)table.seed, (long)first, (long)end, (long)leaf, (long)run.from,
                  (long)run.to, (long)from, (long)to);
}

static void check_runs(struct draws *draws)
{
    for (int i = 0; i < 100; i++) {
        const int64_t first = draw_below(draws, table.mask.s_q + BEHIND);
        const int64_t most = table.mask.s_q + BEHIND - first;
        const int64_t rows = i % 2 && most > 3 ? draw_below(draws, 4) : draw_below(draws, most);

        for (int64_t leaf = 0; leaf < 5; leaf++) check_run(first, first + rows, leaf);
    }
}

Test(mask, runs_of_leaves_are_all_that_is_seen_and_as_long_as_they_go)
{
    each_table(100, MOST, check_runs);
}

/* How often a leaf was full, and how often by more than one band. */
static int full, joined;

static bool is_in_one_band(int64_t first, int64_t end, int64_t key, int64_t to)
{
    for (int64_t b = 0; b < table.mask.count; b++) {
        bool all = true;

        for (int64_t i = first; i < end && all; i++)
            for (int64_t j = key; j < to && all; j++) all = band_has(&table.room[b], i, i + 1, j);
        if (all) return true;
    }
    return false;
}

static void check_leaf(int64_t first, int rows, int64_t leaf)
{
    static struct ls_leaf_keys out[LS_LEAF];
    const int64_t key = leaf * LS_LEAF, end = first + rows;
    const bool all = pairs(first, end, key, key + LS_LEAF) == (int64_t)rows * LS_LEAF;

    memset(out, 0x5a, sizeof out);
    cr_assert_eq(ls_mask_leaf(out, &table.mask, first, rows, leaf), all,
                 "seed %ld: [%ld, %ld), leaf %ld", (long)table.seed, (long)first, (long)end,
                 (long)leaf);
    full += all;
    joined += all && !is_in_one_band(first, end, key, key + LS_LEAF);
    for (int r = 0; r < rows && !all; r++)
        for (int64_t j = 0; j < LS_LEAF; j++)
            cr_assert_eq(ls_leaf_keys_have(&out[r], (int)j),
                         key + j < table.mask.s_k && table.sees[first + r][key + j],
                         "seed %ld: row %ld, key %ld", (long)table.seed, (long)first + r,
                         (long)(key + j));
}

static void check_leaves(struct draws *draws)
{
    for (int64_t first = 0; first < table.mask.s_q; first += LS_LEAF)
        for (int64_t leaf = 0; leaf * LS_LEAF < table.mask.s_k; leaf++) {
            const int64_t left = table.mask.s_q - first;
            const int rows = left < LS_LEAF ? (int)left : LS_LEAF;

            check_leaf(first, rows, leaf);
            check_leaf(first + draw_below(draws, rows), 1, leaf);
        }
}

Test(mask, a_leaf_has_the_bits_of_its_pairs_and_is_full_if_it_has_all)
{
    each_table(150, MOST, check_leaves);
    cr_assert(full > joined && joined > 3, "%d full, %d by several bands", full, joined);
}
