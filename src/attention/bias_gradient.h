/* The gradient of biases of pairs. Whatever the method, each rank finds the rows of its own
 * queries: before the method's backward, the keys and values go once round all ranks, part by part.
 */
#ifndef LS_ATTENTION_BIAS_GRADIENT_H
#define LS_ATTENTION_BIAS_GRADIENT_H

#include "attention/problem.h"

struct ls_bias_gradient; /* what a plan needs for it */

/* Adds memory and what is sent, nothing if there are no such biases or the plan is for forward
 * alone. */
void ls_bias_gradient_cost(struct ls_cost *cost, const struct ls_problem *problem);

/* Nothing likewise. Errors: LS_ENOMEM, LS_EINTERNAL. */
ls_status ls_bias_gradient_create(struct ls_attention_plan *plan);
void ls_bias_gradient_destroy(struct ls_attention_plan *plan);

/* The queries are those of the rank's caller, the keys its part. */
struct ls_bias_operands {
    const struct ls_tensor *q, *d_o, *k, *v;
    const struct ls_tensor *lse, *delta; /* [b, h, s_q_loc] */
};

/* dbias [b or 1, h or 1, s_q_loc, s_k]. Collective. Errors: LS_ECOMM. */
ls_status ls_bias_gradient_find(struct ls_tensor *dbias, struct ls_attention_plan *plan,
                                const struct ls_bias_operands *operands);

#endif
