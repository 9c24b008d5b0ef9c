#include "reference/layer.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "reference/activation.h"
#include "reference/layer_core.h"
#include "reference/norm.h"
#include "reference/rotary.h"
#include "tensor/dropout.h"

/* What forward leaves; each has b s rows. */
struct ls_reference_layer_state {
    struct ls_reference_layer layer;
    int64_t rows, qkv_width, up_width;
    double *x, *n1, *qkv, *o, *lse, *sum1, *n2, *z, *a, *sum2;
    double *lost;           /* what rounding took from o */
    double *scratch, *more; /* [rows, the widest] */
    double *row;            /* the widest */
    double *memory;
    int *qkv_owner, *up_owner; /* tensor-parallel ranks of columns */
};

/* ---- pieces */

static double rounded(const struct ls_reference_layer_state *s, double value)
{
    return ls_reference_rounded(s->layer.type, value);
}

/* What is stored is rounded. */
static void store(const struct ls_reference_layer_state *s, double *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++) values[i] = rounded(s, values[i]);
}

/* y [rows, out] = x [rows, in] w^T + bias, w [out, in]. Row-parallel: columns of x are dealt to
 * tensor-parallel ranks by runs, and each rounds its part. */
static void linear(double *y, const struct ls_reference_layer_state *s, const double *x,
                   const double *w, const double *bias, int64_t in, int64_t out, bool row_parallel)
{
    const int64_t parts = row_parallel ? s->layer.options.tp : 1, run = in / parts;

    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t j = 0; j < out; j++) {
            double all = 0;

            for (int64_t part = 0; part < parts; part++) {
                double sum = bias && part == 0 ? bias[j] : 0;

                for (int64_t k = part * run; k < (part + 1) * run; k++)
                    sum += x[r * in + k] * w[j * in + k];
                all += parts > 1 ? rounded(s, sum) : sum;
            }
            y[r * out + j] = all;
        }
    store(s, y, s->rows * out);
}

/* dw += dy^T x; dbias += sum of dy */
static void add_weight_gradient(double *dw, double *dbias, const struct ls_reference_layer_state *s,
                                const double *dy, const double *x, int64_t in, int64_t out)
{
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t j = 0; j < out; j++) {
            if (dbias) dbias[j] += dy[r * out + j];
            for (int64_t k = 0; k < in; k++) dw[j * in + k] += dy[r * out + j] * x[r * in + k];
        }
}

/* dx = dy w. Column-parallel: columns of dy are dealt, and each rank rounds its part. */
static void input_gradient(double *dx, const struct ls_reference_layer_state *s, const double *dy,
                           const double *w, int64_t in, int64_t out, const int *owner)
{
    const int parts = owner ? s->layer.options.tp : 1;
    double *sum = s->row;

    memset(dx, 0, (size_t)(s->rows * in) * sizeof *dx);
    for (int64_t i = 0; i < s->rows * parts; i++) {
        const int64_t r = i / parts;

        memset(sum, 0, (size_t)in * sizeof *sum);
        for (int64_t j = 0; j < out; j++)
            for (int64_t k = 0; k < in && (!owner || owner[j] == i % parts); k++)
                sum[k] += dy[r * out + j] * w[j * in + k];
        for (int64_t k = 0; k < in; k++) dx[r * in + k] += parts > 1 ? rounded(s, sum[k]) : sum[k];
    }
    store(s, dx, s->rows * in);
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
            ls_reference_rotate(qkv + r * s->qkv_width + head * n->d, &rotary, r % n->s, back);
    store(s, qkv, s->rows * s->qkv_width);
}

/* dq, dk, dv in what they are together, of d_o [rows, h d]. */
static ls_status attention_backward(double *dqkv, const struct ls_reference_layer_state *s,
                                    const double *d_o)
{
    const struct ls_reference_core core = core_of(s);

    LS_TRY(ls_reference_core_backward(dqkv, &core, d_o));
    store(s, dqkv, s->rows * s->qkv_width);
    rotate(s, dqkv, true);
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

    linear(s->qkv, s, in, w->qkv, w->qkv_bias, n->e, s->qkv_width, false);
    rotate(s, s->qkv, false);
    LS_TRY(ls_reference_core_forward(&core));
    store(s, s->o, s->rows * n->h * n->d);
    linear(s->scratch, s, s->o, w->out, w->out_bias, n->h * n->d, n->e, true);
    add_dropped(out, s, residual, s->scratch, BEHIND_ATTENTION);
    return LS_OK;
}

static void mlp_block(double *out, const struct ls_reference_layer_state *s,
                      const struct ls_reference_parameters *w, const double *in,
                      const double *residual)
{
    const struct ls_layer_shape *n = &s->layer.shape;

    linear(s->z, s, in, w->up, w->up_bias, n->e, s->up_width, false);
    for (int64_t r = 0; r < s->rows; r++)
        ls_reference_activation_forward(s->a + r * n->f, s->layer.options.activation,
                                        s->z + r * s->up_width, n->f);
    store(s, s->a, s->rows * n->f);
    linear(s->scratch, s, s->a, w->down, w->down_bias, n->f, n->e, true);
    add_dropped(out, s, residual, s->scratch, BEHIND_MLP);
}

/* d_in [rows, e] is written; scratch has the gradient behind dropout, more that of inner tensors.
 */
static ls_status attention_block_backward(double *d_in, const struct ls_reference_parameters *d,
                                          const struct ls_reference_layer_state *s,
                                          const struct ls_reference_parameters *w, const double *in,
                                          const double *dy)
{
    const struct ls_layer_shape *n = &s->layer.shape;
    double *d_o = s->more + s->rows * s->qkv_width;

    add_dropped(s->scratch, s, NULL, dy, BEHIND_ATTENTION);
    input_gradient(d_o, s, s->scratch, w->out, n->h * n->d, n->e, NULL);
    add_weight_gradient(d->out, d->out_bias, s, s->scratch, s->o, n->h * n->d, n->e);
    LS_TRY(attention_backward(s->more, s, d_o));
    input_gradient(d_in, s, s->more, w->qkv, n->e, s->qkv_width, s->qkv_owner);
    add_weight_gradient(d->qkv, d->qkv_bias, s, s->more, in, n->e, s->qkv_width);
    return LS_OK;
}

static void mlp_block_backward(double *d_in, const struct ls_reference_parameters *d,
                               const struct ls_reference_layer_state *s,
                               const struct ls_reference_parameters *w, const double *in,
                               const double *dy)
{
    const struct ls_layer_shape *n = &s->layer.shape;
    double *d_a = s->more + s->rows * s->up_width;

    add_dropped(s->scratch, s, NULL, dy, BEHIND_MLP);
    input_gradient(d_a, s, s->scratch, w->down, n->f, n->e, NULL);
    add_weight_gradient(d->down, d->down_bias, s, s->scratch, s->a, n->f, n->e);
    for (int64_t r = 0; r < s->rows; r++)
        ls_reference_activation_backward(s->more + r * s->up_width, s->layer.options.activation,
                                         d_a + r * n->f, s->z + r * s->up_width, n->f);
    store(s, s->more, s->rows * s->up_width);
    input_gradient(d_in, s, s->more, w->up, n->e, s->up_width, s->up_owner);
    add_weight_gradient(d->up, d->up_bias, s, s->more, in, n->e, s->up_width);
}

/* ---- the layer */

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Which tensor-parallel rank has each column of q, k and v, and of the MLP. */
static void deal_columns(struct ls_reference_layer_state *s)
{
    const struct ls_layer_shape *n = &s->layer.shape;
    const int64_t t = s->layer.options.tp, q = n->h * n->d, kv = n->h_kv * n->d;

    for (int64_t i = 0; i < s->qkv_width; i++)
        s->qkv_owner[i] = (int)(i < q ? i / (q / t) : (i - q) % kv / (kv / t));
    for (int64_t i = 0; i < s->up_width; i++) s->up_owner[i] = (int)(i % n->f / (n->f / t));
}

static ls_status create(struct ls_reference_layer_state **out,
                        const struct ls_reference_layer *layer)
{
    const struct ls_layer_shape *n = &layer->shape;
    struct ls_reference_layer_state *s = calloc(1, sizeof *s);
    const int64_t rows = n->b * n->s, o = n->h * n->d, qkv = o + 2 * n->h_kv * n->d;
    const int64_t up = (layer->options.activation == LS_ACTIVATION_SWIGLU ? 2 : 1) * n->f;
    const int64_t inner = larger(qkv + o, up + n->f);
    const int64_t width[] = {
        n->e, n->e, qkv, o, n->h, n->e, n->e, up, n->f, n->e, n->e, inner, larger(inner, n->e)};
    int64_t all = 0;

    for (size_t i = 0; i < sizeof width / sizeof *width; i++) all += width[i];
    if (s) s->memory = calloc((size_t)(rows * all) + 1, sizeof *s->memory);
    if (s) s->qkv_owner = calloc((size_t)(qkv + up), sizeof *s->qkv_owner);
    if (!s || !s->memory || !s->qkv_owner) {
        ls_reference_layer_state_destroy(s);
        return ls_fail(LS_ENOMEM, "reference of a layer: out of memory");
    }
    double **const part[] = {&s->x, &s->n1, &s->qkv,  &s->o,       &s->lse,  &s->sum1, &s->n2,
                             &s->z, &s->a,  &s->sum2, &s->scratch, &s->more, &s->row};
    double *at = s->memory;
    for (size_t i = 0; i < sizeof width / sizeof *width; at += rows * width[i++]) *part[i] = at;
    s->layer = *layer;
    if (s->layer.options.epsilon == 0) s->layer.options.epsilon = 1e-5F;
    s->rows = rows;
    s->qkv_width = qkv;
    s->up_width = up;
    s->up_owner = s->qkv_owner + qkv;
    if (s->layer.options.tp == 0) s->layer.options.tp = 1;
    deal_columns(s);
    *out = s;
    return LS_OK;
}

void ls_reference_layer_state_destroy(struct ls_reference_layer_state *state)
{
    if (!state) return;
    free(state->qkv_owner);
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
        norm(s->n2, s, s->sum1, w->norm2, w->norm2_bias);
        mlp_block(y, s, w, s->n2, s->sum1);
    }
    *state = s;
    return status;
}

ls_status ls_reference_layer_backward(double *dx, const struct ls_reference_parameters *d,
                                      const struct ls_reference_layer_state *s,
                                      const struct ls_reference_parameters *w, const double *dy)
{
    const size_t bytes = (size_t)(s->rows * s->layer.shape.e) * sizeof *dx;
    double *branch = malloc(bytes + 1), *between = malloc(bytes + 1);
    ls_status status =
        branch && between ? LS_OK : ls_fail(LS_ENOMEM, "reference of a layer: out of memory");

    if (status == LS_OK && s->layer.options.post_norm) {
        norm_backward(between, d->norm2, d->norm2_bias, s, dy, s->sum2, w->norm2, false);
        mlp_block_backward(branch, d, s, w, s->n1, between);
        add(between, s, between, branch);
        norm_backward(dx, d->norm1, d->norm1_bias, s, between, s->sum1, w->norm1, false);
        status = attention_block_backward(branch, d, s, w, s->x, dx);
        add(dx, s, dx, branch);
    } else if (status == LS_OK) {
        mlp_block_backward(branch, d, s, w, s->n2, dy);
        memcpy(between, dy, bytes);
        norm_backward(between, d->norm2, d->norm2_bias, s, branch, s->sum1, w->norm2, true);
        status = attention_block_backward(branch, d, s, w, s->n1, between);
        memcpy(dx, between, bytes);
        norm_backward(dx, d->norm1, d->norm1_bias, s, branch, s->x, w->norm1, true);
    }
    free(between);
    free(branch);
    return status;
}
