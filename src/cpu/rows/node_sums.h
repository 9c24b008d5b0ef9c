/* Sums of vectors over the rows of nodes (tensor/row_nodes.h), by all threads: what the vector of a
 * row is, the caller says. */
#ifndef LS_CPU_ROWS_NODE_SUMS_H
#define LS_CPU_ROWS_NODE_SUMS_H

#include <stddef.h>
#include <stdint.h>

#include "device/rows.h"

#define ROW_GROUP 8    /* rows that are added at once */
#define MOST_VECTORS 2 /* that a row has */

struct row_place {
    int64_t batch, row;
};

struct node_sums {
    const struct ls_row_order *order;
    int64_t b, s_loc;
    int64_t e;
    int vectors;              /* of e floats that a row has */
    float *out[MOST_VECTORS]; /* [nodes, e] each */
    void *scratch;
    int threads;
    /* sums [vectors, e] = of n rows, 1 or ROW_GROUP; each row is asked for once. A group is summed
     * by its own binary tree. */
    void (*add_group)(float *sums, const void *what, const struct row_place *row, int n);
    const void *what;
};

size_t cpu_node_sums_bytes(int64_t rows, int64_t width, int threads);

/* width: vectors x e. To be called by one thread. */
void cpu_node_sums(const struct node_sums *sums);

#endif
