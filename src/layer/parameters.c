#include "layer/parameters.h"

#include <stddef.h>

typedef enum { WIDTH, QKV_BIAS, UP_BIAS, QKV, OUT, UP, DOWN } parameter_shape;
/* What a layer needs to have. */
enum { ALWAYS = 0, BIASES = 1 << 0, LAYER_NORMS = 1 << 1, TWO_NORMS = 1 << 2 };

static const struct parameter {
    const char *name, *gradient;
    size_t offset; /* of its pointer */
    parameter_shape shape;
    unsigned presence;
} parameters[LS_LAYER_PARAMETERS] = {
#define PARAMETER(name, shape, presence)                                                           \
    {                                                                                              \
#name, "gradient of " #name, offsetof(struct ls_layer_parameters, name), shape, presence   \
    }
    PARAMETER(norm1, WIDTH, ALWAYS),    PARAMETER(norm1_bias, WIDTH, LAYER_NORMS),
    PARAMETER(qkv, QKV, ALWAYS),        PARAMETER(qkv_bias, QKV_BIAS, BIASES),
    PARAMETER(out, OUT, ALWAYS),        PARAMETER(out_bias, WIDTH, BIASES),
    PARAMETER(norm2, WIDTH, TWO_NORMS), PARAMETER(norm2_bias, WIDTH, TWO_NORMS | LAYER_NORMS),
    PARAMETER(up, UP, ALWAYS),          PARAMETER(up_bias, UP_BIAS, BIASES),
    PARAMETER(down, DOWN, ALWAYS),      PARAMETER(down_bias, WIDTH, BIASES),
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
    const unsigned has = (options->no_bias ? 0 : BIASES) |
                         (options->norm == LS_NORM_LAYER ? LAYER_NORMS : 0) |
                         (options->parallel ? 0 : TWO_NORMS);

    return (parameters[parameter].presence & ~has) == 0;
}

struct ls_tensor **ls_parameter_in(struct ls_layer_parameters *all, int parameter)
{
    return (struct ls_tensor **)((char *)all + parameters[parameter].offset);
}

/* ---- parts */

/* n rows more, and of them those of number `share` of so many shares. */
static void add_rows(struct ls_parameter_part *part, int64_t n, int64_t shares, int64_t share)
{
    const int64_t count = n / shares;

    part->rows[part->runs++] = (struct ls_span){part->dim[0] + share * count, count};
    part->dim[0] += n;
}

/* q heads, k heads, v heads; where key/value heads are fewer than ranks, these share them. */
static void add_qkv(struct ls_parameter_part *part, const struct ls_layer_shape *n, int t,
                    int tensor)
{
    const int64_t shares = n->h_kv < t ? n->h_kv : t, share = tensor / (t / shares);

    add_rows(part, n->h * n->d, t, tensor);
    add_rows(part, n->h_kv * n->d, shares, share);
    add_rows(part, n->h_kv * n->d, shares, share);
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
