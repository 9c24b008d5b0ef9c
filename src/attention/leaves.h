/* Lists of leaves of a layout's parts. */
#ifndef LS_ATTENTION_LEAVES_H
#define LS_ATTENTION_LEAVES_H

#include "device/attention.h"

/* The leaves of rank's part of a layout, whose first row is first_row of a tensor; adds them to
 * list at *count. */
void ls_leaves_append(struct ls_leaf *list, int64_t *count, const struct ls_layout *layout,
                      int rank, int64_t first_row);

/* part [p] = each rank's leaves, by the rows of its own part; order [p]: which rank's come first
 * (NULL: the first's). leaf: room for all of them. */
void ls_leaves_by_rank(struct ls_leaf_list *part, struct ls_leaf *leaf,
                       const struct ls_layout *layout, const int *order);

/* By number, as the kernel wants them. */
void ls_leaves_sort(struct ls_leaf *list, int64_t count);

/* The leaves of all parts in the order of their numbers, in a tensor that has part after part.
 * leaf: room for all of them; first_row [p + 1]: where each part begins. */
void ls_leaves_gather(struct ls_leaf_list *out, struct ls_leaf *leaf, int64_t *first_row,
                      const struct ls_layout *layout);

#endif
