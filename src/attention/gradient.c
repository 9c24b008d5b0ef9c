#include "attention/gradient.h"

#include "attention/plan.h"
#include "base/ledger.h"

/* ---- memory */

static int64_t row_count(const struct ls_problem *problem, int rank)
{
    return problem->shape.b * problem->shape.h * ls_layout_part_rows(&problem->q_layout, rank);
}

static size_t sink_bytes(const struct ls_problem *problem)
{
    if (!problem->scores.sinks) return 0;
    return (size_t)ls_layout_leaves(&problem->q_layout) * sizeof(double);
}

size_t ls_gradients_bytes(const struct ls_problem *problem, int rank)
{
    if (!problem->backward) return 0;
    return sink_bytes(problem) + 2 * (size_t)row_count(problem, rank) * sizeof(float);
}

ls_status ls_gradients_create(struct ls_attention_plan *plan)
{
    struct ls_gradients *g = &plan->gradients;
    const struct ls_problem *problem = &plan->problem;

    if (!problem->backward) return LS_OK;
    LS_TRY(ls_alloc(&g->memory, LS_TAG_GRADIENT, ls_gradients_bytes(problem, plan->rank)));
    g->sink = g->memory;
    g->lse = (float *)((char *)g->memory + sink_bytes(problem));
    g->delta = g->lse + row_count(problem, plan->rank);
    return LS_OK;
}

void ls_gradients_destroy(struct ls_attention_plan *plan)
{
    ls_gradient_kernel_destroy(&plan->problem.device, plan->gradients.kernel);
    ls_free(plan->gradients.memory);
}

/* ---- for methods */

struct ls_gradient_shape ls_plan_gradient_shape(const struct ls_problem *problem, int64_t q_leaves,
                                                int64_t k_leaves)
{
    return (struct ls_gradient_shape){.attention = ls_problem_kernel_shape(problem, k_leaves),
                                      .q_leaves = q_leaves};
}

ls_status ls_plan_gradient(struct ls_attention_plan *plan, const struct ls_gradient_call *call)
{
    struct ls_gradient_call heard = *call;

    heard.progress = *plan->transport.traffic->mover;
    return ls_gradient_kernel_compute(&plan->result, &plan->problem.device, plan->gradients.kernel,
                                      &heard);
}

int64_t ls_gradient_count(const struct ls_attention_shape *shape, int64_t heads, int64_t rows)
{
    return shape->b * heads * rows * shape->d;
}

struct ls_terms ls_terms_behind(struct ls_terms sums, int64_t floats)
{
    return (struct ls_terms){.a = sums.a ? sums.a + floats : NULL,
                             .b = sums.b ? sums.b + floats : NULL};
}

void ls_plan_round(struct ls_tensor *out, const struct ls_attention_plan *plan,
                   struct ls_terms sums, int64_t group)
{
    if (sums.a)
        ls_device_round_sums(&plan->problem.device, out, sums.a, sums.b, group,
                             plan->problem.threads);
    else
        ls_device_zero(&plan->problem.device, out, plan->problem.threads);
}
