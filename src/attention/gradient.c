#include "attention/gradient.h"

#include <stdlib.h>

#include "attention/plan.h"
#include "device/rows.h"

/* ---- memory */

static int64_t row_count(const struct ls_problem *problem, int rank)
{
    return problem->shape.b * problem->shape.h * ls_layout_part_rows(&problem->q_layout, rank);
}

size_t ls_gradients_bytes(const struct ls_problem *problem, int rank)
{
    return problem->backward ? 2 * (size_t)row_count(problem, rank) * sizeof(float) : 0;
}

/* Lists of the host. */
static ls_status create_sinks(struct ls_gradients *g, const struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const size_t heads = (size_t)problem->shape.h, own = (size_t)plan->q_leaves.count;

    if (!problem->scores.sinks) return LS_OK;
    g->sink = calloc(heads * (size_t)ls_layout_leaves(&problem->q_layout) + 1, sizeof *g->sink);
    g->own_sink = calloc(heads * own + 1, sizeof *g->own_sink);
    g->sink_first = calloc(own + 1, sizeof *g->sink_first);
    g->sink_rows = calloc(own + 1, sizeof *g->sink_rows);
    if (!g->sink || !g->own_sink || !g->sink_first || !g->sink_rows)
        return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    for (size_t i = 0; i < own; i++) {
        const struct ls_leaf *leaf = &plan->q_leaves.leaf[i];

        g->sink_first[i] = leaf->row;
        g->sink_rows[i] = ls_layout_leaf_rows(&problem->q_layout, leaf->number);
    }
    return LS_OK;
}

ls_status ls_gradients_create(struct ls_attention_plan *plan)
{
    struct ls_gradients *g = &plan->gradients;
    const struct ls_problem *problem = &plan->problem;
    void *memory;

    if (!problem->backward) return LS_OK;
    LS_TRY(create_sinks(g, plan));
    LS_TRY(ls_problem_alloc(&memory, problem, LS_TAG_GRADIENT,
                            ls_gradients_bytes(problem, plan->rank)));
    g->lse = memory;
    g->delta = g->lse + row_count(problem, plan->rank);
    return LS_OK;
}

void ls_gradients_destroy(struct ls_attention_plan *plan)
{
    struct ls_gradients *g = &plan->gradients;

    ls_gradient_kernel_destroy(plan->problem.device, g->kernel);
    ls_problem_free(&plan->problem, g->lse);
    free(g->sink);
    free(g->own_sink);
    free(g->sink_first);
    free(g->sink_rows);
}

/* ---- for methods */

struct ls_gradient_shape ls_plan_gradient_shape(const struct ls_problem *problem, int64_t q_leaves,
                                                int64_t k_leaves)
{
    return (struct ls_gradient_shape){.attention = ls_problem_kernel_shape(problem, k_leaves),
                                      .q_leaves = q_leaves,
                                      .queries_return = problem->p > 1};
}

void ls_plan_gradient(struct ls_attention_plan *plan, const struct ls_gradient_call *call)
{
    struct ls_gradient_call changed = *call;

    changed.change = &plan->now;
    ls_gradient(ls_plan_queue(plan), plan->gradients.kernel, &changed);
}

int64_t ls_gradient_count(const struct ls_attention_shape *shape, int64_t heads, int64_t rows)
{
    return shape->b * heads * rows * shape->d;
}

int64_t ls_value_gradient_count(const struct ls_attention_shape *shape, int64_t heads, int64_t rows)
{
    return shape->b * heads * rows * ls_value_dim(shape);
}

int64_t ls_pair_gradient_count(const struct ls_attention_shape *shape, int64_t heads, int64_t rows)
{
    return ls_gradient_count(shape, heads, rows) + ls_value_gradient_count(shape, heads, rows);
}

struct ls_terms ls_terms_behind(struct ls_terms sums, int64_t floats)
{
    return (struct ls_terms){.a = sums.a ? sums.a + floats : NULL,
                             .b = sums.b ? sums.b + floats : NULL};
}

void ls_plan_round(struct ls_tensor *out, const struct ls_attention_plan *plan,
                   struct ls_terms sums, int64_t group)
{
    struct ls_queue *queue = ls_plan_queue(plan);

    if (sums.a)
        ls_round_sums(queue, out, sums.a, sums.b, group);
    else
        ls_zero(queue, out);
}
