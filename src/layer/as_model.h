/* A layer as the planner knows it (plan/model.h). */
#ifndef LS_LAYER_AS_MODEL_H
#define LS_LAYER_AS_MODEL_H

#include "layer/plan.h"
#include "plan/layer_traffic.h"

/* One layer, without words; and how it is run, keeping everything, on the rank that has most rows.
 * Options as they are read: tp and cp at least 1. */
struct ls_model_shape ls_layer_as_model(const struct ls_layer_shape *shape,
                                        const struct ls_layer_options *options);
struct ls_model_run ls_layer_as_run(const struct ls_layer_shape *shape,
                                    const struct ls_layer_options *options);

/* How a plan is run on this rank, with these pieces; and what besides says what it sends. */
struct ls_model_run ls_layer_plan_as_run(const struct ls_layer_plan *plan, unsigned pieces);
struct ls_layer_place ls_layer_plan_place(const struct ls_layer_plan *plan);

#endif
