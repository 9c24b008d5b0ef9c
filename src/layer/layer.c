/* Executions of a layer: what callers bring is checked, and all ranks agree. */
#include "attention/agreement.h"
#include "device/rows.h"
#include "layer/operands.h"
#include "layer/pass.h"

/* Of a call: this rank's tensors, what is drawn, and what is computed again. */
static ls_status agree(const struct ls_layer_state *state, ls_status status, uint64_t seed)
{
    const bool drops = state->plan->options.dropout > 0;
    const struct ls_topic topics[] = {
        {"seed of dropout", drops ? ls_digest(&seed, sizeof seed) : 0, false},
        {"pieces to recompute", state->pieces, false},
    };

    return ls_agree_about(state->plan->grid.all, status, topics, sizeof topics / sizeof *topics);
}

ls_status ls_layer_run_forward(struct ls_tensor *y, struct ls_layer_plan *plan,
                               struct ls_layer_state *state,
                               const struct ls_layer_parameters *parameters,
                               const struct ls_tensor *x, uint64_t seed)
{
    struct ls_layer_pass pass = {.plan = plan, .state = state, .parameters = parameters, .y = y};
    struct ls_tensor input = ls_layer_kept(state, LS_KEPT_INPUT);

    for (int kind = 0; kind < LS_KEPT_KINDS; kind++) pass.makes[kind] = true;
    state->seed = seed;
    ls_copy(&plan->device->queue, &input, x);
    return ls_layer_make(&pass);
}

ls_status ls_layer_end(struct ls_layer_plan *plan, ls_status status)
{
    const ls_status computed = ls_queue_finish(NULL, &plan->device->queue);

    if (status == LS_ECOMM) return status; /* nobody can be asked any more */
    return ls_comm_agree(plan->grid.all, status == LS_OK ? computed : status);
}

ls_status ls_layer_forward(struct ls_tensor *y, struct ls_layer_plan *plan,
                           struct ls_layer_state *state,
                           const struct ls_layer_parameters *parameters, const struct ls_tensor *x,
                           uint64_t seed)
{
    LS_TRY(agree(state, ls_layer_check_call(plan, y, "y", x, "x", parameters, NULL), seed));
    return ls_layer_end(plan, ls_layer_run_forward(y, plan, state, parameters, x, seed));
}

ls_status ls_layer_backward(struct ls_tensor *dx, const struct ls_layer_parameters *gradients,
                            struct ls_layer_plan *plan, struct ls_layer_state *state,
                            const struct ls_layer_parameters *parameters,
                            const struct ls_tensor *dy)
{
    LS_TRY(agree(state, ls_layer_check_call(plan, dx, "dx", dy, "dy", parameters, gradients),
                 state->seed));
    return ls_layer_end(plan, ls_layer_run_backward(dx, gradients, plan, state, parameters, dy));
}

int64_t ls_layer_bytes_sent(const struct ls_layer_plan *plan)
{
    return plan->traffic.bytes_sent + plan->attention_bytes;
}
