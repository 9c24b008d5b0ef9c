/* Attention between the projections of a layer, in double precision, one query after the other. A
 * fused core rounds probabilities as factors of products, a materialized one as it keeps them:
 * softmax, and once more what dropout makes of it. */
#ifndef LS_REFERENCE_LAYER_CORE_H
#define LS_REFERENCE_LAYER_CORE_H

#include "longspan/layer.h"

struct ls_reference_core {
    struct ls_layer_shape shape;
    ls_core_kind core; /* whose roundings; without any, both are the same */
    ls_dtype type;     /* what probabilities are rounded to, and their gradients; LS_F64: nothing is
                        * rounded */
    bool causal;
    float dropout;
    uint64_t seed;
    double *qkv;     /* [b, s, (h + 2 h_kv) d] */
    double *o, *lse; /* [b, s, h d], [b, h, s] */
};

/* o and lse of qkv. Errors (both): LS_ENOMEM. */
ls_status ls_reference_core_forward(const struct ls_reference_core *core);

/* dqkv of d_o [b, s, h d]; o and lse are those of forward, of which o may have been rounded. */
ls_status ls_reference_core_backward(double *dqkv, const struct ls_reference_core *core,
                                     const double *d_o);

/* What is left of a value that is stored. */
double ls_reference_rounded(ls_dtype type, double value);

#endif
