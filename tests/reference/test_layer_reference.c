/* The double reference of a layer is its own derivative: central differences of sum(c y) in every
 * parameter and every input. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/layer.h"

enum { PARAMETERS = 12, MOST = 4096 };

static const struct ls_layer_shape shape = {
    .b = 2, .s = 5, .e = 6, .h = 4, .h_kv = 2, .d = 4, .f = 4, .type = LS_F32};

/* Any numbers of moderate size. */
static void fill(double *out, int64_t n, int from)
{
    for (int64_t i = 0; i < n; i++) out[i] = sin((double)(i * 7 + from * 13 + 1)) * 0.7;
}

struct problem {
    struct ls_reference_layer layer;
    int64_t count[PARAMETERS], inputs;
    double weights[PARAMETERS][MOST], gradients[PARAMETERS][MOST];
    double x[MOST], dy[MOST], dx[MOST];
};

static struct ls_reference_parameters list(double (*p)[MOST], const int64_t *count)
{
    struct ls_reference_parameters out;
    double **at[PARAMETERS] = {&out.norm1, &out.norm1_bias, &out.qkv,   &out.qkv_bias,
                               &out.out,   &out.out_bias,   &out.norm2, &out.norm2_bias,
                               &out.up,    &out.up_bias,    &out.down,  &out.down_bias};

    for (int i = 0; i < PARAMETERS; i++) *at[i] = count[i] > 0 ? p[i] : NULL;
    return out;
}

static double value(const struct problem *p)
{
    const struct ls_reference_parameters w = list(((struct problem *)p)->weights, p->count);
    struct ls_reference_layer_state *state;
    double y[MOST], sum = 0;

    cr_assert_eq(ls_reference_layer_forward(y, &state, &p->layer, &w, p->x), LS_OK);
    ls_reference_layer_state_destroy(state);
    for (int64_t i = 0; i < p->inputs; i++) sum += y[i] * p->dy[i];
    return sum;
}

static void differentiate(struct problem *p)
{
    const struct ls_reference_parameters w = list(p->weights, p->count);
    const struct ls_reference_parameters d = list(p->gradients, p->count);
    struct ls_reference_layer_state *state;
    double y[MOST];

    cr_assert_eq(ls_reference_layer_forward(y, &state, &p->layer, &w, p->x), LS_OK);
    cr_assert_eq(ls_reference_layer_backward(p->dx, &d, state, &w, p->dy), LS_OK);
    ls_reference_layer_state_destroy(state);
}

static void check(struct problem *p, double *at, double derivative, const char *what, int64_t i)
{
    const double here = *at, step = 1e-5;

    *at = here + step;
    const double above = value(p);
    *at = here - step;
    const double below = value(p);
    *at = here;
    cr_expect_float_eq((above - below) / (2 * step), derivative, 2e-7 * (1 + fabs(derivative)),
                       "%s %lld: %g by differences, %g", what, (long long)i,
                       (above - below) / (2 * step), derivative);
}

static void check_layer(struct ls_layer_options options)
{
    static struct problem p;
    const int64_t qkv = (shape.h + 2 * shape.h_kv) * shape.d, o = shape.h * shape.d;
    const int64_t up = (options.activation == LS_ACTIVATION_SWIGLU ? 2 : 1) * shape.f;
    const int64_t bias = options.no_bias ? 0 : 1, beta = options.norm == LS_NORM_LAYER ? 1 : 0;
    const int64_t e = shape.e, e2 = options.parallel ? 0 : e,
                  count[PARAMETERS] = {e,  beta * e,  qkv * e, bias * qkv, e * o,       bias * e,
                                       e2, beta * e2, up * e,  bias * up,  e * shape.f, bias * e};

    memset(&p, 0, sizeof p);
    p.layer = (struct ls_reference_layer){shape, options, LS_F64, 5};
    memcpy(p.count, count, sizeof count);
    p.inputs = shape.b * shape.s * e;
    for (int i = 0; i < PARAMETERS; i++) fill(p.weights[i], count[i], i);
    fill(p.x, p.inputs, 20);
    fill(p.dy, p.inputs, 21);
    differentiate(&p);
    for (int i = 0; i < PARAMETERS; i++)
        for (int64_t k = 0; k < count[i]; k++)
            check(&p, &p.weights[i][k], p.gradients[i][k], "parameter", k);
    for (int64_t i = 0; i < p.inputs; i++) check(&p, &p.x[i], p.dx[i], "input", i);
}

Test(layer_reference, is_its_own_derivative)
{
    check_layer((struct ls_layer_options){.causal = true, .dropout = 0.3F});
}

Test(layer_reference, is_its_own_derivative_whatever_the_core)
{
    check_layer(
        (struct ls_layer_options){.core = LS_CORE_MATERIALIZED, .causal = true, .dropout = 0.3F});
}

Test(layer_reference, is_its_own_derivative_with_norms_behind)
{
    check_layer((struct ls_layer_options){.post_norm = true, .activation = LS_ACTIVATION_GELU_ERF});
}

Test(layer_reference, is_its_own_derivative_with_gates_and_rotary_positions)
{
    check_layer((struct ls_layer_options){.norm = LS_NORM_RMS,
                                          .activation = LS_ACTIVATION_SWIGLU,
                                          .no_bias = true,
                                          .causal = true,
                                          .rope_theta = 100});
}

Test(layer_reference, is_its_own_derivative_with_parallel_blocks)
{
    check_layer((struct ls_layer_options){.parallel = true, .causal = true, .dropout = 0.3F});
}

/* What ranks round is all that they change: without rounding it is the same layer, also where
 * several have the same key/value head. */
Test(layer_reference, is_its_own_derivative_on_more_ranks_than_key_value_heads)
{
    check_layer((struct ls_layer_options){.tp = 4, .causal = true, .rope_theta = 100});
}
