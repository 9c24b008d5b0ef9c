/* Backward where K and V stay and the queries visit, as in allreduce.c, each with d_o, lse and
 * delta. Gradients of the keys stay where they are made and are summed over the steps. Those of the
 * queries go to the owners of the rows: of each rank one sum, or in strict mode one for each of the
 * largest nodes of the tree that it holds, which the owner adds (total.h). */
#ifndef LS_ATTENTION_METHODS_ALLREDUCE_GRADIENT_H
#define LS_ATTENTION_METHODS_ALLREDUCE_GRADIENT_H

#include "attention/plan.h"

struct ls_visiting_gradients;

/* Adds what it sends, its memory and the kernel's; nothing if the plan is for forward alone. */
/* Errors: LS_ENOMEM. */
ls_status ls_visiting_gradients_cost(struct ls_cost *cost, const struct ls_problem *problem);

/* Makes the plan's gradient kernel as well; *out stays NULL if the plan is for forward alone. The
 * caller destroys it; destroy accepts NULL. Errors: LS_ENOMEM, LS_EINTERNAL. */
ls_status ls_visiting_gradients_create(struct ls_visiting_gradients **out,
                                       struct ls_attention_plan *plan);
void ls_visiting_gradients_destroy(struct ls_visiting_gradients *g);

/* Collective. Errors: LS_ECOMM, LS_EINTERNAL. */
ls_status ls_visiting_gradients_run(struct ls_visiting_gradients *g,
                                    const struct ls_backward_call *call);

#endif
