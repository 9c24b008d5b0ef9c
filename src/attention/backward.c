/* An execution backward. */
#include "attention/bias_gradient.h"
#include "attention/distances.h"
#include "attention/operands.h"
#include "attention/plan.h"
#include "attention/travelling/redistribute.h"
#include "device/rows.h"

/* ---- what is asked for */

static ls_status check(const struct ls_attention_plan *plan,
                       const struct ls_attention_gradients *out,
                       const struct ls_attention_saved *saved)
{
    const struct ls_problem *p = &plan->problem;
    const struct ls_part_dims dims = ls_plan_part_dims(plan);
    const ls_dtype type = p->shape.type;
    const int64_t distances[] = {p->shape.h, p->scores.distances};
    const int64_t biases[] = {p->scores.bias_entry > 0 ? p->shape.b : 1,
                              p->scores.bias_head > 0 ? p->shape.h : 1, dims.q[1], p->shape.s_k};
    const struct ls_operand list[] = {
        {"dq", out->dq, type, 4, dims.q, false},
        {"dk", out->dk, type, 4, dims.k, false},
        {"dv", out->dv, type, 4, dims.v, false},
        {"dsinks", out->dsinks, LS_F32, 1, &p->shape.h, true},
        {"ddistance_bias", out->ddistance_bias, LS_F32, 2, distances, true},
        {"dbias", out->dbias, LS_F32, 4, biases, true},
        {"q", saved->q, type, 4, dims.q, false},
        {"k", saved->k, type, 4, dims.k, false},
        {"v", saved->v, type, 4, dims.v, false},
        {"o", saved->o, type, 4, dims.o, false},
        {"lse", saved->lse, LS_F32, 3, dims.lse, false},
        {"do", saved->d_o, type, 4, dims.o, false},
        {"o_lo", saved->o_lo, type, 4, dims.o, true},
        {"dlse", saved->dlse, LS_F32, 3, dims.lse, true},
    };

    if (!p->backward)
        return ls_fail(LS_EVALUE, "the plan is for forward alone: it was made without "
                                  "options.backward");
    if (out->dsinks && !p->scores.sinks)
        return ls_fail(LS_EVALUE, "dsinks is asked for, the plan is without sinks");
    if (out->ddistance_bias && !p->scores.distance_bias)
        return ls_fail(LS_EVALUE, "ddistance_bias is asked for, the plan is without such biases");
    if (out->dbias && !p->scores.bias)
        return ls_fail(LS_EVALUE, "dbias is asked for, the plan is without biases of pairs");
    return ls_operands_check(list, sizeof list / sizeof *list, 6, p->device);
}

/* ---- sinks */

/* The sum over n leaves by the tree; used up. */
static double add_leaves(double *leaf, int64_t n)
{
    for (int64_t apart = 1; apart < n; apart *= 2)
        for (int64_t i = 0; i + apart < n; i += 2 * apart) leaf[i] += leaf[i + apart];
    return n > 0 ? leaf[0] : 0;
}

/* The device has found what the leaves of this rank add; 0 is of the others' leaves. */
static void place_sinks(const struct ls_attention_plan *plan)
{
    const struct ls_gradients *g = &plan->gradients;
    const int64_t leaves = ls_layout_leaves(&plan->problem.q_layout), own = plan->q_leaves.count;

    for (int64_t i = 0; i < plan->problem.shape.h * leaves; i++) g->sink[i] = 0;
    for (int64_t head = 0; head < plan->problem.shape.h; head++)
        for (int64_t i = 0; i < own; i++)
            g->sink[head * leaves + plan->q_leaves.leaf[i].number] = g->own_sink[head * own + i];
}

/* dsink = - sum over rows of exp(sink - lse) delta. One rank alone has rows of a leaf, so that the
 * reduction only brings together and rounds nothing. */
static ls_status sum_sinks(struct ls_tensor *dsinks, struct ls_attention_plan *plan)
{
    const struct ls_gradients *g = &plan->gradients;
    const struct ls_attention_shape *s = &plan->problem.shape;
    const int64_t leaves = ls_layout_leaves(&plan->problem.q_layout);
    const struct ls_sink_rows rows = {.lse = g->lse,
                                      .delta = g->delta,
                                      .b = s->b,
                                      .h = s->h,
                                      .s = ls_layout_part_rows(&plan->problem.q_layout, plan->rank),
                                      .first = g->sink_first,
                                      .rows = g->sink_rows,
                                      .leaves = plan->q_leaves.count};

    ls_sink_sums(ls_plan_queue(plan), g->own_sink,
                 plan->problem.scores.sinks + plan->problem.scores.first_head, &rows);
    const ls_status computed = ls_queue_finish(&plan->work, ls_plan_queue(plan));

    place_sinks(plan);
    LS_TRY(ls_comm_reduce(g->sink, plan->comm, (int)(s->h * leaves), LS_REDUCE_SUM));
    for (int64_t head = 0; head < s->h; head++) {
        const float sum = (float)add_leaves(g->sink + head * leaves, leaves);

        ls_device_write(plan->problem.device, (float *)dsinks->data + head, &sum, sizeof sum);
    }
    return computed;
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
    ls_delta(ls_plan_queue(plan), delta, saved->d_o, saved->o, saved->o_lo, saved->dlse);
}

/* lse and delta [b, h, s_q_loc]: of the caller's queries. */
static ls_status find_biases(struct ls_tensor *dbias, struct ls_attention_plan *plan,
                             const struct ls_attention_saved *saved, const struct ls_tensor *lse,
                             const struct ls_tensor *delta, const struct ls_tensor *k,
                             const struct ls_tensor *v)
{
    if (!dbias) return LS_OK;
    return ls_bias_gradient_find(
        dbias, plan,
        &(struct ls_bias_operands){
            .q = saved->q, .d_o = saved->d_o, .k = k, .v = v, .lse = lse, .delta = delta});
}

static ls_status backward_parts(const struct ls_attention_gradients *out,
                                struct ls_attention_plan *plan,
                                const struct ls_attention_saved *saved)
{
    const struct ls_gradients *g = &plan->gradients;
    const struct ls_tensor delta = ls_tensor_view(g->delta, LS_F32, 3, saved->lse->dim);

    take_numbers(g->lse, plan, saved->lse);
    find_delta(g->delta, plan, saved);
    LS_TRY(find_biases(out->dbias, plan, saved, saved->lse, &delta, saved->k, saved->v));
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

/* The parts of gradients take the place of those of q, k and v. */
static ls_status backward_own_rows(const struct ls_attention_gradients *out,
                                   struct ls_attention_plan *plan,
                                   const struct ls_attention_saved *saved)
{
    const struct ls_gradients *g = &plan->gradients;
    struct ls_redistribution *r = plan->redistribution;
    const struct ls_tensor delta = ls_redistribution_delta(r, g->delta);
    const struct ls_tensor *const in[LS_TRAVELLERS] = {
        [LS_LSE] = saved->lse,  [LS_DELTA] = &delta,    [LS_LIKE_Q] = saved->q,
        [LS_LIKE_K] = saved->k, [LS_LIKE_V] = saved->v, [LS_LIKE_O] = saved->d_o};
    const struct ls_tensor *const back[LS_TRAVELLERS] = {
        [LS_LIKE_Q] = out->dq, [LS_LIKE_K] = out->dk, [LS_LIKE_V] = out->dv};
    struct ls_tensor part[LS_TRAVELLERS], gradient[LS_TRAVELLERS];

    find_delta(delta.data, plan, saved);
    for (int which = 0; which < LS_TRAVELLERS; which++) {
        if (in[which]) ls_redistribution_part(&part[which], r, which, in[which]);
        if (back[which]) ls_redistribution_part(&gradient[which], r, which, back[which]);
    }
    LS_TRY(ls_redistribute_to_parts(r, in));
    take_numbers(g->lse, plan, &part[LS_LSE]);
    take_numbers(g->delta, plan, &part[LS_DELTA]);
    LS_TRY(find_biases(out->dbias, plan, saved, saved->lse, &delta, &part[LS_LIKE_K],
                       &part[LS_LIKE_V]));
    LS_TRY(plan->method->backward(plan, &(struct ls_backward_call){.dq = &gradient[LS_LIKE_Q],
                                                                   .dk = &gradient[LS_LIKE_K],
                                                                   .dv = &gradient[LS_LIKE_V],
                                                                   .q = &part[LS_LIKE_Q],
                                                                   .k = &part[LS_LIKE_K],
                                                                   .v = &part[LS_LIKE_V],
                                                                   .d_o = &part[LS_LIKE_O],
                                                                   .lse = g->lse,
                                                                   .delta = g->delta}));
    return ls_redistribute_to_pieces(back, r);
}

/* Collective, so that a rank whose operations failed takes part in both. */
static ls_status sum_over_ranks(const struct ls_attention_gradients *out,
                                struct ls_attention_plan *plan)
{
    ls_status first = LS_OK, status = LS_OK;

    if (out->dsinks) first = sum_sinks(out->dsinks, plan);
    if (first != LS_ECOMM && out->ddistance_bias)
        status = ls_distances_end(out->ddistance_bias, plan);
    return first == LS_OK || status == LS_ECOMM ? status : first;
}

ls_status ls_plan_backward(const struct ls_attention_gradients *out, struct ls_attention_plan *plan,
                           const struct ls_attention_saved *saved)
{
    ls_plan_begin(plan, "backward");
    if (out->ddistance_bias) ls_distances_begin(plan);
    ls_status status = plan->redistribution ? backward_own_rows(out, plan, saved)
                                            : backward_parts(out, plan, saved);

    if (status == LS_OK) status = sum_over_ranks(out, plan);
    ls_plan_leave(plan);
    return status;
}

ls_status ls_attention_backward(const struct ls_attention_gradients *out,
                                struct ls_attention_plan *plan,
                                const struct ls_attention_saved *saved,
                                const struct ls_attention_execution *execution)
{
    ls_status status = ls_plan_take(plan, execution);

    if (status == LS_OK) status = check(plan, out, saved);
    LS_TRY(ls_plan_agree(plan, status, "wish for gradients of sinks or biases",
                         (out->dsinks != NULL) + 2 * (out->ddistance_bias != NULL) +
                             4 * (out->dbias != NULL)));
    return ls_plan_end(&plan->backward, plan, ls_plan_backward(out, plan, saved));
}
