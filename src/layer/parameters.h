/* The parameters of a layer, in the order of struct ls_layer_parameters: what they are called,
 * which there are, and which part of each a tensor-parallel rank has. */
#ifndef LS_LAYER_PARAMETERS_H
#define LS_LAYER_PARAMETERS_H

#include "longspan/layer.h"

enum {
    LS_PARAMETER_NORM1,
    LS_PARAMETER_NORM1_BIAS,
    LS_PARAMETER_QKV,
    LS_PARAMETER_QKV_BIAS,
    LS_PARAMETER_OUT,
    LS_PARAMETER_OUT_BIAS,
    LS_PARAMETER_NORM2,
    LS_PARAMETER_NORM2_BIAS,
    LS_PARAMETER_UP,
    LS_PARAMETER_UP_BIAS,
    LS_PARAMETER_DOWN,
    LS_PARAMETER_DOWN_BIAS,
    LS_LAYER_PARAMETERS
};

/* "qkv", and "gradient of qkv". */
const char *ls_parameter_name(int parameter);
const char *ls_parameter_gradient(int parameter);
bool ls_parameter_exists(int parameter, const struct ls_layer_options *options);

/* Where its pointer is. */
struct ls_tensor **ls_parameter_in(struct ls_layer_parameters *all, int parameter);

struct ls_span {
    int64_t first, count;
};

/* A vector [n] has one column. */
struct ls_parameter_part {
    int ndim;
    int64_t dim[2];         /* of the whole, [out, in] */
    struct ls_span rows[3]; /* of the rank, one behind the other */
    int runs;               /* of rows */
    struct ls_span columns;
};

/* Of rank number `tensor` of t, each of which has as much. */
struct ls_parameter_part ls_parameter_part(int parameter, const struct ls_layer_shape *shape,
                                           const struct ls_layer_options *options, int t,
                                           int tensor);

/* Dimensions of the rank's share; returns how many there are. */
int ls_parameter_share(int64_t dim[2], const struct ls_parameter_part *part);

#endif
