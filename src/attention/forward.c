/* An execution forward, and what every execution begins and ends with. */

#include "attention/operands.h"
#include "attention/plan.h"
#include "attention/travelling/redistribute.h"

struct ls_part_dims ls_plan_part_dims(const struct ls_attention_plan *plan)
{
    const struct ls_attention_shape *s = &plan->problem.shape;
    const int64_t q_rows = plan->q_rows, k_rows = plan->k_rows;

    return (struct ls_part_dims){.q = {s->b, q_rows, s->h, s->d},
                                 .k = {s->b, k_rows, s->h_kv, s->d},
                                 .lse = {s->b, s->h, q_rows}};
}

static ls_status check_call(const struct ls_attention_plan *plan,
                            const struct ls_attention_call *call)
{
    const ls_dtype type = plan->problem.shape.type;
    const struct ls_part_dims dims = ls_plan_part_dims(plan);

    if (call->o_lo && !plan->problem.backward)
        return ls_fail(LS_EVALUE, "o_lo is for backward, the plan was made without "
                                  "options.backward");

    const struct ls_operand list[] = {
        {"o", call->o, type, 4, dims.q, false},         {"o_lo", call->o_lo, type, 4, dims.q, true},
        {"lse", call->lse, LS_F32, 3, dims.lse, false}, {"q", call->q, type, 4, dims.q, false},
        {"k", call->k, type, 4, dims.k, false},         {"v", call->v, type, 4, dims.k, false},
    };

    return ls_operands_check(list, sizeof list / sizeof *list, 3);
}

void ls_plan_begin(struct ls_attention_plan *plan, const char *direction)
{
    ls_comm_place(plan->comm, plan->method->name, direction);
    ls_plan_queue(plan)->progress = plan->traffic.idle;
    plan->work = (struct ls_work){0};
    plan->traffic.bytes_sent = 0;
    plan->traffic.exposed_seconds = 0;
}

ls_status ls_plan_end(struct ls_execution *out, struct ls_attention_plan *plan, ls_status status)
{
    const ls_status computed = ls_queue_finish(&plan->work, ls_plan_queue(plan));

    ls_plan_queue(plan)->progress = (struct ls_progress){0};
    *out = (struct ls_execution){.work = plan->work,
                                 .bytes_sent = plan->traffic.bytes_sent,
                                 .exposed_seconds = plan->traffic.exposed_seconds};
    if (status == LS_ECOMM) return status; /* nobody can be asked any more */
    LS_TRY(ls_comm_agree(plan->comm, status == LS_OK ? computed : status));
    ls_comm_place(plan->comm, "", "");
    return LS_OK;
}

ls_status ls_plan_ask_alike(const struct ls_attention_plan *plan, const char *name, bool asked)
{
    bool same;

    LS_TRY(ls_comm_alike(&same, plan->comm, asked));
    if (same) return LS_OK;
    return ls_fail(LS_EVALUE, "%s is asked for on some ranks and not on others", name);
}

static ls_status forward_own_rows(struct ls_attention_plan *plan,
                                  const struct ls_attention_call *call)
{
    struct ls_redistribution *r = plan->redistribution;
    const struct ls_tensor *const in[LS_TRAVELLERS] = {
        [LS_Q] = call->q, [LS_K] = call->k, [LS_V] = call->v};
    const struct ls_tensor *const out[LS_TRAVELLERS] = {
        [LS_LSE] = call->lse, [LS_O] = call->o, [LS_O_LO] = call->o_lo};
    struct ls_tensor part[LS_TRAVELLERS];

    for (int which = 0; which < LS_TRAVELLERS; which++)
        if (in[which] || out[which])
            ls_redistribution_part(&part[which], r, which, in[which] ? in[which] : out[which]);
    LS_TRY(ls_redistribute_to_parts(r, in));
    LS_TRY(plan->method->forward(
        plan, &(struct ls_attention_call){.o = &part[LS_O],
                                          .o_lo = call->o_lo ? &part[LS_O_LO] : NULL,
                                          .lse = &part[LS_LSE],
                                          .q = &part[LS_Q],
                                          .k = &part[LS_K],
                                          .v = &part[LS_V]}));
    return ls_redistribute_to_pieces(out, r);
}

ls_status ls_attention_forward_residual(struct ls_tensor *o, struct ls_tensor *o_lo,
                                        struct ls_tensor *lse, struct ls_attention_plan *plan,
                                        const struct ls_tensor *q, const struct ls_tensor *k,
                                        const struct ls_tensor *v)
{
    const struct ls_attention_call call = {
        .o = o, .o_lo = o_lo, .lse = lse, .q = q, .k = k, .v = v};

    LS_TRY(ls_comm_agree(plan->comm, check_call(plan, &call)));
    if (plan->problem.backward) LS_TRY(ls_plan_ask_alike(plan, "o_lo", o_lo != NULL));
    ls_plan_begin(plan, "forward");
    const ls_status status =
        plan->redistribution ? forward_own_rows(plan, &call) : plan->method->forward(plan, &call);
    return ls_plan_end(&plan->forward, plan, status);
}

ls_status ls_attention_forward(struct ls_tensor *o, struct ls_tensor *lse,
                               struct ls_attention_plan *plan, const struct ls_tensor *q,
                               const struct ls_tensor *k, const struct ls_tensor *v)
{
    return ls_attention_forward_residual(o, NULL, lse, plan, q, k, v);
}
