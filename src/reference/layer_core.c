#include "reference/layer_core.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/scores.h"

double ls_reference_rounded(ls_dtype type, double value)
{
    double stored;

    if (type == LS_F64) return value;
    ls_dtype_store(type, &stored, value);
    return ls_dtype_load(type, &stored);
}

/* Of q, k and v together. */
static int64_t width_of(const struct ls_reference_core *core)
{
    return (core->shape.h + 2 * core->shape.h_kv) * core->shape.d;
}

/* A head of a sequence. */
struct head {
    const struct ls_reference_core *s;
    int64_t b, h;
    double *p, *factor; /* [s] probabilities, and what dropout multiplies them by */
    double *dp;         /* [s] gradients of probabilities */
    bool *kept;         /* [s] */
};

/* Of row i of q (0), k (1) or v (2) in what they are together. */
static int64_t at(const struct head *x, int which, int64_t i)
{
    const struct ls_layer_shape *n = &x->s->shape;
    const int64_t kv = x->h / (n->h / n->h_kv), first[] = {x->h, n->h + kv, n->h + n->h_kv + kv};

    return (x->b * n->s + i) * width_of(x->s) + first[which] * n->d;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void add_times(double *to, double factor, const double *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] += factor * from[i];
}

static double scale_of(const struct head *x)
{
    return 1 / sqrt((double)x->s->shape.d);
}

/* Logits of query i into p; returns how many keys it sees. */
static int64_t find_logits(const struct head *x, int64_t i)
{
    const struct ls_reference_core *core = x->s;
    const int64_t keys = core->causal ? i + 1 : core->shape.s;
    const struct ls_scores scores = {
        .dropout = core->dropout, .seed = core->seed, .heads = core->shape.h};

    for (int64_t j = 0; j < keys; j++)
        x->p[j] =
            scale_of(x) * dot(x->s->qkv + at(x, 0, i), x->s->qkv + at(x, 1, j), core->shape.d);
    ls_dropout_kept(x->kept, &scores, x->b, x->h, i, 0, (int)keys);
    for (int64_t j = 0; j < keys; j++)
        x->factor[j] = x->kept[j] ? 1 / (1 - (double)core->dropout) : 0;
    return keys;
}

/* Where row i of a head is in o, and in lse. */
static int64_t o_at(const struct head *x, int64_t i)
{
    const struct ls_layer_shape *n = &x->s->shape;

    return ((x->b * n->s + i) * n->h + x->h) * n->d;
}

static int64_t lse_at(const struct head *x, int64_t i)
{
    const struct ls_layer_shape *n = &x->s->shape;

    return (x->b * n->h + x->h) * n->s + i;
}

static double rounded(const struct head *x, double value)
{
    return ls_reference_rounded(x->s->type, value);
}

static bool is_materialized(const struct head *x)
{
    return x->s->core == LS_CORE_MATERIALIZED;
}

/* What multiplies the value of key j, of which p is 1 / l of the probability. */
static double weight(const struct head *x, int64_t j, double l)
{
    if (is_materialized(x)) return rounded(x, rounded(x, x->p[j] / l) * x->factor[j]);
    return rounded(x, x->p[j]) * x->factor[j] / l;
}

static void attend_row(const struct head *x, int64_t i)
{
    const int64_t d = x->s->shape.d, keys = find_logits(x, i);
    double *o = x->s->o + o_at(x, i), m = -INFINITY, l = 0;

    for (int64_t j = 0; j < keys; j++) m = fmax(m, x->p[j]);
    for (int64_t j = 0; j < keys; j++) l += x->p[j] = exp(x->p[j] - m);
    memset(o, 0, (size_t)d * sizeof *o);
    for (int64_t j = 0; j < keys; j++) add_times(o, weight(x, j, l), x->s->qkv + at(x, 2, j), d);
    x->s->lse[lse_at(x, i)] = m + log(l);
}

/* Probabilities of query i into p, and their gradients; returns how many keys it sees. */
static int64_t find_gradients(double *dp, const struct head *x, int64_t i, const double *d_o)
{
    const int64_t keys = find_logits(x, i), row = o_at(x, i);
    const double lse = x->s->lse[lse_at(x, i)];

    for (int64_t j = 0; j < keys; j++) {
        x->p[j] = exp(x->p[j] - lse);
        if (is_materialized(x)) x->p[j] = rounded(x, x->p[j]);
        dp[j] = dot(d_o + row, x->s->qkv + at(x, 2, j), x->s->shape.d) * x->factor[j];
    }
    return keys;
}

/* To dqkv is added. delta is the sum of p dp: a fused core has it of the o that is stored. */
static void attend_row_backward(double *dqkv, const struct head *x, int64_t i, const double *d_o)
{
    const int64_t d = x->s->shape.d, row = o_at(x, i), keys = find_gradients(x->dp, x, i, d_o);
    const double *qkv = x->s->qkv;
    const double delta =
        is_materialized(x) ? dot(x->p, x->dp, keys) : dot(d_o + row, x->s->o + row, d);

    for (int64_t j = 0; j < keys; j++) {
        const double slope = x->p[j] * (x->dp[j] - delta);
        const double ds =
            is_materialized(x) ? rounded(x, slope * scale_of(x)) : rounded(x, slope) * scale_of(x);

        add_times(dqkv + at(x, 2, j), rounded(x, x->p[j] * x->factor[j]), d_o + row, d);
        add_times(dqkv + at(x, 0, i), ds, qkv + at(x, 1, j), d);
        add_times(dqkv + at(x, 1, j), ds, qkv + at(x, 0, i), d);
    }
}

/* Each query of each head. */
static ls_status for_each_row(const struct ls_reference_core *s, double *dqkv, const double *d_o)
{
    const struct ls_layer_shape *n = &s->shape;
    struct head x = {.s = s,
                     .p = malloc((size_t)n->s * sizeof *x.p),
                     .factor = malloc((size_t)n->s * sizeof *x.factor),
                     .dp = malloc((size_t)n->s * sizeof *x.dp),
                     .kept = malloc((size_t)n->s * sizeof *x.kept)};
    const bool here = x.p && x.factor && x.dp && x.kept;

    for (x.b = 0; here && x.b < n->b; x.b++)
        for (x.h = 0; x.h < n->h; x.h++)
            for (int64_t i = 0; i < n->s; i++) {
                if (dqkv)
                    attend_row_backward(dqkv, &x, i, d_o);
                else
                    attend_row(&x, i);
            }
    free(x.p);
    free(x.factor);
    free(x.dp);
    free(x.kept);
    return here ? LS_OK : ls_fail(LS_ENOMEM, "reference of attention: out of memory");
}

ls_status ls_reference_core_forward(const struct ls_reference_core *core)
{
    return for_each_row(core, NULL, NULL);
}

ls_status ls_reference_core_backward(double *dqkv, const struct ls_reference_core *core,
                                     const double *d_o)
{
    const size_t rows = (size_t)(core->shape.b * core->shape.s);

    memset(dqkv, 0, rows * (size_t)width_of(core) * sizeof *dqkv);
    return for_each_row(core, dqkv, d_o);
}
