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
