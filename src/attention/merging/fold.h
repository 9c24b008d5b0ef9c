/* This rank's queries meet the keys part by part: each part that comes is folded into what the
 * parts before it gave, in the order of a forest (forest.h). */
#ifndef LS_ATTENTION_MERGING_FOLD_H
#define LS_ATTENTION_MERGING_FOLD_H

#include "attention/merging/forest.h"
#include "attention/plan.h"

struct ls_fold {
    const struct ls_problem *problem; /* borrowed, as is part */
    const struct ls_leaf_list *part;  /* [parts] */
    struct ls_forest forest;
    struct ls_row_states *state; /* [forest.slots] of results that wait for others */
    void *memory;                /* of state */
    int64_t done;                /* steps of the forest, in this execution */
};

/* Bytes of workspace on a rank to which the keys come in these parts. Errors: LS_ENOMEM. */
ls_status ls_fold_bytes(size_t *out, const struct ls_problem *problem, int rank,
                        const struct ls_leaf_list *part, int parts);

/* fini accepts what is all zero and what init left when it failed. Errors: LS_ENOMEM. */
ls_status ls_fold_init(struct ls_fold *out, const struct ls_attention_plan *plan,
                       const struct ls_leaf_list *part, int parts);
void ls_fold_fini(struct ls_fold *fold);

/* An execution: begin, then each part in turn, of which the last one, in whatever order they come
 * in the sequence, finishes the rows. k, v have the rows that the part's leaves name. */
void ls_fold_begin(struct ls_fold *fold);
void ls_fold_part(struct ls_fold *fold, struct ls_attention_plan *plan,
                  const struct ls_attention_call *call, int part, const struct ls_tensor *k,
                  const struct ls_tensor *v);

#endif
