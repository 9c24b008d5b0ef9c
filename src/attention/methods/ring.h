/* What methods share in which K and V travel round a ring, or round a double one (route.h). */
#ifndef LS_ATTENTION_METHODS_RING_H
#define LS_ATTENTION_METHODS_RING_H

#include "attention/plan.h"

/* As in struct ls_method; node: places of an inner ring, 1: there is one ring. */
/* Errors: LS_ENOMEM. */
ls_status ls_ring_cost(struct ls_cost *out, const struct ls_problem *problem, int node);
ls_status ls_ring_create(struct ls_attention_plan *plan, int node);
void ls_ring_destroy(struct ls_attention_plan *plan);
ls_status ls_ring_forward(struct ls_attention_plan *plan, const struct ls_attention_call *call);
ls_status ls_ring_backward(struct ls_attention_plan *plan, const struct ls_backward_call *call);

#endif
