/* Gradients of vectors, biases and the weights of norms, to which every row adds: each rank sums
 * its own rows by nodes of one binary tree over all rows (tensor/row_nodes.h), all get all nodes,
 * and each adds up the rest of the tree. So the bits do not depend on how rows are cut. */
#ifndef LS_LAYER_VECTORS_H
#define LS_LAYER_VECTORS_H

#include "comm/transport.h"
#include "device/rows.h"

enum { LS_MOST_VECTORS = 6 };

/* The vectors of one backward whose rows are cut alike, one behind the other. */
struct ls_vectors {
    struct ls_device *device;
    struct ls_batch batch;
    int ranks, rank;
    struct ls_row_order order;          /* of this rank's rows */
    struct ls_row_node *node;           /* storage of it */
    struct ls_row_add *add;             /* [adds] */
    int64_t adds, whole;                /* the slot that has the sum in the end */
    int64_t most;                       /* nodes of the rank that has most */
    int64_t first[LS_MOST_VECTORS + 1]; /* where in a row of all each begins, and all end */
    float *blocks;                      /* [ranks][most x width] of the device, tag gradient */
    void *scratch;
};

/* b sequences, of which this rank has runs' rows and the other ranks of comm the rest; count
 * vectors of these widths, 0 of those that there are not. Collective. fini accepts one of zeros,
 * and what init left when it failed. Errors: LS_ENOMEM, LS_ECOMM. */
ls_status ls_vectors_init(struct ls_vectors *out, struct ls_comm *comm,
                          const struct ls_transport *transport, struct ls_device *device,
                          const struct ls_row_runs *runs, int64_t b, const int64_t *widths,
                          int count, size_t scratch_bytes);
void ls_vectors_fini(struct ls_vectors *vectors);

/* Where this rank's sums [nodes, width] of a vector belong; NULL: there is no such vector. */
float *ls_vectors_place(const struct ls_vectors *vectors, int vector);

/* All places are filled, and all rows added up: each vector is at its whole [width] then, of f32 on
 * the device, until places are filled again. Collective. Errors: LS_ECOMM. */
ls_status ls_vectors_sum(struct ls_vectors *vectors);
float *ls_vectors_whole(const struct ls_vectors *vectors, int vector);

#endif
