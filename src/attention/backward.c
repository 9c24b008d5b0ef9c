/* An execution backward. */
#include <math.h>

#include "attention/operands.h"
#include "attention/plan.h"
#include "attention/travelling/redistribute.h"

/* ---- what is asked for */

static ls_status check(const struct ls_attention_plan *plan,
                       const struct ls_attention_gradients *out,
                       const struct ls_attention_saved *saved)
{
    const struct ls_problem *p = &plan->problem;
    const struct ls_part_dims dims = ls_plan_part_dims(plan);
    const ls_dtype type = p->shape.type;
    const struct ls_operand list[] = {
        {"dq", out->dq, type, 4, dims.q, false},
        {"dk", out->dk, type, 4, dims.k, false},
        {"dv", out->dv, type, 4, dims.k, false},
        {"dsinks", out->dsinks, LS_F32, 1, &p->shape.h, true},
        {"q", saved->q, type, 4, dims.q, false},
        {"k", saved->k, type, 4, dims.k, false},
        {"v", saved->v, type, 4, dims.k, false},
        {"o", saved->o, type, 4, dims.q, false},
        {"lse", saved->lse, LS_F32, 3, dims.lse, false},
        {"do", saved->d_o, type, 4, dims.q, false},
        {"o_lo", saved->o_lo, type, 4, dims.q, true},
        {"dlse", saved->dlse, LS_F32, 3, dims.lse, true},
    };

    if (!p->backward)
        return ls_fail(LS_EVALUE, "the plan is for forward alone: it was made without "
                                  "options.backward");
    if (out->dsinks && !p->scores.sinks)
        return ls_fail(LS_EVALUE, "dsinks is asked for, the plan is without sinks");
    return ls_operands_check(list, sizeof list / sizeof *list, 4);
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

    for (int64_t i = 0; i < ls_layout_leaves(queries); i++) g->sink[i] = 0;
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

/* out [b, h, s] = lse or delta. */
static void take_numbers(float *out, const struct ls_attention_plan *plan,
                         const struct ls_tensor *numbers)
{
    const struct ls_tensor view = ls_travel_transposed(numbers);

    ls_travel_take_numbers(out, &plan->problem, &view);
}

static void find_delta(float *delta, const struct ls_attention_plan *plan,
                       const struct ls_attention_saved *saved)
{
    ls_device_delta(&plan->problem.device, delta, saved->d_o, saved->o, saved->o_lo, saved->dlse,
                    plan->problem.threads);
}

static ls_status backward_parts(const struct ls_attention_gradients *out,
                                struct ls_attention_plan *plan,
                                const struct ls_attention_saved *saved)
{
    const struct ls_gradients *g = &plan->gradients;

    take_numbers(g->lse, plan, saved->lse);
    find_delta(g->delta, plan, saved);
    return plan->method->backward(plan, &(struct ls_backward_call){.dq = out->dq,
                                                                   .dk = out->dk,
                                                                   .dv = out->dv,
                                                                   .q = saved->q,
                                                                   .k = saved->k,
                                                                   .v = saved->v,
                                                                   .d_o = saved->d_o,
                                                                   .lse = g->lse,
                                                                   .delta = g->delta});
}

/* The parts of gradients take the place of those of q, k and v. A rank whose method fails still
 * sends what the others wait for. */
static ls_status backward_own_rows(const struct ls_attention_gradients *out,
                                   struct ls_attention_plan *plan,
                                   const struct ls_attention_saved *saved)
{
    const struct ls_gradients *g = &plan->gradients;
    struct ls_redistribution *r = plan->redistribution;
    const struct ls_tensor delta = ls_redistribution_delta(r, g->delta);
    const struct ls_tensor *const in[LS_TRAVELLERS] = {
        [LS_LSE] = saved->lse, [LS_DELTA] = &delta, [LS_Q] = saved->q,
        [LS_K] = saved->k,     [LS_V] = saved->v,   [LS_O] = saved->d_o};
    const struct ls_tensor *const back[LS_TRAVELLERS] = {
        [LS_Q] = out->dq, [LS_K] = out->dk, [LS_V] = out->dv};
    struct ls_tensor part[LS_TRAVELLERS], gradient[LS_TRAVELLERS];

    find_delta(delta.data, plan, saved);
    for (int which = 0; which < LS_TRAVELLERS; which++) {
        if (in[which]) ls_redistribution_part(&part[which], r, which, in[which]);
        if (back[which]) ls_redistribution_part(&gradient[which], r, which, back[which]);
    }
    LS_TRY(ls_redistribute_to_parts(r, in));
    take_numbers(g->lse, plan, &part[LS_LSE]);
    take_numbers(g->delta, plan, &part[LS_DELTA]);
    const ls_status status =
        plan->method->backward(plan, &(struct ls_backward_call){.dq = &gradient[LS_Q],
                                                                .dk = &gradient[LS_K],
                                                                .dv = &gradient[LS_V],
                                                                .q = &part[LS_Q],
                                                                .k = &part[LS_K],
                                                                .v = &part[LS_V],
                                                                .d_o = &part[LS_O],
                                                                .lse = g->lse,
                                                                .delta = g->delta});
    if (status == LS_ECOMM) return status;
    LS_TRY(ls_redistribute_to_pieces(back, r));
    return status;
}

ls_status ls_attention_backward(const struct ls_attention_gradients *out,
                                struct ls_attention_plan *plan,
                                const struct ls_attention_saved *saved)
{
    LS_TRY(ls_comm_agree(plan->comm, check(plan, out, saved)));
    LS_TRY(ls_plan_ask_alike(plan, "dsinks", out->dsinks != NULL)); /* summed over all ranks */
    ls_plan_begin(plan, "backward");
    ls_status status = plan->redistribution ? backward_own_rows(out, plan, saved)
                                            : backward_parts(out, plan, saved);
    if (status != LS_ECOMM && out->dsinks) {
        const ls_status summed = sum_sinks(out->dsinks, plan);
        if (status == LS_OK || summed == LS_ECOMM) status = summed;
    }
    return ls_plan_end(&plan->backward, plan, status);
}
