#include "tensor/mask.h"

#include <assert.h>
#include <string.h>

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- bands */

static const struct ls_band *bands(const struct ls_mask *mask)
{
    return mask->band ? mask->band : &mask->one;
}

void ls_mask_add(struct ls_mask *mask, struct ls_band band)
{
    struct ls_band *to = mask->band ? mask->band + mask->count : &mask->one;

    if (band.q_from >= band.q_to || band.k_from >= band.k_to) return;
    assert(mask->count == 0 || (mask->band && to[-1].q_from <= band.q_from));
    *to = band;
    to->reach = mask->count > 0 ? larger(to[-1].reach, band.q_to) : band.q_to;
    mask->count++;
}

bool ls_band_both(struct ls_band *out, const struct ls_band *a, const struct ls_band *b)
{
    const struct ls_band both = {.q_from = larger(a->q_from, b->q_from),
                                 .q_to = smaller(a->q_to, b->q_to),
                                 .k_from = larger(a->k_from, b->k_from),
                                 .k_to = smaller(a->k_to, b->k_to),
                                 .low = larger(a->low, b->low),
                                 .high = smaller(a->high, b->high),
                                 .shift = a->shift};

    *out = both;
    /* every distance from one corner of a rectangle to the other is that of a pair */
    return both.q_from < both.q_to && both.k_from < both.k_to &&
           larger(both.low, both.k_from - (both.q_to - 1)) <=
               smaller(both.high, both.k_to - 1 - both.q_from);
}

void ls_band_first(int64_t *i, int64_t *j, const struct ls_band *band)
{
    *i = larger(band->q_from, band->k_from - band->high);
    *j = larger(band->k_from, *i + band->low);
}

/* The first band that reaches beyond query `first`; those before it end earlier. */
static int64_t first_band(const struct ls_mask *mask, int64_t first)
{
    int64_t low = 0, high = mask->count;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2;

        if (bands(mask)[middle].reach > first)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The first band, from `low` on, that begins with query `end` or behind it. */
static int64_t end_band(const struct ls_mask *mask, int64_t low, int64_t end)
{
    int64_t high = mask->count;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2;

        if (bands(mask)[middle].q_from < end)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct ls_bands ls_mask_bands(const struct ls_mask *mask, int64_t first, int64_t end)
{
    const int64_t from = first_band(mask, first);

    return (struct ls_bands){bands(mask) + from, bands(mask) + end_band(mask, from, end)};
}

struct ls_range ls_band_keys(const struct ls_band *band, int64_t first, int64_t end)
{
    /* a query that sees any: its window begins before k_to and ends behind k_from */
    const int64_t from = larger(larger(band->q_from, first), band->k_from - band->high);
    const int64_t to = smaller(smaller(band->q_to, end), band->k_to - band->low);

    if (from >= to) return (struct ls_range){0, 0};
    return (struct ls_range){.from = larger(band->k_from, from + band->low),
                             .to = smaller(band->k_to, to + band->high)};
}

int64_t ls_mask_place(const struct ls_mask *mask, int64_t i)
{
    const struct ls_bands near = ls_mask_bands(mask, i, i + 1);

    for (const struct ls_band *band = near.from; band < near.to; band++)
        if (band->q_from <= i && i < band->q_to) return i + band->shift;
    return i + mask->shift;
}

/* ---- pairs */

int64_t ls_mask_count(const struct ls_mask *mask, int64_t i, int64_t first, int64_t keys)
{
    const struct ls_bands near = ls_mask_bands(mask, i, i + 1);
    int64_t count = 0;

    for (const struct ls_band *band = near.from; band < near.to; band++) {
        const struct ls_range seen = ls_band_keys(band, i, i + 1);
        const int64_t from = larger(seen.from, first), to = smaller(seen.to, first + keys);

        if (from < to) count += ls_pair_bits_count(&mask->bits, i, from, to);
    }
    return count;
}

bool ls_mask_sees(const struct ls_mask *mask, int64_t i, int64_t j)
{
    const struct ls_bands near = ls_mask_bands(mask, i, i + 1);

    for (const struct ls_band *band = near.from; band < near.to; band++)
        if (ls_band_has(band, i, j)) return ls_pair_bits_have(&mask->bits, i, j);
    return false;
}

/* Whether one of queries [first, end) sees one of keys [key, key_end) in the band and by the bits.
 */
static bool some_bit(const struct ls_mask *mask, const struct ls_band *band, int64_t first,
                     int64_t end, int64_t key, int64_t key_end)
{
    for (int64_t i = larger(first, band->q_from); i < smaller(end, band->q_to); i++) {
        const struct ls_range seen = ls_band_keys(band, i, i + 1);
        const int64_t from = larger(seen.from, key), to = smaller(seen.to, key_end);

        if (from < to && ls_pair_bits_next(&mask->bits, i, from, to, true) < to) return true;
    }
    return false;
}

/* Whether one of queries [first, end) sees one of keys [key, key_end) in the band. */
static bool band_meets(const struct ls_band *band, int64_t first, int64_t end, int64_t key,
                       int64_t key_end)
{
    const struct ls_range seen = ls_band_keys(band, first, end);

    return seen.from < seen.to && seen.from < key_end && key < seen.to;
}

bool ls_mask_meets(const struct ls_mask *mask, int64_t first, int64_t rows, int64_t key,
                   int64_t keys)
{
    const struct ls_bands near = ls_mask_bands(mask, first, first + rows);

    for (const struct ls_band *band = near.from; band < near.to; band++) {
        if (!band_meets(band, first, first + rows, key, key + keys)) continue;
        if (!mask->bits.first_row) return true;
        if (ls_pair_bits_may_meet(&mask->bits, first, rows, key, keys) &&
            some_bit(mask, band, first, first + rows, key, key + keys))
            return true;
    }
    return false;
}

/* ---- leaves */

/* Of leaves from `leaf` on, those in which the band has keys for the queries. */
static struct ls_range band_leaves(const struct ls_band *band, int64_t first, int64_t end,
                                   int64_t leaf)
{
    const struct ls_range keys = ls_band_keys(band, first, end);
    const struct ls_range leaves = {larger(keys.from / LS_LEAF, leaf),
                                    (keys.to + LS_LEAF - 1) / LS_LEAF};

    return leaves.from < leaves.to ? leaves : (struct ls_range){0, 0};
}

/* The next run of leaves in which a band has keys. */
static struct ls_range leaves_of_bands(const struct ls_mask *mask, int64_t first, int64_t rows,
                                       int64_t leaf)
{
    const struct ls_bands near = ls_mask_bands(mask, first, first + rows);
    struct ls_range run = {INT64_MAX, INT64_MAX};
    int64_t before;

    for (const struct ls_band *band = near.from; band < near.to; band++) {
        const struct ls_range leaves = band_leaves(band, first, first + rows, leaf);

        if (leaves.from < leaves.to && leaves.from < run.from) run = leaves;
    }
    do {
        before = run.to;
        for (const struct ls_band *band = near.from; band < near.to; band++) {
            const struct ls_range leaves = band_leaves(band, first, first + rows, leaf);

            if (leaves.from <= run.to) run.to = larger(run.to, leaves.to);
        }
    } while (run.to > before);
    return run;
}

static bool meets_leaf(const struct ls_mask *mask, int64_t first, int64_t rows, int64_t leaf)
{
    return ls_mask_meets(mask, first, rows, leaf * LS_LEAF, LS_LEAF);
}

struct ls_range ls_mask_leaves(const struct ls_mask *mask, int64_t first, int64_t rows,
                               int64_t leaf)
{
    struct ls_range run = leaves_of_bands(mask, first, rows, leaf);

    if (!mask->bits.first_row) return run;
    for (; run.from < run.to; run = leaves_of_bands(mask, first, rows, run.to)) {
        int64_t from = run.from, to;

        while (from < run.to && !meets_leaf(mask, first, rows, from)) from++;
        for (to = from; to < run.to && meets_leaf(mask, first, rows, to);) to++;
        if (from < to) return (struct ls_range){from, to};
    }
    return run;
}

/* Whether each of the queries sees each key of the leaf that begins with this key, in this band
 * alone. */
static bool covers(const struct ls_band *band, int64_t first, int64_t end, int64_t key)
{
    return band->q_from <= first && end <= band->q_to && band->k_from <= key &&
           key + LS_LEAF <= band->k_to && band->low <= key - (end - 1) &&
           key + LS_LEAF - 1 - first <= band->high;
}

static void add_keys(struct ls_leaf_keys *out, const struct ls_band *band, int64_t first,
                     int64_t end, int64_t key)
{
    const int64_t from = larger(band->q_from, first), to = smaller(band->q_to, end);

    for (int64_t i = from; i < to; i++) {
        const struct ls_leaf_keys run =
            ls_leaf_keys_run(larger(band->k_from, i + band->low) - key,
                             smaller(band->k_to, i + band->high + 1) - key);

        for (int w = 0; w < LS_LEAF_WORDS; w++) out[i - first].word[w] |= run.word[w];
    }
}

/* Whether one band has all of the leaf for all of the queries. */
static bool are_covered(const struct ls_mask *mask, int64_t first, int rows, int64_t leaf)
{
    const struct ls_bands near = ls_mask_bands(mask, first, first + rows);

    for (const struct ls_band *band = near.from; band < near.to; band++)
        if (covers(band, first, first + rows, leaf * LS_LEAF)) return true;
    return false;
}

static void add_bands(struct ls_leaf_keys *out, const struct ls_mask *mask, int64_t first, int rows,
                      int64_t leaf)
{
    const struct ls_bands near = ls_mask_bands(mask, first, first + rows);

    memset(out, 0, (size_t)rows * sizeof *out);
    for (const struct ls_band *band = near.from; band < near.to; band++)
        if (band_meets(band, first, first + rows, leaf * LS_LEAF, (leaf + 1) * LS_LEAF))
            add_keys(out, band, first, first + rows, leaf * LS_LEAF);
}

static void keep_common(struct ls_leaf_keys *keys, const struct ls_leaf_keys *others)
{
    for (int w = 0; w < LS_LEAF_WORDS; w++) keys->word[w] &= others->word[w];
}

bool ls_mask_leaf(struct ls_leaf_keys *out, const struct ls_mask *mask, int64_t first, int rows,
                  int64_t leaf)
{
    const bool covered = are_covered(mask, first, rows, leaf), all = !mask->bits.first_row;
    struct ls_leaf_keys common = ls_leaf_keys_first[LS_LEAF];

    if (covered && all) return true;
    if (!covered) add_bands(out, mask, first, rows, leaf);
    for (int r = 0; r < rows; r++) {
        if (covered) out[r] = ls_leaf_keys_first[LS_LEAF];
        if (!all) {
            const struct ls_leaf_keys bits = ls_pair_bits_leaf(&mask->bits, first + r, leaf);
            keep_common(&out[r], &bits);
        }
        keep_common(&common, &out[r]);
    }
    return ls_leaf_keys_are_all(&common);
}
