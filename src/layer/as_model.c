#include "layer/as_model.h"

struct ls_model_shape ls_layer_as_model(const struct ls_layer_shape *shape,
                                        const struct ls_layer_options *options)
{
    const bool rotary = options->rope_theta != 0;

    return (struct ls_model_shape){.h = shape->e,
                                   .L = 1,
                                   .a = shape->h,
                                   .a_kv = shape->h_kv,
                                   .d = shape->d,
                                   .f = shape->f,
                                   .norm = options->norm,
                                   .activation = options->activation,
                                   .bias = !options->no_bias,
                                   .post_norm = options->post_norm,
                                   .parallel = options->parallel,
                                   .positions = rotary ? LS_POSITIONS_ROTARY : LS_POSITIONS_NONE};
}

struct ls_model_run ls_layer_as_run(const struct ls_layer_shape *shape,
                                    const struct ls_layer_options *options)
{
    return (struct ls_model_run){.type = shape->type,
                                 .b = shape->b,
                                 .s = shape->s,
                                 .t = options->tp,
                                 .c = options->cp,
                                 .p = 1,
                                 .m = 1,
                                 .sp = options->sp && options->tp > 1,
                                 .causal = options->causal,
                                 .layout = options->layout,
                                 .dropout = options->dropout > 0,
                                 .core = options->core};
}

struct ls_model_run ls_layer_plan_as_run(const struct ls_layer_plan *plan, unsigned pieces)
{
    struct ls_model_run run = ls_layer_as_run(&plan->shape, &plan->options);

    run.layout = plan->layout.kind;
    run.has_rows = true;
    run.rows = plan->rows;
    run.outer_rows = plan->outer_rows;
    run.pieces = pieces;
    return run;
}

struct ls_layer_place ls_layer_plan_place(const struct ls_layer_plan *plan)
{
    return (struct ls_layer_place){.tensor = plan->grid.tensor,
                                   .outer_nodes = plan->outer.most,
                                   .inner_nodes = plan->inner.most,
                                   .weight_sums = plan->weights.tree.sums,
                                   .key_sums = plan->key_sums};
}
