/* Backward where queries stay and the keys come to them part by part. The gradients of a rank's
 * queries are summed where they are. Those of a part of the keys, over this rank's queries, go back
 * to the owner of the keys as soon as the part is done, while the next one is computed: no sum
 * travels on from rank to rank, and the owner adds what comes from all (total.h).
 * Strict mode: for each of the largest nodes of the tree over query leaves that a rank holds
 * entirely one sum, of every query head, so that the owner can add by the tree and then the heads.
 * Fast mode: one sum, the heads of a group added already.
 * Where only the leaves of keys come that a rank's queries see (reach.h), only their rows go back.
 */
#ifndef LS_ATTENTION_METHODS_PART_GRADIENTS_H
#define LS_ATTENTION_METHODS_PART_GRADIENTS_H

#include "attention/methods/part_gradients_size.h"
#include "attention/plan.h"

struct ls_part_gradients;

/* Makes the plan's gradient kernel as well; *out stays NULL if the plan is for forward alone. The
 * caller destroys it; destroy accepts NULL. Errors: LS_ENOMEM, LS_EINTERNAL. */
ls_status ls_part_gradients_create(struct ls_part_gradients **out, struct ls_attention_plan *plan,
                                   struct ls_part_order order);
void ls_part_gradients_destroy(struct ls_part_gradients *parts);

/* One execution: begin; meet and pass for each step; end. */
void ls_part_gradients_begin(struct ls_part_gradients *parts, const struct ls_backward_call *call);

/* This rank's queries meet the keys of a step, if there are any. */
void ls_part_gradients_meet(struct ls_part_gradients *parts, int step, const struct ls_tensor *k,
                            const struct ls_tensor *v);

/* What a step gave goes to the owner of the keys. Every rank comes by after each step.
 * Errors: LS_ECOMM. */
ls_status ls_part_gradients_pass(struct ls_part_gradients *parts, int step);

/* Waits for the last step's and writes dq, dk and dv. Errors: LS_ECOMM. */
ls_status ls_part_gradients_end(struct ls_part_gradients *parts);

#endif
