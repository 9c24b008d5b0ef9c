/* What each rank computes where keys stay with their ranks: the results of some lists of leaves,
 * and how those of all ranks become one. Fast mode: one result a rank, of all its keys. Strict
 * mode: one for each of the largest nodes of the binary tree over leaf numbers that the rank holds
 * entirely; whoever owns a row has them all and merges them by the tree (forest.h). */
#ifndef LS_ATTENTION_MERGING_SUBTREES_H
#define LS_ATTENTION_MERGING_SUBTREES_H

#include "attention/merging/forest.h"
#include "attention/merging/states.h"
#include "attention/plan.h"

/* Results are numbered rank by rank. */
struct ls_subtrees {
    struct ls_forest forest;    /* open; its parts are the ranks, in their order */
    struct ls_leaf_list *keys;  /* [first[p]] of each result; rows are those of its rank's part */
    int64_t *first;             /* [p + 1] rank r computes results [first[r], first[r + 1]) */
    struct ls_row_states *slot; /* [forest.slots] while they are merged */
    struct ls_leaf *leaf;       /* storage of keys, all leaves rank by rank */

    struct ls_row_states *states; /* of this rank's results, where they wait to be taken */
    void *memory;                 /* of states */
    const struct ls_problem *problem;
};

/* fini accepts what init left when it failed. Errors: LS_ENOMEM. */
ls_status ls_subtrees_init(struct ls_subtrees *out, const struct ls_problem *problem);
void ls_subtrees_fini(struct ls_subtrees *subtrees);

/* Like init, for what only asks how many results there are: fast mode lists no leaves. */
ls_status ls_subtrees_count(struct ls_subtrees *out, const struct ls_problem *problem);

/* Results that a rank computes. */
int64_t ls_subtrees_of(const struct ls_subtrees *subtrees, int rank);

/* Room for this rank's results for so many rows, until fini. Errors: LS_ENOMEM. */
ls_status ls_subtrees_make_room(struct ls_subtrees *subtrees, const struct ls_attention_plan *plan,
                                int64_t rows);

/* This rank's results for the rows of q; then some rows of them, result after result; returns the
 * end of out. */
void ls_subtrees_attend(const struct ls_subtrees *subtrees, struct ls_attention_plan *plan,
                        const struct ls_attention_call *call, const struct ls_tensor *q,
                        struct ls_leaf_list q_leaves);
float *ls_subtrees_take(float *out, const struct ls_subtrees *subtrees,
                        const struct ls_attention_plan *plan, struct ls_row_range rows);

/* Rows [first, first + count) of this rank's part, and their leaves, counting rows from first. */
struct ls_row_block {
    int64_t first, count;
    struct ls_leaf_list leaves;
};

/* The results that a part brings, [ls_state_count] each, are merged with what is in the slots of an
 * open forest. Slots refer to their memory from now on. Returns the end of them. */
float *ls_results_merge(struct ls_row_states *slot, const struct ls_attention_plan *plan,
                        const struct ls_forest *forest, int part, float *states, int64_t rows);

/* Writes o and lse of a block of rows from what an open forest of all keys has left. */
void ls_states_finish(struct ls_attention_plan *plan, const struct ls_attention_call *call,
                      const struct ls_forest *forest, const struct ls_row_states *slot,
                      const struct ls_row_block *rows);

/* Merges the states of a block of rows [first[p]][ls_state_count], which are used up, and writes
 * its o and lse. */
void ls_subtrees_finish(const struct ls_subtrees *subtrees, struct ls_attention_plan *plan,
                        const struct ls_attention_call *call, float *states,
                        const struct ls_row_block *rows);

/* Forward on one rank. */
void ls_subtrees_attend_alone(const struct ls_subtrees *subtrees, struct ls_attention_plan *plan,
                              const struct ls_attention_call *call);

#endif
