/* An execution forward. */
#include "attention/operands.h"
#include "attention/plan.h"
#include "attention/travelling/redistribute.h"

struct ls_part_dims ls_plan_part_dims(const struct ls_attention_plan *plan)
{
    const struct ls_attention_shape *s = &plan->problem.shape;
    const int64_t q_rows = plan->q_rows, k_rows = plan->k_rows;

    return (struct ls_part_dims){.q = {s->b, q_rows, s->h, s->d},
                                 .k = {s->b, k_rows, s->h_kv, ls_key_width(s)},
                                 .v = {s->b, k_rows, s->h_kv, ls_value_width(s)},
                                 .o = {s->b, q_rows, s->h, ls_value_dim(s)},
                                 .lse = {s->b, s->h, q_rows}};
}

static ls_status check_call(const struct ls_attention_plan *plan,
                            const struct ls_attention_call *call)
{
    const ls_dtype type = plan->problem.shape.type, of_keys = ls_key_type(&plan->problem.shape);
    const struct ls_part_dims dims = ls_plan_part_dims(plan);

    if (call->o_lo && !plan->problem.backward)
        return ls_fail(LS_EVALUE, "o_lo is for backward, the plan was made without "
                                  "options.backward");

    const struct ls_operand list[] = {
        {"o", call->o, type, 4, dims.o, false},         {"o_lo", call->o_lo, type, 4, dims.o, true},
        {"lse", call->lse, LS_F32, 3, dims.lse, false}, {"q", call->q, type, 4, dims.q, false},
        {"k", call->k, of_keys, 4, dims.k, false},      {"v", call->v, of_keys, 4, dims.v, false},
    };

    return ls_operands_check(list, sizeof list / sizeof *list, 3, plan->problem.device);
}

static ls_status forward_own_rows(struct ls_attention_plan *plan,
                                  const struct ls_attention_call *call)
{
    struct ls_redistribution *r = plan->redistribution;
    const struct ls_tensor *const in[LS_TRAVELLERS] = {
        [LS_LIKE_Q] = call->q, [LS_LIKE_K] = call->k, [LS_LIKE_V] = call->v};
    const struct ls_tensor *const out[LS_TRAVELLERS] = {
        [LS_LSE] = call->lse, [LS_LIKE_O] = call->o, [LS_O_LO] = call->o_lo};
    struct ls_tensor part[LS_TRAVELLERS];

    for (int which = 0; which < LS_TRAVELLERS; which++)
        if (in[which] || out[which])
            ls_redistribution_part(&part[which], r, which, in[which] ? in[which] : out[which]);
    LS_TRY(ls_redistribute_to_parts(r, in));
    LS_TRY(plan->method->forward(
        plan, &(struct ls_attention_call){.o = &part[LS_LIKE_O],
                                          .o_lo = call->o_lo ? &part[LS_O_LO] : NULL,
                                          .lse = &part[LS_LSE],
                                          .q = &part[LS_LIKE_Q],
                                          .k = &part[LS_LIKE_K],
                                          .v = &part[LS_LIKE_V]}));
    return ls_redistribute_to_pieces(out, r);
}

ls_status ls_plan_forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    ls_plan_begin(plan, "forward");
    const ls_status status =
        plan->redistribution ? forward_own_rows(plan, call) : plan->method->forward(plan, call);

    ls_plan_leave(plan);
    return status;
}

ls_status ls_attention_forward_residual(struct ls_tensor *o, struct ls_tensor *o_lo,
                                        struct ls_tensor *lse, struct ls_attention_plan *plan,
                                        const struct ls_tensor *q, const struct ls_tensor *k,
                                        const struct ls_tensor *v,
                                        const struct ls_attention_execution *execution)
{
    const struct ls_attention_call call = {
        .o = o, .o_lo = o_lo, .lse = lse, .q = q, .k = k, .v = v};

    ls_status status = ls_plan_take(plan, execution);

    if (status == LS_OK) status = check_call(plan, &call);
    LS_TRY(ls_plan_agree(plan, status, "wish for o_lo", o_lo != NULL));
    return ls_plan_end(&plan->forward, plan, ls_plan_forward(plan, &call));
}

ls_status ls_attention_forward(struct ls_tensor *o, struct ls_tensor *lse,
                               struct ls_attention_plan *plan, const struct ls_tensor *q,
                               const struct ls_tensor *k, const struct ls_tensor *v,
                               const struct ls_attention_execution *execution)
{
    return ls_attention_forward_residual(o, NULL, lse, plan, q, k, v, execution);
}
