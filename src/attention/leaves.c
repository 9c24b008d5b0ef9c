#include "attention/leaves.h"

#include <stdlib.h>

void ls_leaves_append(struct ls_leaf *list, int64_t *count, const struct ls_layout *layout,
                      int rank, int64_t first_row)
{
    const int64_t n = ls_layout_part_leaves(layout, rank);
    int64_t row = first_row;

    for (int64_t i = 0; i < n; i++) {
        const int64_t number = ls_layout_part_leaf(layout, rank, i);

        list[(*count)++] = (struct ls_leaf){.number = number, .row = row};
        row += ls_layout_leaf_rows(layout, number);
    }
}

static int by_number(const void *a, const void *b)
{
    const int64_t x = ((const struct ls_leaf *)a)->number, y = ((const struct ls_leaf *)b)->number;

    return (x > y) - (x < y);
}

void ls_leaves_sort(struct ls_leaf *list, int64_t count)
{
    int64_t sorted = 1; /* most lists are, all the way */

    while (sorted < count && list[sorted - 1].number < list[sorted].number) sorted++;
    if (sorted < count) qsort(list, (size_t)count, sizeof *list, by_number);
}

void ls_leaves_by_rank(struct ls_leaf_list *part, struct ls_leaf *leaf,
                       const struct ls_layout *layout, const int *order)
{
    int64_t count = 0;

    for (int i = 0; i < layout->p; i++) {
        const int64_t first = count;

        ls_leaves_append(leaf, &count, layout, order ? order[i] : i, 0);
        ls_leaves_sort(leaf + first, count - first);
        part[i] = (struct ls_leaf_list){.leaf = leaf + first, .count = count - first};
    }
}

void ls_leaves_gather(struct ls_leaf_list *out, struct ls_leaf *leaf, int64_t *first_row,
                      const struct ls_layout *layout)
{
    int64_t count = 0;

    first_row[0] = 0;
    for (int r = 0; r < layout->p; r++) {
        first_row[r + 1] = first_row[r] + ls_layout_part_rows(layout, r);
        ls_leaves_append(leaf, &count, layout, r, first_row[r]);
    }
    ls_leaves_sort(leaf, count);
    *out = (struct ls_leaf_list){.leaf = leaf, .count = count};
}
