/* The fused core: attention by tiles, by any method that there is. Its output and LSE are all that
 * it keeps. */
#include <string.h>

#include "attention/plan.h"
#include "layer/core.h"

static ls_status create(struct ls_layer_plan *plan)
{
    const struct ls_layer_shape *s = &plan->shape;
    const struct ls_layer_options *o = &plan->options;
    const struct ls_attention_shape shape = {.b = s->b,
                                             .h = plan->heads,
                                             .h_kv = plan->kv_heads,
                                             .s_q = s->s,
                                             .s_k = s->s,
                                             .d = s->d,
                                             .type = s->type};
    struct ls_attention_options options = LS_ATTENTION_OPTIONS;

    options.method = o->method;
    options.layout = o->layout;
    options.causal = o->causal;
    options.strict = o->strict;
    options.dropout = o->dropout;
    options.first_head = plan->grid.tensor * plan->heads;
    options.total_heads = s->h;
    options.total_kv_heads = s->h_kv;
    options.backward = true;
    options.device = plan->device;
    LS_TRY(ls_attention_plan_create(&plan->attention, plan->grid.context_ranks, &shape, &options));
    plan->layout = ls_attention_plan_query_layout(plan->attention);
    memcpy(plan->fingerprint, plan->attention->fingerprint, sizeof plan->fingerprint);
    return LS_OK;
}

/* The next execution drops what the state's seed says. */
static ls_status take_seed(struct ls_layer_plan *plan, const struct ls_layer_state *state)
{
    struct ls_attention_execution execution = LS_ATTENTION_EXECUTION;

    execution.has_dropout_seed = true;
    execution.dropout_seed = state->seed;
    return ls_plan_take(plan->attention, &execution);
}

static ls_status forward(const struct ls_layer_pass *p)
{
    struct ls_layer_plan *plan = p->plan;
    const struct ls_tensor qkv = ls_layer_kept(p->state, LS_KEPT_QKV);
    const struct ls_tensor all = ls_layer_kept(p->state, LS_KEPT_ATTENTION);
    struct ls_tensor lse = ls_layer_kept(p->state, LS_KEPT_LSE);
    const struct ls_layer_heads heads = ls_layer_heads_of(plan, &qkv);
    struct ls_tensor o = ls_layer_output_heads(plan, &all);

    LS_TRY(take_seed(plan, p->state));
    LS_TRY(ls_plan_forward(plan->attention,
                           &(struct ls_attention_call){
                               .o = &o, .lse = &lse, .q = &heads.q, .k = &heads.k, .v = &heads.v}));
    plan->attention_bytes += plan->attention->traffic.bytes_sent;
    return LS_OK;
}

static ls_status backward(const struct ls_tensor *dqkv, struct ls_layer_plan *plan,
                          const struct ls_layer_state *state, const struct ls_tensor *d_o)
{
    const struct ls_tensor qkv = ls_layer_kept(state, LS_KEPT_QKV);
    const struct ls_tensor all = ls_layer_kept(state, LS_KEPT_ATTENTION);
    const struct ls_tensor lse = ls_layer_kept(state, LS_KEPT_LSE);
    const struct ls_layer_heads in = ls_layer_heads_of(plan, &qkv);
    struct ls_layer_heads out = ls_layer_heads_of(plan, dqkv);
    const struct ls_tensor o = ls_layer_output_heads(plan, &all);
    const struct ls_tensor d_heads = ls_layer_output_heads(plan, d_o);

    LS_TRY(take_seed(plan, state));
    LS_TRY(ls_plan_backward(
        &(struct ls_attention_gradients){.dq = &out.q, .dk = &out.k, .dv = &out.v}, plan->attention,
        &(struct ls_attention_saved){
            .q = &in.q, .k = &in.k, .v = &in.v, .o = &o, .lse = &lse, .d_o = &d_heads}));
    plan->attention_bytes += plan->attention->traffic.bytes_sent;
    return LS_OK;
}

static void destroy(struct ls_layer_plan *plan)
{
    ls_attention_plan_destroy(plan->attention);
}

const struct ls_layer_core ls_layer_core_fused = {
    .create = create, .destroy = destroy, .forward = forward, .backward = backward};
