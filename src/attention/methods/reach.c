#include "attention/methods/reach.h"

#include <string.h>

static int64_t leaves_of(int64_t keys)
{
    return (keys + LS_LEAF - 1) / LS_LEAF;
}

/* What a leaf of queries sees never begins or ends before what the one before it does, but for the
 * prefix, so that nothing is marked twice. */
void ls_reach_mark(bool *seen, const struct ls_problem *problem, int rank)
{
    const struct ls_layout *queries = &problem->q_layout;
    const int64_t n = ls_layout_part_leaves(queries, rank);

    memset(seen, 0, (size_t)ls_layout_leaves(&problem->k_layout) * sizeof *seen);
    for (int64_t i = 0, next = 0; i < n; i++) {
        const int64_t leaf = ls_layout_part_leaf(queries, rank, i);
        const struct ls_visible sees =
            ls_mask_rows(&problem->mask, leaf * LS_LEAF, ls_layout_leaf_rows(queries, leaf));

        for (int64_t k = 0; i == 0 && k < leaves_of(sees.prefix); k++) seen[k] = true;
        if (sees.from == sees.to) continue;
        if (next < sees.from / LS_LEAF) next = sees.from / LS_LEAF;
        for (; next < leaves_of(sees.to); next++) seen[next] = true;
    }
}

int64_t ls_reach_append(struct ls_leaf *list, int64_t *count, const struct ls_problem *problem,
                        int owner, const bool *seen)
{
    const struct ls_layout *keys = &problem->k_layout;
    const int64_t n = ls_layout_part_leaves(keys, owner);
    int64_t rows = 0;

    for (int64_t i = 0; i < n; i++) {
        const int64_t leaf = ls_layout_part_leaf(keys, owner, i);

        if (!seen[leaf]) continue;
        list[(*count)++] = (struct ls_leaf){.number = leaf, .row = i * LS_LEAF};
        rows += ls_layout_leaf_rows(keys, leaf);
    }
    return rows;
}
