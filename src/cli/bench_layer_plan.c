#include "attention/plan.h"
#include "cli/bench_layer.h"
#include "comm/comm.h"
#include "plan/memory.h"

struct ls_model_run cli_layer_how(const struct cli_layer_run *run, unsigned pieces)
{
    struct ls_model_run how;

    if (run->plan) return ls_layer_plan_as_run(run->plan, pieces);
    how = ls_layer_as_run(&run->shape, &run->layer);
    how.pieces = pieces;
    return how;
}

/* What all ranks together send in fused attention, which runs forward so often in all layers. */
static ls_status plan_attention(int64_t *bytes, const struct cli_layer_run *run, int64_t forward)
{
    struct ls_cost cost;

    *bytes = 0;
    if (run->layer.core != LS_CORE_FUSED) return LS_OK;
    LS_TRY(ls_comm_agree(run->world->comm, ls_plan_cost(&cost, run->plan->attention)));
    *bytes = run->layer.tp *
             (forward * cost.bytes_sent + run->options.layers * cost.backward_bytes_sent);
    return LS_OK;
}

ls_status cli_layer_plan(struct cli_layer_run *run)
{
    const struct ls_layer_plan *plan = run->plan;
    const struct ls_model_shape model = ls_layer_as_model(&run->shape, &run->layer);
    const struct ls_layer_place place = ls_layer_plan_place(plan);
    struct cli_layer_bytes *planned = &run->planned;
    int64_t again = 0, forward = 0;

    *planned = (struct cli_layer_bytes){.kept = 0};
    for (int64_t i = 0; i < run->options.layers; i++) {
        const struct ls_model_run how = cli_layer_how(run, run->pieces[i]);
        const struct ls_kept_bytes kept = ls_layer_kept_bytes(&model, &how);
        const struct ls_layer_traffic traffic = ls_layer_traffic_of(&model, &how, &place);
        const int64_t brought_back = ls_layer_again_bytes(&model, &how);

        planned->kept += kept.paper + kept.own;
        planned->sent += traffic.rows + traffic.weights + traffic.vectors + traffic.keys;
        planned->weights += traffic.weights;
        planned->vectors += traffic.vectors;
        forward += traffic.attentions;
        if (brought_back > again) again = brought_back;
    }
    planned->peak = planned->kept + again;
    return plan_attention(&planned->attention, run, forward);
}
