/* What the method `tree` takes and sends, exactly. */
#ifndef LS_ATTENTION_METHODS_TREE_SIZE_H
#define LS_ATTENTION_METHODS_TREE_SIZE_H

#include "attention/merging/binomial.h"
#include "attention/merging/subtrees.h"

/* More queries are no longer few: all ranks hold all of them, and results for all of them. */
#define LS_TREE_MOST_QUERIES 4096

/* A rank that has queries: results for them are merged on their way to it. */
struct ls_tree_root {
    struct ls_binomial tree;
    int64_t first_row, rows; /* among all queries, rank after rank */
};

struct ls_tree_plan {
    struct ls_tree_root *root; /* [roots] */
    int roots;
    int64_t *results; /* [roots][p] that a rank gives: the nodes of all keys behind it; fast: 1 */
};

/* fini accepts what init left when it failed. Errors: LS_ENOMEM. */
ls_status ls_tree_plan_init(struct ls_tree_plan *out, const struct ls_problem *problem);
void ls_tree_plan_fini(struct ls_tree_plan *plan);

/* The leaves of some ranks that follow each other, after the last the first, by number. leaf: room
 * for them. */
struct ls_leaf_list ls_tree_leaves(struct ls_leaf *leaf, const struct ls_layout *layout, int first,
                                   int ranks);

/* Bytes of results that a rank gives in a round to the rank before it, and of queries that it gets
 * from that rank in the same round, on the way back. */
size_t ls_tree_query_bytes(const struct ls_tree_plan *plan, const struct ls_problem *problem,
                           int rank, int round);
size_t ls_tree_result_bytes(const struct ls_tree_plan *plan, const struct ls_problem *problem,
                            int rank, int round);

/* A rank's memory beside that of its kernel. Alone it needs none of it. */
struct ls_tree_memory {
    size_t states;  /* all queries' results of this rank, as the kernel writes them */
    size_t mine;    /* the same, root after root */
    size_t in;      /* results of all rounds, and before that the queries of one */
    size_t out;     /* one round's results or queries */
    size_t queries; /* all of them */
};

struct ls_tree_memory ls_tree_memory(const struct ls_tree_plan *plan,
                                     const struct ls_problem *problem,
                                     const struct ls_subtrees *subtrees, int rank);

/* Errors: LS_ENOMEM. */
ls_status ls_tree_cost(struct ls_cost *out, const struct ls_problem *problem);

#endif
