/* Gradients of linears' weights, to which the tokens of all context-parallel ranks add: a rank
 * brings the sums that sum_tree.h says.
 * Rows of a gradient are taken some at a time, as many as memory has room for. Each rank adds up a
 * share of these, and then all get all of them: a rank sends
 *   4 (c - 1) (sums + 1) in ceil(out / c) bytes,
 * sums of the rank that has most; where it is one, what an all-reduce takes. */
#ifndef LS_LAYER_WEIGHTS_H
#define LS_LAYER_WEIGHTS_H

#include "comm/transport.h"
#include "device/linear.h"
#include "layer/sum_tree.h"

/* What is to be summed. */
struct ls_weight_shape {
    const struct ls_layout *layout; /* deals each of b sequences to the ranks */
    int64_t b;
    struct ls_leaf_list leaves; /* this rank's, of all sequences, numbered as in device/linear.h;
                                 * borrowed */
    int64_t most_weights, most_columns; /* of a linear */
    bool strict;
};

struct ls_weight_sums {
    struct ls_device *device;
    struct ls_batch batch;
    int ranks, rank;
    struct ls_leaf_list all; /* this rank's leaves */
    struct ls_sum_tree tree;
    int64_t floats; /* of a sum of the rows that are taken at once, at most */
    float *own;     /* [floats] one of this rank's sums, and in the end what all got */
    float *slots;   /* [sums of the tree][floats] */
};

/* Not collective, but the same on all of the transport's ranks. Memory is of tag gradient: as much
 * as the largest gradient, but never less than one row for each slot. fini accepts one of zeros,
 * and what init left when it failed. Errors: LS_ENOMEM. */
ls_status ls_weight_sums_init(struct ls_weight_sums *out, const struct ls_transport *transport,
                              struct ls_device *device, const struct ls_weight_shape *shape);
void ls_weight_sums_fini(struct ls_weight_sums *sums);

/* gradient [out, in] += dy^T x over the tokens of all ranks. Collective. Errors: LS_ECOMM. */
ls_status ls_weight_sums_add(struct ls_weight_sums *sums, struct ls_linear_kernel *kernel,
                             struct ls_tensor *gradient, const struct ls_tensor *dy,
                             const struct ls_tensor *x);

#endif
