#include "plan/attention_size.h"

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

double ls_visible_pairs(int64_t s_q, int64_t s_k, bool causal)
{
    const double q = (double)s_q, k = (double)s_k;

    if (!causal) return q * k;
    /* the last query sees all keys, each one before it one less, down to none */
    const double rows = (double)smaller(s_q, s_k);
    return rows * k - rows * (rows - 1) / 2;
}

/* Pairs of the first n queries, and of the first n keys. */
static double pairs_of_queries(int64_t n, int64_t s_q, int64_t s_k, bool causal)
{
    const int64_t keys = s_k - s_q + n; /* that the last of them sees */

    if (!causal) return ls_visible_pairs(n, s_k, false);
    return ls_visible_pairs(n, keys < 0 ? 0 : keys, true);
}

static double pairs_of_keys(int64_t n, int64_t s_k, int64_t s_q, bool causal)
{
    return ls_visible_pairs(s_q, s_k, causal) - ls_visible_pairs(s_q, s_k - n, causal);
}

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

typedef double (*pair_count)(int64_t n, int64_t s, int64_t other, bool causal);

static double part_pairs(const struct ls_layout *layout, int rank, int64_t other, bool causal,
                         pair_count first)
{
    const int64_t leaves = ls_layout_part_leaves(layout, rank);
    double pairs = 0;

    for (int64_t i = 0, run; i < leaves; i += run) {
        const int64_t begin = ls_layout_part_leaf(layout, rank, i) * LS_LEAF;

        run = run_length(layout, rank, i);
        pairs += first(smaller(begin + run * LS_LEAF, layout->s), layout->s, other, causal) -
                 first(begin, layout->s, other, causal);
    }
    return pairs;
}

/* Stripes of so many leaves are as even as makes no difference, and too many to count. */
#define MOST_STRIPES (1 << 22)

static double most_pairs(const struct ls_layout *layout, int64_t other, bool causal,
                         pair_count first)
{
    double most = 0;

    if (layout->kind == LS_LAYOUT_STRIPED && ls_layout_leaves(layout) > MOST_STRIPES)
        return first(layout->s, layout->s, other, causal) / layout->p;
    for (int r = 0; r < layout->p; r++) {
        const double pairs = part_pairs(layout, r, other, causal, first);
        if (pairs > most) most = pairs;
    }
    return most;
}

double ls_most_pairs_of_queries(const struct ls_layout *queries, int64_t s_k, bool causal)
{
    return most_pairs(queries, s_k, causal, pairs_of_queries);
}

double ls_most_pairs_of_keys(const struct ls_layout *keys, int64_t s_q, bool causal)
{
    return most_pairs(keys, s_q, causal, pairs_of_keys);
}

static int64_t leaves_of(int64_t n)
{
    return n > 0 ? (n + LS_LEAF - 1) / LS_LEAF : 0;
}

/* Leaves of keys that the first n whole leaves of queries see, added up: leaf i sees i + 1 more
 * than stand before the first query. */
static int64_t causal_leaves(int64_t n, int64_t s_q, int64_t s_k)
{
    const int64_t before = s_k >= s_q ? leaves_of(s_k - s_q) : -((s_q - s_k) / LS_LEAF);
    const int64_t blind = before < 0 ? smaller(-before, n) : 0;
    const int64_t first = blind + 1 + before, seeing = n - blind;

    return seeing * first + seeing * (seeing - 1) / 2;
}

int64_t ls_attention_tiles(const struct ls_attention_shape *shape, bool causal)
{
    const int64_t group = shape->h / shape->h_kv, whole = shape->s_q / LS_LEAF;
    const int64_t all = leaves_of(shape->s_k);
    const int64_t seen = causal ? causal_leaves(whole, shape->s_q, shape->s_k) : whole * all;

    /* the last queries, in a short leaf, see all keys */
    return shape->b * shape->h_kv *
           (group * seen + leaves_of(group * (shape->s_q % LS_LEAF)) * all);
}

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
