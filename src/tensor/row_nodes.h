/* The order in which vectors of rows are added, whatever ranks hold them: gradients of a bias, of
 * the weights of a norm. Rows of the whole problem are numbered batch s + position and added by the
 * binary tree over these numbers: node (level, index) is the sum of rows [index 2^level, (index +
 * 1) 2^level), its left half plus its right half. Beyond the last row there is nothing: a node
 * whose right half is empty is its left half.
 *
 * A rank adds up the largest nodes of which it holds all rows (ls_row_nodes_list says which they
 * are); what several ranks found, or one after another, is added in the order that
 * ls_row_nodes_merge gives. The result has the same bits however rows were cut. */
#ifndef LS_TENSOR_ROW_NODES_H
#define LS_TENSOR_ROW_NODES_H

#include "tensor/row_runs.h"

/* No row is the first of a larger node that has no more rows. */
struct ls_row_node {
    int level;
    int64_t index;
    int64_t slot; /* where its sum is, in vectors */
};

/* Into the vector of one slot goes that of another. */
struct ls_row_add {
    int64_t into, from;
};

/* The first of its rows, and one past the last; `rows` is the number of all there are. */
static inline int64_t ls_row_node_first(const struct ls_row_node *node)
{
    return node->index << node->level;
}

static inline int64_t ls_row_node_end(const struct ls_row_node *node, int64_t rows)
{
    const int64_t end = (node->index + 1) << node->level;

    return end < rows ? end : rows;
}

/* The number of nodes, which are in the order of their rows and have slots 0, 1, ..; out may be
 * NULL. At most 2 log2(b s) nodes a stretch of rows. */
int64_t ls_row_nodes_list(struct ls_row_node *out, const struct ls_row_runs *runs, int64_t b);

/* How nodes of any order, no row of which belongs to two, are added as far as they go: the number
 * of additions, at most *count - 1, one after the other. node [*count] becomes what remains, in the
 * order of their rows, each in its slot: one node, if together they had all `rows`. */
int64_t ls_row_nodes_merge(struct ls_row_add *add, struct ls_row_node *node, int64_t *count,
                           int64_t rows);

#endif
