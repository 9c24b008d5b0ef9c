/* A transformer layer, forward and backward, in double precision on one process: slow and plain.
 * With `type` f64 it is the truth; with a storage type it is a twin that rounds where a layer
 * stores. */
#ifndef LS_REFERENCE_LAYER_H
#define LS_REFERENCE_LAYER_H

#include "longspan/layer.h"

/* The whole of each parameter, as in struct ls_layer_parameters with one tensor-parallel rank; NULL
 * where there is none. The same for gradients. */
struct ls_reference_parameters {
    double *norm1, *norm1_bias, *qkv, *qkv_bias, *out, *out_bias;
    double *norm2, *norm2_bias, *up, *up_bias, *down, *down_bias;
};

struct ls_reference_layer {
    struct ls_layer_shape shape;
    struct ls_layer_options options; /* of what is computed */
    ls_dtype type; /* what is stored is rounded to; LS_F64: not at all. Then so are the parts of
                    * options.tp tensor-parallel ranks, before they are added. */
    uint64_t seed;
};

struct ls_reference_layer_state;

/* y [b, s, e] of x. *state, for backward, is the caller's to destroy. Errors: LS_ENOMEM. */
ls_status ls_reference_layer_forward(double *y, struct ls_reference_layer_state **state,
                                     const struct ls_reference_layer *layer,
                                     const struct ls_reference_parameters *parameters,
                                     const double *x);
void ls_reference_layer_state_destroy(struct ls_reference_layer_state *state);

/* dx [b, s, e] is written, gradients are added to. Errors: LS_ENOMEM. */
ls_status ls_reference_layer_backward(double *dx, const struct ls_reference_parameters *gradients,
                                      const struct ls_reference_layer_state *state,
                                      const struct ls_reference_parameters *parameters,
                                      const double *dy);

#endif
