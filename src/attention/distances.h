/* The gradient of biases by distance: a sum over all pairs of a head that are so far apart, kept
 * exactly (base/exact_sum.h), so that neither ranks nor methods nor threads change its bits. */
#ifndef LS_ATTENTION_DISTANCES_H
#define LS_ATTENTION_DISTANCES_H

#include "attention/problem.h"

/* Bytes that a plan for backward takes of a rank's device for these sums. */
size_t ls_distances_bytes(const struct ls_problem *problem);

/* Nothing if there are no such biases or the plan is for forward alone. Errors: LS_ENOMEM. */
ls_status ls_distances_create(struct ls_attention_plan *plan);
void ls_distances_destroy(struct ls_attention_plan *plan);

/* From here on the plan's gradient kernels add to the sums, which are 0. */
void ls_distances_begin(struct ls_attention_plan *plan);

/* out [h, distances] = the sums of all ranks. Finishes the queue. Collective. Errors: those of
 * operations, and LS_ECOMM. */
ls_status ls_distances_end(struct ls_tensor *out, struct ls_attention_plan *plan);

#endif
