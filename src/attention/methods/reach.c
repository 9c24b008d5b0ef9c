#include "attention/methods/reach.h"

#include <string.h>

static void mark_leaves(bool *seen, const struct ls_mask *mask, int64_t first, int64_t rows)
{
    struct ls_range run = ls_mask_leaves(mask, first, rows, 0);

    for (; run.from < run.to; run = ls_mask_leaves(mask, first, rows, run.to))
        memset(seen + run.from, true, (size_t)(run.to - run.from) * sizeof *seen);
}

void ls_reach_mark(bool *seen, const struct ls_problem *problem, int rank)
{
    const struct ls_layout *queries = &problem->q_layout;
    const int64_t n = ls_layout_part_leaves(queries, rank);

    memset(seen, 0, (size_t)ls_layout_leaves(&problem->k_layout) * sizeof *seen);
    for (int64_t i = 0; i < n; i++) {
        const int64_t leaf = ls_layout_part_leaf(queries, rank, i), first = leaf * LS_LEAF;
        const int64_t rows = ls_layout_leaf_rows(queries, leaf);

        for (int64_t m = 0; m < ls_masks_count(&problem->masks); m++)
            mark_leaves(seen, &problem->masks.mask[m], first, rows);
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
