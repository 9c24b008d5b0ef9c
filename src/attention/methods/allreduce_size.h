/* What the method `allreduce` takes and sends, exactly. */
#ifndef LS_ATTENTION_METHODS_ALLREDUCE_SIZE_H
#define LS_ATTENTION_METHODS_ALLREDUCE_SIZE_H

#include "attention/merging/subtrees.h"

/* A rank's memory beside that of its kernel; it is made for the first step, the largest. Alone, a
 * rank has no results that wait and none of it. */
struct ls_allreduce_memory {
    int64_t rows;    /* of all ranks */
    size_t states;   /* bytes of those of all results of this rank */
    int64_t out, in; /* floats */
    size_t queries;  /* bytes of the queries of one step, of which there are two if needed */
    size_t travel;   /* bytes of out, in and queries together */
};

struct ls_allreduce_memory ls_allreduce_memory(const struct ls_problem *problem,
                                               const struct ls_subtrees *subtrees, int rank);

/* Errors: LS_ENOMEM. */
ls_status ls_allreduce_cost(struct ls_cost *out, const struct ls_problem *problem);

#endif
