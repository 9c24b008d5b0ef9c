/* Which rows of the sequence a rank has: inside attention and MLP, and outside. */
#include <stdlib.h>

#include "layer/plan.h"

/* Of the rows inside those that are this rank's outside. */
static void list_outer_runs(struct ls_layer_plan *plan, struct ls_row_run *out)
{
    const struct ls_outer_rows own = ls_grid_outer_rows(&plan->grid, plan->rows, plan->grid.tensor);

    plan->outer_rows = own.count;
    plan->outer_runs = (struct ls_row_runs){.run = out, .s = plan->shape.s};
    for (int64_t i = 0; i < plan->inner_runs.count; i++) {
        const struct ls_row_run *run = &plan->inner_runs.run[i];
        const int64_t from = run->row > own.first ? run->row : own.first;
        const int64_t end = run->row + run->count < own.first + own.count ? run->row + run->count
                                                                          : own.first + own.count;

        if (from < end)
            out[plan->outer_runs.count++] =
                (struct ls_row_run){.row = from - own.first,
                                    .count = end - from,
                                    .position = run->position + from - run->row};
    }
}

/* The leaves of this rank's rows, of one sequence after the other. */
static void list_leaves(struct ls_layer_plan *plan, const struct ls_layout *layout)
{
    const int64_t n = ls_layout_part_leaves(layout, plan->grid.context);
    const int64_t all = ls_layout_leaves(layout);

    for (int64_t b = 0; b < plan->shape.b; b++)
        for (int64_t i = 0; i < n; i++)
            plan->leaf[plan->leaves.count++] = (struct ls_leaf){
                .number = b * all + ls_layout_part_leaf(layout, plan->grid.context, i),
                .row = b * plan->rows + i * LS_LEAF};
    plan->leaves.leaf = plan->leaf;
}

ls_status ls_layer_list_rows(struct ls_layer_plan *plan)
{
    const struct ls_layout *layout = &plan->layout;
    const int64_t n = ls_layout_part_leaves(layout, plan->grid.context);

    plan->run = calloc(2 * (size_t)n + 1, sizeof *plan->run);
    plan->leaf = calloc((size_t)(plan->shape.b * n) + 1, sizeof *plan->leaf);
    if (!plan->run || !plan->leaf) return ls_fail(LS_ENOMEM, "layer: out of memory");
    plan->rows = ls_layout_part_rows(layout, plan->grid.context);
    for (int64_t i = 0; i < n; i++) {
        const int64_t leaf = ls_layout_part_leaf(layout, plan->grid.context, i);

        plan->run[i] = (struct ls_row_run){.row = i * LS_LEAF,
                                           .count = ls_layout_leaf_rows(layout, leaf),
                                           .position = leaf * LS_LEAF};
    }
    plan->inner_runs = (struct ls_row_runs){.run = plan->run, .count = n, .s = plan->shape.s};
    list_outer_runs(plan, plan->run + n);
    list_leaves(plan, layout);
    return LS_OK;
}

/* ---- what callers ask */

int64_t ls_layer_rows(const struct ls_layer_plan *plan)
{
    return plan->outer_rows;
}

int64_t ls_layer_position(const struct ls_layer_plan *plan, int64_t row)
{
    int64_t i = 0;

    while (row >= plan->outer_runs.run[i].row + plan->outer_runs.run[i].count) i++;
    return plan->outer_runs.run[i].position + row - plan->outer_runs.run[i].row;
}
