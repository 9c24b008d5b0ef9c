/* What is between the projections of attention: from q, k and v to what attention makes of them,
 * and back. Each way of computing it is a row of the table that ls_layer_core_of looks in. */
#ifndef LS_LAYER_CORE_H
#define LS_LAYER_CORE_H

#include "layer/pass.h"

struct ls_layer_core {
    /* Finds the plan's layout, which says where rows stand. Collective over the context-parallel
     * ranks, which may fail differently. Errors: LS_EVALUE, LS_ESHAPE, LS_EFIT, LS_ENOMEM,
     * LS_ECOMM. */
    ls_status (*create)(struct ls_layer_plan *plan);

    /* Accepts a plan whose create failed, or was not called. */
    void (*destroy)(struct ls_layer_plan *plan);

    /* Of LS_KEPT_QKV: what a pass makes of the core's kinds. Errors: LS_EVALUE, LS_ECOMM. */
    ls_status (*forward)(const struct ls_layer_pass *pass);

    /* dqkv [b, rows, width of q, k and v] is written, of d_o [b, rows, heads d]. Errors: LS_EVALUE,
     * LS_ECOMM. */
    ls_status (*backward)(const struct ls_tensor *dqkv, struct ls_layer_plan *plan,
                          const struct ls_layer_state *state, const struct ls_tensor *d_o);
};

extern const struct ls_layer_core ls_layer_core_fused, ls_layer_core_materialized;

/* Errors: LS_EVALUE for a kind that is none. */
ls_status ls_layer_core_of(const struct ls_layer_core **out, ls_core_kind kind);

#endif
