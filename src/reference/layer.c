#include "reference/layer.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "reference/activation.h"
#include "reference/layer_core.h"
#include "reference/layer_linear.h"
#include "reference/norm.h"
#include "reference/rotary.h"
#include "tensor/dropout.h"

/* What forward leaves; each has b s rows. Where there are more tensor-parallel ranks than key/value
 * heads, each has a head of its own, made of the same weights as others'. */
struct ls_reference_layer_state {
    struct ls_reference_layer layer;
    struct ls_reference_ranks ranks;
    struct ls_reference_columns qkv_columns, up_columns;
    int64_t rows;
    double *x, *n1, *qkv, *o, *lse, *sum1, *n2, *z, *a, *sum2;
    double *scratch; /* [rows, e] */
    double *dqkv, *d_o, *dz, *d_a;
    double *row; /* [2 e] */
    double *memory;
};

/* ---- pieces */

/* What is stored is rounded. */
static void store(const struct ls_reference_layer_state *s, double *values, int64_t n)
{
    ls_reference_store(&s->ranks, values, n);
}

static struct ls_reference_norm norm_of(const struct ls_reference_layer_state *s,
                                        const double *gamma, const double *beta)
{
    return (struct ls_reference_norm){.e = s->layer.shape.e,
                                      .epsilon = (double)s->layer.options.epsilon,
                                      .rms = s->layer.options.norm == LS_NORM_RMS,
                                      .gamma = gamma,
                                      .beta = beta};
}

static void norm(double *y, const struct ls_reference_layer_state *s, const double *x,
                 const double *gamma, const double *beta)
{
    const struct ls_reference_norm n = norm_of(s, gamma, beta);

    for (int64_t r = 0; r < s->rows; r++) ls_reference_norm_forward(y + r * n.e, &n, x + r * n.e);
    store(s, y, s->rows * n.e);
}

/* dx += the gradient through the norm, or = */
static void norm_backward(double *dx, double *dgamma, double *dbeta,
                          const struct ls_reference_layer_state *s, const double *dy,
                          const double *x, const double *gamma, bool add)
{
    const struct ls_reference_norm n = norm_of(s, gamma, NULL);
    double *row = s->row;

    for (int64_t r = 0; r < s->rows; r++) {
        ls_reference_norm_backward(row, dgamma, dbeta, &n, dy + r * n.e, x + r * n.e);
        for (int64_t i = 0; i < n.e; i++) dx[r * n.e + i] = (add ? dx[r * n.e + i] : 0) + row[i];
    }
    store(s, dx, s->rows * n.e);
}

/* ---- attention */

static struct ls_reference_core core_of(const struct ls_reference_layer_state *s)
{
    return (struct ls_reference_core){.shape = s->layer.shape,
                                      .core = s->layer.options.core,
                                      .type = s->layer.type,
                                      .causal = s->layer.options.causal,
                                      .dropout = s->layer.options.dropout,
                                      .seed = s->layer.seed,
                                      .qkv = s->qkv,
                                      .o = s->o,
                                      .lse = s->lse};
}

/* q and k turn, or turn back. */
static void rotate(const struct ls_reference_layer_state *s, double *qkv, bool back)
{
    const struct ls_layer_shape *n = &s->layer.shape;
    double frequency[LS_MAX_HEAD_DIM / 2];
    const struct ls_rotary rotary = {n->d, frequency};

    if (s->layer.options.rope_theta == 0) return;
    ls_rotary_frequencies(frequency, (double)s->layer.options.rope_theta, n->d);
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t head = 0; head < n->h + n->h_kv; head++)
            ls_reference_rotate(qkv + r * s->qkv_columns.count + head * n->d, &rotary, r % n->s,
                                back);
    store(s, qkv, s->rows * s->qkv_columns.count);
}

/* dqkv of d_o */
static ls_status attention_backward(const struct ls_reference_layer_state *s)
{
    const struct ls_reference_core core = core_of(s);

    LS_TRY(ls_reference_core_backward(s->dqkv, &core, s->d_o));
    store(s, s->dqkv, s->rows * s->qkv_columns.count);
    rotate(s, s->dqkv, true);
    return LS_OK;
}

/* ---- dropout and residuals */

enum { BEHIND_ATTENTION = 1, BEHIND_MLP = 2 };

/* out = residual + dropout(x); residual NULL: 0. */
static void add_dropped(double *out, const struct ls_reference_layer_state *s,
                        const double *residual, const double *x, uint32_t place)
{
    const struct ls_dropout dropout = {s->layer.options.dropout, s->layer.seed, place};
    const int64_t e = s->layer.shape.e;

    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t i = 0; i < e; i++) {
            const double factor =
                ls_dropout_keeps(&dropout, r, i) ? 1 / (1 - (double)dropout.rate) : 0;

            out[r * e + i] = (residual ? residual[r * e + i] : 0) + x[r * e + i] * factor;
        }
    store(s, out, s->rows * e);
}

static void add(double *out, const struct ls_reference_layer_state *s, const double *a,
                const double *b)
{
    for (int64_t i = 0; i < s->rows * s->layer.shape.e; i++) out[i] = a[i] + b[i];
    store(s, out, s->rows * s->layer.shape.e);
}

/* ---- blocks */

static ls_status attention_block(double *out, const struct ls_reference_layer_state *s,
                                 const struct ls_reference_parameters *w, const double *in,
                                 const double *residual)
{
    const struct ls_layer_shape *n = &s->layer.shape;
    const struct ls_reference_core core = core_of(s);

    ls_reference_column_parallel(s->qkv, &s->ranks, in, w->qkv, w->qkv_bias, n->e, &s->qkv_columns);
    rotate(s, s->qkv, false);
    LS_TRY(ls_reference_core_forward(&core));
    store(s, s->o, s->rows * n->h * n->d);
    ls_reference_row_parallel(s->scratch, &s->ranks, s->o, w->out, w->out_bias, n->h * n->d, n->e);
    add_dropped(out, s, residual, s->scratch, BEHIND_ATTENTION);
    return LS_OK;
}

static void mlp_block(double *out, const struct ls_reference_layer_state *s,
                      const struct ls_reference_parameters *w, const double *in,
                      const double *residual)
{
    const struct ls_layer_shape *n = &s->layer.shape;

    ls_reference_column_parallel(s->z, &s->ranks, in, w->up, w->up_bias, n->e, &s->up_columns);
    for (int64_t r = 0; r < s->rows; r++)
        ls_reference_activation_forward(s->a + r * n->f, s->layer.options.activation,
                                        s->z + r * s->up_columns.count, n->f);
    store(s, s->a, s->rows * n->f);
    ls_reference_row_parallel(s->scratch, &s->ranks, s->a, w->down, w->down_bias, n->f, n->e);
    add_dropped(out, s, residual, s->scratch, BEHIND_MLP);
}

/* Up to dqkv; scratch has the gradient behind dropout. */
static ls_status attention_block_backward(const struct ls_reference_parameters *d,
                                          const struct ls_reference_layer_state *s,
                                          const struct ls_reference_parameters *w, const double *in,
                                          const double *dy)
{
    const struct ls_layer_shape *n = &s->layer.shape;
    const int64_t o = n->h * n->d;

    add_dropped(s->scratch, s, NULL, dy, BEHIND_ATTENTION);
    ls_reference_row_parallel_dx(s->d_o, &s->ranks, s->scratch, w->out, o, n->e);
    ls_reference_weight_gradient(d->out, d->out_bias, &s->ranks, s->scratch, s->o, o, n->e, NULL);
    LS_TRY(attention_backward(s));
    ls_reference_weight_gradient(d->qkv, d->qkv_bias, &s->ranks, s->dqkv, in, n->e,
                                 s->qkv_columns.count, &s->qkv_columns);
    return LS_OK;
}

/* Up to dz. */
static void mlp_block_backward(const struct ls_reference_parameters *d,
                               const struct ls_reference_layer_state *s,
                               const struct ls_reference_parameters *w, const double *in,
                               const double *dy)
{
    const struct ls_layer_shape *n = &s->layer.shape;
    const int64_t up = s->up_columns.count;

    add_dropped(s->scratch, s, NULL, dy, BEHIND_MLP);
    ls_reference_row_parallel_dx(s->d_a, &s->ranks, s->scratch, w->down, n->f, n->e);
    ls_reference_weight_gradient(d->down, d->down_bias, &s->ranks, s->scratch, s->a, n->f, n->e,
                                 NULL);
    for (int64_t r = 0; r < s->rows; r++)
        ls_reference_activation_backward(s->dz + r * up, s->layer.options.activation,
                                         s->d_a + r * n->f, s->z + r * up, n->f);
    store(s, s->dz, s->rows * up);
    ls_reference_weight_gradient(d->up, d->up_bias, &s->ranks, s->dz, in, n->e, up, &s->up_columns);
}

enum { OF_ATTENTION = 1, OF_MLP = 2 };

/* d_in [rows, e]: the gradient of what the blocks were given. */
static void input_gradient(double *d_in, const struct ls_reference_layer_state *s,
                           const struct ls_reference_parameters *w, int blocks)
{
    const struct ls_reference_branch branches[] = {{s->dz, w->up, &s->up_columns},
                                                   {s->dqkv, w->qkv, &s->qkv_columns}};
    const int first = blocks & OF_MLP ? 0 : 1, end = blocks & OF_ATTENTION ? 2 : 1;

    ls_reference_column_parallel_dx(d_in, &s->ranks, branches + first, end - first,
                                    s->layer.shape.e, s->row);
}

/* ---- the layer */

/* One piece of memory for all tensors. */
static bool create_tensors(struct ls_reference_layer_state *s)
{
    const struct ls_layer_shape *n = &s->layer.shape;
    const int64_t e = n->e, o = n->h * n->d, qkv = s->qkv_columns.count, up = s->up_columns.count;
    struct {
        double **tensor;
        int64_t width;
    } const list[] = {{&s->x, e},      {&s->n1, e},   {&s->qkv, qkv},   {&s->o, o},
                      {&s->lse, n->h}, {&s->sum1, e}, {&s->n2, e},      {&s->z, up},
                      {&s->a, n->f},   {&s->sum2, e}, {&s->scratch, e}, {&s->dqkv, qkv},
                      {&s->d_o, o},    {&s->dz, up},  {&s->d_a, n->f},  {&s->row, 2 * e}};
    const size_t count = sizeof list / sizeof *list;
    int64_t all = 0;

    for (size_t i = 0; i < count; i++) all += s->rows * list[i].width;
    s->memory = calloc((size_t)all + 1, sizeof *s->memory);
    double *at = s->memory;
    for (size_t i = 0; at && i < count; at += s->rows * list[i++].width) *list[i].tensor = at;
    return at;
}

static ls_status create(struct ls_reference_layer_state **out,
                        const struct ls_reference_layer *layer)
{
    const int64_t tp = layer->options.tp ? layer->options.tp : 1;
    struct ls_reference_layer_state *s = calloc(1, sizeof *s);

    if (!s) return ls_fail(LS_ENOMEM, "reference of a layer: out of memory");
    s->layer = *layer;
    if (s->layer.options.epsilon == 0) s->layer.options.epsilon = 1e-5F;
    if (tp > s->layer.shape.h_kv) s->layer.shape.h_kv = tp;
    s->rows = layer->shape.b * layer->shape.s;
    s->ranks = (struct ls_reference_ranks){.type = layer->type, .rows = s->rows, .count = tp};
    const bool heads =
        ls_reference_columns_of_heads(&s->qkv_columns, &layer->shape, s->layer.shape.h_kv, tp);
    const bool mlp = ls_reference_columns_of_mlp(
        &s->up_columns, layer->shape.f, layer->options.activation == LS_ACTIVATION_SWIGLU, tp);
    if (!heads || !mlp || !create_tensors(s)) {
        ls_reference_layer_state_destroy(s);
        return ls_fail(LS_ENOMEM, "reference of a layer: out of memory");
    }
    *out = s;
    return LS_OK;
}

void ls_reference_layer_state_destroy(struct ls_reference_layer_state *state)
{
    if (!state) return;
    ls_reference_columns_destroy(&state->qkv_columns);
    ls_reference_columns_destroy(&state->up_columns);
    free(state->memory);
    free(state);
}

ls_status ls_reference_layer_forward(double *y, struct ls_reference_layer_state **state,
                                     const struct ls_reference_layer *layer,
                                     const struct ls_reference_parameters *w, const double *x)
{
    struct ls_reference_layer_state *s = NULL;
    ls_status status;

    LS_TRY(create(&s, layer));
    memcpy(s->x, x, (size_t)(s->rows * layer->shape.e) * sizeof *x);
    if (layer->options.post_norm) {
        status = attention_block(s->sum1, s, w, s->x, s->x);
        norm(s->n1, s, s->sum1, w->norm1, w->norm1_bias);
        mlp_block(s->sum2, s, w, s->n1, s->n1);
        norm(y, s, s->sum2, w->norm2, w->norm2_bias);
    } else {
        norm(s->n1, s, s->x, w->norm1, w->norm1_bias);
        status = attention_block(s->sum1, s, w, s->n1, s->x);
        if (!layer->options.parallel) norm(s->n2, s, s->sum1, w->norm2, w->norm2_bias);
        mlp_block(y, s, w, layer->options.parallel ? s->n1 : s->n2, s->sum1);
    }
    *state = s;
    return status;
}

/* In each: branch and between are [rows, e]. */

static ls_status post_norm_backward(double *dx, const struct ls_reference_parameters *d,
                                    const struct ls_reference_layer_state *s,
                                    const struct ls_reference_parameters *w, const double *dy,
                                    double *branch, double *between)
{
    norm_backward(between, d->norm2, d->norm2_bias, s, dy, s->sum2, w->norm2, false);
    mlp_block_backward(d, s, w, s->n1, between);
    input_gradient(branch, s, w, OF_MLP);
    add(between, s, between, branch);
    norm_backward(dx, d->norm1, d->norm1_bias, s, between, s->sum1, w->norm1, false);
    LS_TRY(attention_block_backward(d, s, w, s->x, dx));
    input_gradient(branch, s, w, OF_ATTENTION);
    add(dx, s, dx, branch);
    return LS_OK;
}

static ls_status pre_norm_backward(double *dx, const struct ls_reference_parameters *d,
                                   const struct ls_reference_layer_state *s,
                                   const struct ls_reference_parameters *w, const double *dy,
                                   double *branch, double *between)
{
    const size_t bytes = (size_t)(s->rows * s->layer.shape.e) * sizeof *dx;

    mlp_block_backward(d, s, w, s->n2, dy);
    input_gradient(branch, s, w, OF_MLP);
    memcpy(between, dy, bytes);
    norm_backward(between, d->norm2, d->norm2_bias, s, branch, s->sum1, w->norm2, true);
    LS_TRY(attention_block_backward(d, s, w, s->n1, between));
    input_gradient(branch, s, w, OF_ATTENTION);
    memcpy(dx, between, bytes);
    norm_backward(dx, d->norm1, d->norm1_bias, s, branch, s->x, w->norm1, true);
    return LS_OK;
}

static ls_status parallel_backward(double *dx, const struct ls_reference_parameters *d,
                                   const struct ls_reference_layer_state *s,
                                   const struct ls_reference_parameters *w, const double *dy,
                                   double *branch)
{
    mlp_block_backward(d, s, w, s->n1, dy);
    LS_TRY(attention_block_backward(d, s, w, s->n1, dy));
    input_gradient(branch, s, w, OF_ATTENTION | OF_MLP);
    memcpy(dx, dy, (size_t)(s->rows * s->layer.shape.e) * sizeof *dx);
    norm_backward(dx, d->norm1, d->norm1_bias, s, branch, s->x, w->norm1, true);
    return LS_OK;
}

ls_status ls_reference_layer_backward(double *dx, const struct ls_reference_parameters *d,
                                      const struct ls_reference_layer_state *s,
                                      const struct ls_reference_parameters *w, const double *dy)
{
    const int64_t n = s->rows * s->layer.shape.e;
    double *branch = malloc((size_t)(2 * n + 1) * sizeof *branch);
    ls_status status;

    if (!branch) return ls_fail(LS_ENOMEM, "reference of a layer: out of memory");
    if (s->layer.options.parallel)
        status = parallel_backward(dx, d, s, w, dy, branch);
    else if (s->layer.options.post_norm)
        status = post_norm_backward(dx, d, s, w, dy, branch, branch + n);
    else
        status = pre_norm_backward(dx, d, s, w, dy, branch, branch + n);
    free(branch);
    return status;
}
