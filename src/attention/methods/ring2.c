/* A double ring: K and V go round among the ranks of a node while the same parts are on their way
 * to the next node, so that a message between nodes has as many steps as a node has ranks, and all
 * ranks of a node use its network at once.
 * Source: Gu et al. 2024, "LoongTrain: efficient training of long-sequence LLMs with head-context
 * parallelism" (section 4.3, double-ring attention). */
#include <stdio.h>

#include "attention/methods/ring.h"
#include "attention/methods/table.h"

static const char *fits(const struct ls_problem *problem)
{
    static _Thread_local char reason[96];

    if (problem->node_size == 0)
        return "it is not known that nodes hold equally many ranks, one after the other: say how "
               "many by --node-size";
    if (problem->p % problem->node_size == 0) return NULL;
    snprintf(reason, sizeof reason, "%d ranks are no whole number of nodes of %d", problem->p,
             problem->node_size);
    return reason;
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    return ls_ring_cost(out, problem, problem->node_size);
}

static ls_status create(struct ls_attention_plan *plan)
{
    return ls_ring_create(plan, plan->problem.node_size);
}

const struct ls_method ls_method_ring2 = {
    .name = "ring2",
    .summary = "as ring, in two: inside a node, and between nodes at the same time",
    .fits = fits,
    .merges = true,
    .layout = ls_method_even_layout,
    .cost = cost,
    .create = create,
    .destroy = ls_ring_destroy,
    .forward = ls_ring_forward,
    .backward = ls_ring_backward,
};
