#include "plan/attention_size.h"

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

static int64_t leaves_of(int64_t n)
{
    return n > 0 ? (n + LS_LEAF - 1) / LS_LEAF : 0;
}

/* first, first + 1, ... added up, n of them, each brought to [least, most]. Exact below 2^64. */
static long double sum_clamped(int64_t first, int64_t n, int64_t least, int64_t most)
{
    const int64_t low = clamp(least - first, 0, n), high = clamp(most - first, low, n);
    const long double rising = (long double)(high - low);

    return (long double)low * (long double)least + rising * (long double)(first + low) +
           rising * (rising - 1) / 2 + (long double)(n - high) * (long double)most;
}

/* ---- pairs */

/* Of the band, between these queries and keys: where the keys that a query sees begin and end rises
 * by one from query to query, within limits. */
static long double band_pairs(const struct ls_band *band, struct ls_range queries,
                              struct ls_range keys)
{
    const int64_t from = larger(band->q_from, queries.from), to = smaller(band->q_to, queries.to);
    const int64_t least = larger(band->k_from, keys.from), most = smaller(band->k_to, keys.to);

    if (from >= to || least >= most) return 0;
    return sum_clamped(from + band->high + 1, to - from, least, most) -
           sum_clamped(from + band->low, to - from, least, most);
}

static double bits_between(const struct ls_mask *mask, struct ls_range queries,
                           struct ls_range keys)
{
    double pairs = 0;

    for (int64_t i = queries.from; i < queries.to; i++)
        pairs += (double)ls_mask_count(mask, i, keys.from, keys.to - keys.from);
    return pairs;
}

static double pairs_between(const struct ls_mask *mask, struct ls_range queries,
                            struct ls_range keys)
{
    const struct ls_bands near = ls_mask_bands(mask, queries.from, queries.to);
    long double pairs = 0;

    if (mask->bits.first_row) return bits_between(mask, queries, keys);
    for (const struct ls_band *band = near.from; band < near.to; band++)
        pairs += band_pairs(band, queries, keys);
    return (double)pairs;
}

static double pairs_of_queries(const struct ls_mask *mask, struct ls_range queries)
{
    return pairs_between(mask, queries, (struct ls_range){0, mask->s_k});
}

static double pairs_of_keys(const struct ls_mask *mask, struct ls_range keys)
{
    return pairs_between(mask, (struct ls_range){0, mask->s_q}, keys);
}

/* Of all queries. */
static double mask_pairs(const struct ls_mask *mask)
{
    return pairs_of_queries(mask, (struct ls_range){0, mask->s_q});
}

double ls_visible_pairs(const struct ls_masks *masks)
{
    double pairs = 0;

    for (int64_t m = 0; m < ls_masks_count(masks); m++) pairs += mask_pairs(&masks->mask[m]);
    return pairs / (double)ls_masks_count(masks);
}

/* ---- pairs of ranks */

/* Leaves of a part from the i-th on that follow each other in the sequence. */
static int64_t run_length(const struct ls_layout *layout, int rank, int64_t i)
{
    const int64_t first = ls_layout_part_leaf(layout, rank, i) - i;
    int64_t in = i, out = ls_layout_part_leaves(layout, rank); /* the run's end is between them */

    if (layout->kind == LS_LAYOUT_STRIPED && layout->p > 1) return 1;
    if (ls_layout_part_leaf(layout, rank, out - 1) - (out - 1) == first) return out - i;
    while (out - in > 1) {
        const int64_t middle = in + (out - in) / 2;

        if (ls_layout_part_leaf(layout, rank, middle) - middle == first)
            in = middle;
        else
            out = middle;
    }
    return out - i;
}

typedef double (*pair_count)(const struct ls_mask *mask, struct ls_range rows);

static double part_pairs(const struct ls_layout *layout, int rank, const struct ls_masks *masks,
                         pair_count count)
{
    const int64_t leaves = ls_layout_part_leaves(layout, rank);
    double pairs = 0;

    for (int64_t i = 0, run; i < leaves; i += run) {
        const int64_t begin = ls_layout_part_leaf(layout, rank, i) * LS_LEAF;

        run = run_length(layout, rank, i);
        for (int64_t m = 0; m < ls_masks_count(masks); m++)
            pairs += count(&masks->mask[m],
                           (struct ls_range){begin, smaller(begin + run * LS_LEAF, layout->s)});
    }
    return pairs / (double)ls_masks_count(masks);
}

/* Stripes of so many leaves are as even as makes no difference, and too many to count. */
#define MOST_STRIPES (1 << 22)

static double most_pairs(const struct ls_layout *layout, const struct ls_masks *masks,
                         pair_count count)
{
    double most = 0;

    if (layout->kind == LS_LAYOUT_STRIPED && ls_layout_leaves(layout) > MOST_STRIPES)
        return ls_visible_pairs(masks) / layout->p;
    for (int r = 0; r < layout->p; r++) {
        const double pairs = part_pairs(layout, r, masks, count);
        if (pairs > most) most = pairs;
    }
    return most;
}

double ls_most_pairs_of_queries(const struct ls_layout *queries, const struct ls_masks *masks)
{
    return most_pairs(queries, masks, pairs_of_queries);
}

double ls_most_pairs_of_keys(const struct ls_layout *keys, const struct ls_masks *masks)
{
    return most_pairs(keys, masks, pairs_of_keys);
}

/* ---- tiles */

/* Leaves of keys that one of queries [first, first + rows) sees. */
static int64_t leaves_seen(const struct ls_mask *mask, int64_t first, int64_t rows)
{
    struct ls_range run = ls_mask_leaves(mask, first, rows, 0);
    int64_t leaves = 0;

    for (; run.from < run.to; run = ls_mask_leaves(mask, first, rows, run.to))
        leaves += run.to - run.from;
    return leaves;
}

void ls_leaf_work(int64_t *work, int64_t leaves, const struct ls_masks *masks)
{
    for (int64_t i = 0; i < leaves; i++) {
        work[i] = 0;
        for (int64_t m = 0; m < ls_masks_count(masks); m++)
            work[i] += leaves_seen(&masks->mask[m], i * LS_LEAF, LS_LEAF);
    }
}

static int64_t leaf_before(int64_t position)
{
    return position >= 0 ? position / LS_LEAF : -((LS_LEAF - 1 - position) / LS_LEAF);
}

/* leaves_seen of the first n whole leaves added up, of one band of all queries and keys: the leaves
 * where the keys seen begin and end rise by one from leaf to leaf. */
static int64_t leaves_seen_by(int64_t n, const struct ls_band *band)
{
    const int64_t all = leaves_of(band->k_to), first = leaf_before(band->low);
    const int64_t last = leaf_before(band->high + 1 + 2 * (LS_LEAF - 1));
    const long double seen = sum_clamped(last, n, 0, all) - sum_clamped(first, n, 0, all);
    /* query leaf whose keys begin behind the last one, yet in the same leaf as that */
    const int64_t blind = all - 1 - first;
    const bool past = blind >= 0 && blind < n && band->low + blind * LS_LEAF >= band->k_to;

    return (int64_t)seen - past;
}

static int64_t count_leaves_seen(int64_t n, const struct ls_mask *mask)
{
    const struct ls_bands bands = ls_mask_bands(mask, 0, mask->s_q);
    const struct ls_band *band = bands.from;
    const bool whole = bands.to - band == 1 && !mask->bits.first_row && band->q_from == 0 &&
                       band->q_to >= n * LS_LEAF && band->k_from == 0 && band->k_to == mask->s_k;
    int64_t seen = 0;

    if (whole) return leaves_seen_by(n, band);
    for (int64_t leaf = 0; leaf < n; leaf++) seen += leaves_seen(mask, leaf * LS_LEAF, LS_LEAF);
    return seen;
}

/* Of `group` heads that are in tiles together. */
static int64_t mask_tiles(const struct ls_attention_shape *shape, const struct ls_mask *mask,
                          int64_t group)
{
    const int64_t whole = shape->s_q / LS_LEAF;
    const int64_t rest = shape->s_q % LS_LEAF;
    int64_t tiles = group * count_leaves_seen(whole, mask);

    if (rest > 0) tiles += leaves_of(group * rest) * leaves_seen(mask, whole * LS_LEAF, rest);
    return tiles;
}

int64_t ls_attention_tiles(const struct ls_attention_shape *shape, const struct ls_masks *masks,
                           int64_t first_head)
{
    const bool alike = masks->heads == 1;
    const int64_t group = alike ? shape->h / shape->h_kv : 1, heads = alike ? 1 : shape->h;
    int64_t tiles = 0;

    for (int64_t entry = 0; entry < masks->entries; entry++)
        for (int64_t head = 0; head < heads; head++)
            tiles += mask_tiles(shape, ls_masks_of(masks, entry, first_head + head), group);
    return shape->b / masks->entries * (shape->h / group / heads) * tiles;
}

/* ---- operations and bytes */

double ls_pair_flops(const struct ls_attention_shape *shape)
{
    return 2.0 * (double)(shape->d + ls_value_dim(shape)) * (double)(shape->b * shape->h);
}

double ls_backward_work(const struct ls_attention_shape *shape)
{
    const double d = (double)shape->d, d_v = (double)ls_value_dim(shape);

    return (3 * d + 2 * d_v) / (d + d_v);
}

static size_t row_bytes(const struct ls_attention_shape *shape, int64_t rows, int64_t d)
{
    return (size_t)shape->b * (size_t)rows * (size_t)shape->h_kv * (size_t)d *
           (size_t)ls_dtype_size(ls_key_type(shape));
}

size_t ls_key_bytes(const struct ls_attention_shape *shape, int64_t rows)
{
    return row_bytes(shape, rows, ls_key_width(shape));
}

size_t ls_value_bytes(const struct ls_attention_shape *shape, int64_t rows)
{
    return row_bytes(shape, rows, ls_value_width(shape));
}

size_t ls_key_value_bytes(const struct ls_attention_shape *shape, int64_t rows)
{
    return ls_key_bytes(shape, rows) + ls_value_bytes(shape, rows);
}

size_t ls_row_state_bytes(const struct ls_attention_shape *shape, int64_t rows)
{
    return (size_t)shape->b * (size_t)shape->h * (size_t)rows * (size_t)(ls_value_dim(shape) + 2) *
           sizeof(float);
}

ls_layout_kind ls_layout_for_rings(bool causal, int p)
{
    return causal && p > 1 ? LS_LAYOUT_ZIGZAG : LS_LAYOUT_CONTIGUOUS;
}

int64_t ls_layout_most_rows(const struct ls_layout *layout)
{
    int64_t most = 0;

    for (int r = 0; r < layout->p; r++) {
        const int64_t rows = ls_layout_part_rows(layout, r);
        if (rows > most) most = rows;
    }
    return most;
}

int64_t ls_layout_most_leaves(const struct ls_layout *layout)
{
    return (ls_layout_most_rows(layout) + LS_LEAF - 1) / LS_LEAF;
}
