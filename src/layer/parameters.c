#include "layer/parameters.h"

#include <stddef.h>

typedef enum { WIDTH, QKV_BIAS, UP_BIAS, QKV, OUT, UP, DOWN } parameter_shape;
typedef enum { ALWAYS, OF_LINEARS, OF_LAYER_NORMS } parameter_presence;

static const struct parameter {
    const char *name, *gradient;
    size_t offset; /* of its pointer */
    parameter_shape shape;
    parameter_presence presence;
} parameters[LS_LAYER_PARAMETERS] = {
#define PARAMETER(name, shape, presence)                                                           \
    {                                                                                              \
#name, "gradient of " #name, offsetof(struct ls_layer_parameters, name), shape, presence   \
    }
    PARAMETER(norm1, WIDTH, ALWAYS), PARAMETER(norm1_bias, WIDTH, OF_LAYER_NORMS),
    PARAMETER(qkv, QKV, ALWAYS),     PARAMETER(qkv_bias, QKV_BIAS, OF_LINEARS),
    PARAMETER(out, OUT, ALWAYS),     PARAMETER(out_bias, WIDTH, OF_LINEARS),
    PARAMETER(norm2, WIDTH, ALWAYS), PARAMETER(norm2_bias, WIDTH, OF_LAYER_NORMS),
    PARAMETER(up, UP, ALWAYS),       PARAMETER(up_bias, UP_BIAS, OF_LINEARS),
    PARAMETER(down, DOWN, ALWAYS),   PARAMETER(down_bias, WIDTH, OF_LINEARS),
#undef PARAMETER
};

const char *ls_parameter_name(int parameter)
{
    return parameters[parameter].name;
}

const char *ls_parameter_gradient(int parameter)
{
    return parameters[parameter].gradient;
}

bool ls_parameter_exists(int parameter, const struct ls_layer_options *options)
{
    const parameter_presence presence = parameters[parameter].presence;

    if (presence == OF_LINEARS) return !options->no_bias;
    return presence == ALWAYS || options->norm == LS_NORM_LAYER;
}

struct ls_tensor **ls_parameter_in(struct ls_layer_parameters *all, int parameter)
{
    return (struct ls_tensor **)((char *)all + parameters[parameter].offset);
}

/* ---- parts */

/* n rows more, and of them those of the rank. */
static void add_rows(struct ls_parameter_part *part, int64_t n, int t, int tensor)
{
    const int64_t count = n / t;

    part->rows[part->runs++] = (struct ls_span){part->dim[0] + tensor * count, count};
    part->dim[0] += n;
}

/* q heads, k heads, v heads. */
static void add_qkv(struct ls_parameter_part *part, const struct ls_layer_shape *n, int t,
                    int tensor)
{
    add_rows(part, n->h * n->d, t, tensor);
    add_rows(part, n->h_kv * n->d, t, tensor);
    add_rows(part, n->h_kv * n->d, t, tensor);
}

/* Gates, and then values. */
static void add_up(struct ls_parameter_part *part, const struct ls_layer_shape *n, bool gated,
                   int t, int tensor)
{
    add_rows(part, n->f, t, tensor);
    if (gated) add_rows(part, n->f, t, tensor);
}

/* All rows, and of n columns those of the rank. */
static void share_columns(struct ls_parameter_part *part, const struct ls_layer_shape *shape,
                          int64_t n, int t, int tensor)
{
    add_rows(part, shape->e, 1, 0);
    part->dim[1] = n;
    part->columns = (struct ls_span){tensor * (n / t), n / t};
}

struct ls_parameter_part ls_parameter_part(int parameter, const struct ls_layer_shape *n,
                                           const struct ls_layer_options *options, int t,
                                           int tensor)
{
    const parameter_shape shape = parameters[parameter].shape;
    const int64_t columns = shape == QKV || shape == UP ? n->e : 1;
    struct ls_parameter_part part = {
        .ndim = shape < QKV ? 1 : 2, .dim = {0, columns}, .columns = {0, columns}};

    switch (shape) {
    case WIDTH:
        add_rows(&part, n->e, 1, 0);
        break;
    case QKV_BIAS:
    case QKV:
        add_qkv(&part, n, t, tensor);
        break;
    case UP_BIAS:
    case UP:
        add_up(&part, n, options->activation == LS_ACTIVATION_SWIGLU, t, tensor);
        break;
    case OUT:
        share_columns(&part, n, n->h * n->d, t, tensor);
        break;
    case DOWN:
        share_columns(&part, n, n->f, t, tensor);
        break;
    }
    return part;
}

int ls_parameter_share(int64_t dim[2], const struct ls_parameter_part *part)
{
    dim[0] = 0;
    dim[1] = part->columns.count;
    for (int i = 0; i < part->runs; i++) dim[0] += part->rows[i].count;
    return part->ndim;
}
