/* The order in which sums over tokens are added that context-parallel ranks bring. Strict: a rank
 * brings one for each of the largest nodes of the tree over all leaves of tokens that it holds
 * entirely, and they are added by that tree, so that the bits do not depend on how tokens are cut.
 * Fast: it brings one, and the tree is over ranks. Who adds them has a slot for each. */
#ifndef LS_LAYER_SUM_TREE_H
#define LS_LAYER_SUM_TREE_H

#include "device/device.h"
#include "longspan/layout.h"
#include "tensor/row_nodes.h"

struct ls_sum_tree {
    int ranks;
    int64_t sums;   /* of the rank that has most; sum i of rank r comes to slot i ranks + r */
    int64_t *first; /* [sums + 1] sum i is of leaves [first[i], first[i + 1]) of this rank, of all
                     * sequences, one after the other; of none behind those that it has */
    struct ls_row_add *add; /* [adds] */
    int64_t adds, whole;    /* the slot that has all of it in the end */
};

/* Of b sequences, each dealt by the layout, on the rank of that number; not collective. fini
 * accepts one of zeros, and what init left when it failed. Errors: LS_ENOMEM. */
ls_status ls_sum_tree_init(struct ls_sum_tree *out, const struct ls_layout *layout, int64_t b,
                           int rank, bool strict);
void ls_sum_tree_fini(struct ls_sum_tree *tree);

/* slots [sums ranks][n] are added; returns the sum of all, which is in one of them. */
float *ls_sum_tree_add(const struct ls_sum_tree *tree, struct ls_queue *queue, float *slots,
                       int64_t n);

#endif
