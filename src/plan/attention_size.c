#include "plan/attention_size.h"

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

static int64_t leaves_of(int64_t n)
{
    return n > 0 ? (n + LS_LEAF - 1) / LS_LEAF : 0;
}

/* ---- where the keys seen begin and end: both rise by one from query to query, within limits */

#define FAR ((int64_t)1 << 62)

/* Query i sees keys [i + before, i + behind), as far as document and prefix allow. */
static int64_t before(const struct ls_mask *mask)
{
    return mask->left == INT64_MAX ? -FAR : mask->shift - mask->left;
}

static int64_t behind(const struct ls_mask *mask)
{
    return mask->right == INT64_MAX ? FAR : mask->shift + mask->right + 1;
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

struct range {
    int64_t from, to;
};

static struct range common(struct range a, struct range b)
{
    const struct range both = {a.from > b.from ? a.from : b.from, smaller(a.to, b.to)};

    return both.to > both.from ? both : (struct range){both.from, both.from};
}

/* Keys of the document at the position that query i has, or would have if there were so many; none
 * if it stands beside all of them. */
static struct range document_of(const struct ls_mask *mask, int64_t i)
{
    struct ls_mask open = *mask;

    open.s_q = INT64_MAX;
    open.left = open.right = INT64_MAX;
    open.prefix = 0;
    const struct ls_visible all = ls_mask_row(&open, i);

    return (struct range){all.from, all.to};
}

/* The first query that stands in another document than query i, at most `end`. */
static int64_t next_document(const struct ls_mask *mask, int64_t i, int64_t end)
{
    const struct range document = document_of(mask, i);

    if (!mask->documents || i + mask->shift >= mask->s_k) return end;
    return smaller(i + mask->shift < 0 ? -mask->shift : document.to - mask->shift, end);
}

/* Pairs of queries that share a document, beyond the prefix. */
static long double document_pairs(const struct ls_mask *mask, struct range queries,
                                  struct range keys)
{
    const struct range document = document_of(mask, queries.from);
    const int64_t least = clamp(clamp(document.from, mask->prefix, mask->s_k), keys.from, keys.to);
    const int64_t most = clamp(clamp(document.to, mask->prefix, mask->s_k), keys.from, keys.to);
    const int64_t n = queries.to - queries.from;

    return sum_clamped(queries.from + behind(mask), n, least, most) -
           sum_clamped(queries.from + before(mask), n, least, most);
}

/* Queries that can see one of these keys beyond the prefix. */
static struct range queries_near(const struct ls_mask *mask, struct range keys)
{
    const struct range all = {0, mask->s_q};

    if (!mask->documents || keys.to == keys.from) return all;
    const struct range near = {document_of(mask, keys.from - mask->shift).from - mask->shift,
                               document_of(mask, keys.to - 1 - mask->shift).to - mask->shift};

    return common(all, near);
}

static double pairs_between(const struct ls_mask *mask, struct range queries, struct range keys)
{
    const struct range prefix = common((struct range){0, mask->prefix}, keys);
    const struct range near = common(queries, queries_near(mask, keys));
    long double pairs = (long double)(queries.to - queries.from) * (prefix.to - prefix.from);

    for (int64_t i = near.from, end; i < near.to; i = end) {
        end = next_document(mask, i, near.to);
        pairs += document_pairs(mask, (struct range){i, end}, keys);
    }
    return (double)pairs;
}

static double pairs_of_queries(const struct ls_mask *mask, struct range queries)
{
    return pairs_between(mask, queries, (struct range){0, mask->s_k});
}

static double pairs_of_keys(const struct ls_mask *mask, struct range keys)
{
    return pairs_between(mask, (struct range){0, mask->s_q}, keys);
}

double ls_visible_pairs(const struct ls_mask *mask)
{
    return pairs_of_queries(mask, (struct range){0, mask->s_q});
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

typedef double (*pair_count)(const struct ls_mask *mask, struct range rows);

static double part_pairs(const struct ls_layout *layout, int rank, const struct ls_mask *mask,
                         pair_count count)
{
    const int64_t leaves = ls_layout_part_leaves(layout, rank);
    double pairs = 0;

    for (int64_t i = 0, run; i < leaves; i += run) {
        const int64_t begin = ls_layout_part_leaf(layout, rank, i) * LS_LEAF;

        run = run_length(layout, rank, i);
        pairs += count(mask, (struct range){begin, smaller(begin + run * LS_LEAF, layout->s)});
    }
    return pairs;
}

/* Stripes of so many leaves are as even as makes no difference, and too many to count. */
#define MOST_STRIPES (1 << 22)

static double most_pairs(const struct ls_layout *layout, const struct ls_mask *mask,
                         pair_count count)
{
    double most = 0;

    if (layout->kind == LS_LAYOUT_STRIPED && ls_layout_leaves(layout) > MOST_STRIPES)
        return ls_visible_pairs(mask) / layout->p;
    for (int r = 0; r < layout->p; r++) {
        const double pairs = part_pairs(layout, r, mask, count);
        if (pairs > most) most = pairs;
    }
    return most;
}

double ls_most_pairs_of_queries(const struct ls_layout *queries, const struct ls_mask *mask)
{
    return most_pairs(queries, mask, pairs_of_queries);
}

double ls_most_pairs_of_keys(const struct ls_layout *keys, const struct ls_mask *mask)
{
    return most_pairs(keys, mask, pairs_of_keys);
}

/* ---- tiles */

/* Leaves of keys that one of queries [first, first + rows) sees. */
static int64_t leaves_seen(const struct ls_mask *mask, int64_t first, int64_t rows)
{
    const struct ls_visible seen = ls_mask_rows(mask, first, rows);
    const int64_t prefix = leaves_of(seen.prefix);
    const int64_t from = seen.from / LS_LEAF > prefix ? seen.from / LS_LEAF : prefix;

    return prefix + (seen.to > seen.from ? leaves_of(seen.to) - from : 0);
}

void ls_leaf_work(int64_t *work, const struct ls_mask *mask)
{
    for (int64_t first = 0; first < mask->s_q; first += LS_LEAF)
        work[first / LS_LEAF] = leaves_seen(mask, first, smaller(LS_LEAF, mask->s_q - first));
}

static int64_t leaf_before(int64_t position)
{
    return position >= 0 ? position / LS_LEAF : -((LS_LEAF - 1 - position) / LS_LEAF);
}

/* leaves_seen of the first n whole leaves added up, without documents: the leaves where the keys
 * seen begin and end rise by one from leaf to leaf. */
static int64_t leaves_seen_by(int64_t n, const struct ls_mask *mask)
{
    const int64_t prefix = leaves_of(mask->prefix), all = leaves_of(mask->s_k);
    const int64_t first = leaf_before(before(mask));
    const int64_t last = leaf_before(behind(mask) + 2 * (LS_LEAF - 1));
    const long double seen = sum_clamped(last, n, prefix, all) - sum_clamped(first, n, prefix, all);
    /* query leaf whose keys begin behind the last one, yet in the same leaf as that */
    const int64_t blind = all - 1 - first;
    const bool past =
        prefix < all && blind >= 0 && blind < n && before(mask) + blind * LS_LEAF >= mask->s_k;

    return n * prefix + (int64_t)seen - past;
}

static int64_t count_leaves_seen(int64_t n, const struct ls_mask *mask)
{
    int64_t seen = 0;

    if (!mask->documents) return leaves_seen_by(n, mask);
    for (int64_t leaf = 0; leaf < n; leaf++) seen += leaves_seen(mask, leaf * LS_LEAF, LS_LEAF);
    return seen;
}

int64_t ls_attention_tiles(const struct ls_attention_shape *shape, const struct ls_mask *mask)
{
    const int64_t group = shape->h / shape->h_kv, whole = shape->s_q / LS_LEAF;
    const int64_t rest = shape->s_q % LS_LEAF;
    int64_t tiles = group * count_leaves_seen(whole, mask);

    if (rest > 0) tiles += leaves_of(group * rest) * leaves_seen(mask, whole * LS_LEAF, rest);
    return shape->b * shape->h_kv * tiles;
}

/* ---- bytes */

size_t ls_key_value_bytes(const struct ls_attention_shape *shape, int64_t rows)
{
    return 2 * (size_t)shape->b * (size_t)rows * (size_t)shape->h_kv * (size_t)shape->d *
           (size_t)ls_dtype_size(shape->type);
}

size_t ls_row_state_bytes(const struct ls_attention_shape *shape, int64_t rows)
{
    return (size_t)shape->b * (size_t)shape->h * (size_t)rows * (size_t)(shape->d + 2) *
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
