#include "attention/gradient.h"

#include <math.h>
#include <string.h>

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
    return (struct ls_gradient_shape){.attention = ls_plan_kernel_shape(problem, k_leaves),
                                      .q_leaves = q_leaves};
}

ls_status ls_plan_gradient(struct ls_attention_plan *plan, const struct ls_gradient_call *call)
{
    return ls_gradient_kernel_compute(&plan->result, &plan->problem.device, plan->gradients.kernel,
                                      call);
}

int64_t ls_gradient_count(const struct ls_attention_shape *shape, int64_t heads, int64_t rows)
{
    return shape->b * heads * rows * shape->d;
}

static void fill_with_zero(struct ls_tensor *t)
{
    const size_t size = (size_t)ls_dtype_size(t->type);

    for (int64_t i = 0; i < t->dim[0]; i++)
        for (int64_t j = 0; j < t->dim[1]; j++)
            for (int64_t k = 0; k < t->dim[2]; k++)
                memset((char *)t->data +
                           (size_t)(i * t->stride[0] + j * t->stride[1] + k * t->stride[2]) * size,
                       0, (size_t)t->dim[3] * size);
}

void ls_plan_round(struct ls_tensor *out, const struct ls_attention_plan *plan, const float *sums,
                   int64_t group)
{
    if (sums)
        ls_device_round_sums(&plan->problem.device, out, sums, group, plan->problem.threads);
    else
        fill_with_zero(out);
}

/* ---- sinks */

/* A row whose sink is -inf as well may see nothing at all. */
static double sink_term(double sink, double lse, double delta)
{
    return lse == -INFINITY ? 0 : -exp(sink - lse) * delta;
}

/* Of one head, what the rows of each leaf of this rank add; 0 of the others' leaves. */
static void list_sink_terms(const struct ls_attention_plan *plan, int64_t head)
{
    const struct ls_gradients *g = &plan->gradients;
    const struct ls_attention_shape *s = &plan->problem.shape;
    const struct ls_layout *queries = &plan->problem.q_layout;
    const int64_t rows = ls_layout_part_rows(queries, plan->rank);
    const double sink = plan->problem.scores.sinks[head];

    memset(g->sink, 0, sink_bytes(&plan->problem));
    for (int64_t i = 0; i < plan->q_leaves.count; i++) {
        const struct ls_leaf leaf = plan->q_leaves.leaf[i];
        double sum = 0;

        for (int64_t b = 0; b < s->b; b++) {
            const int64_t first = (b * s->h + head) * rows + leaf.row;

            for (int64_t j = first; j < first + ls_layout_leaf_rows(queries, leaf.number); j++)
                sum += sink_term(sink, (double)g->lse[j], (double)g->delta[j]);
        }
        g->sink[leaf.number] = sum;
    }
}

/* The sum over n leaves by the tree; used up. */
static double add_leaves(double *leaf, int64_t n)
{
    for (int64_t apart = 1; apart < n; apart *= 2)
        for (int64_t i = 0; i + apart < n; i += 2 * apart) leaf[i] += leaf[i + apart];
    return n > 0 ? leaf[0] : 0;
}

/* dsink = - sum over rows of exp(sink - lse) delta. One rank alone has rows of a leaf, so that the
 * reduction only brings together and rounds nothing. */
static ls_status sum_sinks(struct ls_tensor *dsinks, struct ls_attention_plan *plan)
{
    const int64_t leaves = ls_layout_leaves(&plan->problem.q_layout);

    for (int64_t head = 0; head < plan->problem.shape.h; head++) {
        list_sink_terms(plan, head);
        LS_TRY(ls_comm_reduce(plan->gradients.sink, plan->comm, (int)leaves, LS_REDUCE_SUM));
        ((float *)dsinks->data)[head] = (float)add_leaves(plan->gradients.sink, leaves);
    }
    return LS_OK;
}

/* ---- execution */

static ls_status check_inputs(const struct ls_attention_plan *plan,
                              const struct ls_attention_saved *saved)
{
    const struct ls_problem *p = &plan->problem;
    const struct ls_part_dims dims = ls_plan_part_dims(plan);

    LS_TRY(ls_tensor_check(saved->q, "q", p->shape.type, 4, dims.q));
    LS_TRY(ls_tensor_check(saved->k, "k", p->shape.type, 4, dims.k));
    LS_TRY(ls_tensor_check(saved->v, "v", p->shape.type, 4, dims.k));
    LS_TRY(ls_tensor_check(saved->o, "o", p->shape.type, 4, dims.q));
    LS_TRY(ls_tensor_check(saved->lse, "lse", LS_F32, 3, dims.lse));
    LS_TRY(ls_tensor_check(saved->d_o, "do", p->shape.type, 4, dims.q));
    if (saved->o_lo) LS_TRY(ls_tensor_check(saved->o_lo, "o_lo", p->shape.type, 4, dims.q));
    return saved->dlse ? ls_tensor_check(saved->dlse, "dlse", LS_F32, 3, dims.lse) : LS_OK;
}

static ls_status check_outputs(const struct ls_attention_plan *plan,
                               const struct ls_attention_gradients *out)
{
    const struct ls_problem *p = &plan->problem;
    const struct ls_part_dims dims = ls_plan_part_dims(plan);

    LS_TRY(ls_tensor_check(out->dq, "dq", p->shape.type, 4, dims.q));
    LS_TRY(ls_tensor_check(out->dk, "dk", p->shape.type, 4, dims.k));
    LS_TRY(ls_tensor_check(out->dv, "dv", p->shape.type, 4, dims.k));
    if (!out->dsinks) return LS_OK;
    if (!p->scores.sinks)
        return ls_fail(LS_EVALUE, "dsinks is asked for, the plan is without sinks");
    return ls_tensor_check(out->dsinks, "dsinks", LS_F32, 1, &p->shape.h);
}

static ls_status check(const struct ls_attention_plan *plan,
                       const struct ls_attention_gradients *out,
                       const struct ls_attention_saved *saved)
{
    if (!plan->problem.backward)
        return ls_fail(LS_EVALUE, "the plan is for forward alone: it was made without "
                                  "options.backward");
    LS_TRY(check_inputs(plan, saved));
    return check_outputs(plan, out);
}

static void copy_lse(float *out, const struct ls_tensor *lse)
{
    for (int64_t i = 0; i < lse->dim[0]; i++)
        for (int64_t j = 0; j < lse->dim[1]; j++, out += lse->dim[2])
            memcpy(out, (const float *)lse->data + i * lse->stride[0] + j * lse->stride[1],
                   (size_t)lse->dim[2] * sizeof *out);
}

ls_status ls_attention_backward(const struct ls_attention_gradients *out,
                                struct ls_attention_plan *plan,
                                const struct ls_attention_saved *saved)
{
    const struct ls_gradients *g = &plan->gradients;
    const struct ls_backward_call call = {
        .dq = out->dq,
        .dk = out->dk,
        .dv = out->dv,
        .q = saved->q,
        .k = saved->k,
        .v = saved->v,
        .d_o = saved->d_o,
        .lse = g->lse,
        .delta = g->delta,
    };

    LS_TRY(ls_comm_agree(plan->comm, check(plan, out, saved)));
    LS_TRY(ls_plan_ask_alike(plan, "dsinks", out->dsinks != NULL)); /* summed over all ranks */
    ls_plan_begin(plan);
    copy_lse(g->lse, saved->lse);
    ls_device_delta(&plan->problem.device, g->delta, saved->d_o, saved->o, saved->o_lo, saved->dlse,
                    plan->problem.threads);
    ls_status status = plan->method->backward(plan, &call);
    if (status != LS_ECOMM && out->dsinks) {
        const ls_status summed = sum_sinks(out->dsinks, plan);
        if (status == LS_OK || summed == LS_ECOMM) status = summed;
    }
    return ls_plan_end(&plan->backward, plan, status);
}
