/* A layer forward. With norms before the blocks:
 *   n1 = norm1(x)    a = attention(n1 Wqkv + b) Wout + b     x2 = x + dropout(a)
 *   n2 = norm2(x2)   m = act(n2 Wup + b) Wdown + b           y = x2 + dropout(m)
 * Column-parallel linears, Wqkv and Wup, want all rows: g gathers them; what row-parallel ones,
 * Wout and Wdown, give is a rank's part: g's counterpart sums it (exchange.h). In parallel both
 * blocks see n1, which is gathered once; but two sums travel, since behind each stands a dropout of
 * its own, whose mask a rank has of its own rows alone. The same page makes again what was not
 * kept. Sources: Korthikanti et al. 2022, sections 3 and 4; of parallel blocks Chowdhery et al.
 * 2022 (PaLM), section 2. */
#include "base/profile.h"
#include "base/trace.h"
#include "device/norm.h"
#include "device/pointwise.h"
#include "layer/core.h"

static struct ls_queue *queue_of(const struct ls_layer_pass *p)
{
    return &p->plan->device->queue;
}

static struct ls_tensor kept(const struct ls_layer_pass *p, ls_kept_kind kind)
{
    return ls_layer_kept(p->state, kind);
}

ls_status ls_layer_gather(struct ls_tensor *inside, struct ls_layer_plan *plan,
                          const struct ls_tensor *outside)
{
    *inside = plan->grid.sp ? plan->work[LS_WORK_GATHERED] : *outside;
    LS_TRY(ls_exchange_start_gather(&plan->exchange, inside, outside));
    return ls_exchange_wait(&plan->exchange);
}

/* ---- pieces of both blocks */

/* out, and its statistics, which are the next kind. */
static void norm(const struct ls_layer_pass *p, struct ls_tensor *out, ls_kept_kind kind,
                 const struct ls_tensor *in, const struct ls_tensor *weight,
                 const struct ls_tensor *bias)
{
    const struct ls_layer_statistics statistics = ls_layer_statistics_of(p->state, kind);

    ls_norm_forward(queue_of(p), &(struct ls_norm_forward){.y = out,
                                                           .mean = statistics.mean,
                                                           .rstd = statistics.rstd,
                                                           .x = in,
                                                           .gamma = weight->data,
                                                           .beta = bias ? bias->data : NULL,
                                                           .epsilon = p->plan->options.epsilon});
}

static void linear(const struct ls_layer_pass *p, struct ls_linear_kernel *kernel,
                   const struct ls_tensor *out, const struct ls_tensor *in,
                   const struct ls_tensor *weight, const struct ls_tensor *bias)
{
    struct ls_tensor y = ls_layer_flat(out);
    const struct ls_tensor x = ls_layer_flat(in);

    ls_linear(queue_of(p), kernel,
              &(struct ls_linear_call){.y = &y, .x = &x, .w = weight, .bias = bias});
}

/* out [outer] = residual + dropout(in W + b): a row-parallel linear, whose bias one rank adds. */
static ls_status row_parallel(const struct ls_layer_pass *p, struct ls_linear_kernel *kernel,
                              struct ls_tensor *out, const struct ls_tensor *residual,
                              const struct ls_tensor *in, const struct ls_tensor *weight,
                              const struct ls_tensor *bias, ls_kept_kind mask)
{
    struct ls_layer_plan *plan = p->plan;
    const struct ls_tensor *partial = &plan->work[LS_WORK_PARTIAL], *sum = &plan->work[LS_WORK_SUM];

    linear(p, kernel, partial, in, weight, plan->grid.tensor == 0 ? bias : NULL);
    LS_TRY(ls_exchange_start_sum(&plan->exchange, sum, partial));
    LS_TRY(ls_exchange_wait(&plan->exchange));
    ls_layer_draw_mask(plan, p->state, mask);
    ls_layer_dropout(out, plan, p->state, residual, sum, mask);
    return LS_OK;
}

/* ---- attention */

static void make_qkv(const struct ls_layer_pass *p, const struct ls_tensor *inside)
{
    const struct ls_tensor qkv = kept(p, LS_KEPT_QKV);

    linear(p, p->plan->qkv, &qkv, inside, p->parameters->qkv, p->parameters->qkv_bias);
    ls_layer_rotate(p->plan, &qkv, false);
}

static ls_status make_core(const struct ls_layer_pass *p)
{
    static const struct ls_trace_kind kind = {"core", "layer forward", {NULL}};
    const double begin = ls_now();

    LS_TRY(p->plan->core->forward(p));
    ls_trace_note(&kind, begin, 0);
    return LS_OK;
}

/* out NULL: what comes behind it is not wanted; so below. */
static ls_status end_attention(const struct ls_layer_pass *p, struct ls_tensor *out,
                               const struct ls_tensor *residual)
{
    const struct ls_layer_parameters *w = p->parameters;
    const struct ls_tensor o = kept(p, LS_KEPT_ATTENTION);

    if (p->makes[LS_KEPT_ATTENTION] || p->makes[LS_KEPT_SOFTMAX]) LS_TRY(make_core(p));
    if (!out) return LS_OK;
    return row_parallel(p, p->plan->out, out, residual, &o, w->out, w->out_bias, LS_KEPT_MASK1);
}

static ls_status make_attention(const struct ls_layer_pass *p, const struct ls_tensor *in,
                                const struct ls_tensor *residual)
{
    struct ls_tensor sum = kept(p, LS_KEPT_SUM1), inside;

    if (p->makes[LS_KEPT_QKV]) {
        LS_TRY(ls_layer_gather(&inside, p->plan, in));
        make_qkv(p, &inside);
    }
    return end_attention(p, p->makes[LS_KEPT_SUM1] ? &sum : NULL, residual);
}

/* ---- MLP */

/* GELU's tanh form comes with the linear, of the same z as stored. */
static bool is_fused(const struct ls_layer_pass *p)
{
    return p->makes[LS_KEPT_UP] && p->makes[LS_KEPT_ACTIVATION] &&
           p->plan->options.activation == LS_ACTIVATION_GELU_TANH;
}

static void make_up(const struct ls_layer_pass *p, const struct ls_tensor *inside)
{
    const struct ls_tensor up = kept(p, LS_KEPT_UP), act = kept(p, LS_KEPT_ACTIVATION);
    const struct ls_tensor x = ls_layer_flat(inside);
    const struct ls_layer_parameters *w = p->parameters;
    struct ls_tensor z = ls_layer_flat(&up), y = ls_layer_flat(&act);
    const bool gelu = is_fused(p);

    ls_linear(queue_of(p), p->plan->up,
              &(struct ls_linear_call){.y = gelu ? &y : &z,
                                       .z = gelu ? &z : NULL,
                                       .x = &x,
                                       .w = w->up,
                                       .bias = w->up_bias,
                                       .gelu = gelu});
}

static ls_status end_mlp(const struct ls_layer_pass *p, struct ls_tensor *out,
                         const struct ls_tensor *residual)
{
    const struct ls_layer_parameters *w = p->parameters;
    const struct ls_tensor up = kept(p, LS_KEPT_UP);
    struct ls_tensor y = kept(p, LS_KEPT_ACTIVATION);

    if (p->makes[LS_KEPT_ACTIVATION] && !is_fused(p))
        ls_activation_forward(queue_of(p), &y, &up, p->plan->options.activation);
    if (!out) return LS_OK;
    return row_parallel(p, p->plan->down, out, residual, &y, w->down, w->down_bias, LS_KEPT_MASK2);
}

static ls_status make_mlp(const struct ls_layer_pass *p, struct ls_tensor *out,
                          const struct ls_tensor *in, const struct ls_tensor *residual)
{
    struct ls_tensor inside;

    if (p->makes[LS_KEPT_UP]) {
        LS_TRY(ls_layer_gather(&inside, p->plan, in));
        make_up(p, &inside);
    }
    return end_mlp(p, out, residual);
}

/* ---- the layer */

static ls_status make_pre_norm(const struct ls_layer_pass *p)
{
    const struct ls_layer_parameters *w = p->parameters;
    const struct ls_tensor x = kept(p, LS_KEPT_INPUT), x2 = kept(p, LS_KEPT_SUM1);
    struct ls_tensor n1 = kept(p, LS_KEPT_NORM1), n2 = kept(p, LS_KEPT_NORM2);

    if (p->makes[LS_KEPT_NORM1]) norm(p, &n1, LS_KEPT_STATISTICS1, &x, w->norm1, w->norm1_bias);
    LS_TRY(make_attention(p, &n1, &x));
    if (p->makes[LS_KEPT_NORM2]) norm(p, &n2, LS_KEPT_STATISTICS2, &x2, w->norm2, w->norm2_bias);
    return make_mlp(p, p->y, &n2, &x2);
}

static ls_status make_post_norm(const struct ls_layer_pass *p)
{
    const struct ls_layer_parameters *w = p->parameters;
    const struct ls_tensor x = kept(p, LS_KEPT_INPUT), x1 = kept(p, LS_KEPT_SUM1);
    struct ls_tensor n1 = kept(p, LS_KEPT_NORM1), x2 = kept(p, LS_KEPT_SUM2);

    LS_TRY(make_attention(p, &x, &x));
    if (p->makes[LS_KEPT_NORM1]) norm(p, &n1, LS_KEPT_STATISTICS1, &x1, w->norm1, w->norm1_bias);
    LS_TRY(make_mlp(p, p->makes[LS_KEPT_SUM2] ? &x2 : NULL, &n1, &n1));
    if (p->makes[LS_KEPT_STATISTICS2])
        norm(p, p->y ? p->y : &p->plan->work[LS_WORK_DROPPED], LS_KEPT_STATISTICS2, &x2, w->norm2,
             w->norm2_bias);
    return LS_OK;
}

/* y = x + dropout(attention(n1)) + dropout(mlp(n1)) */
static ls_status make_parallel(const struct ls_layer_pass *p)
{
    const struct ls_layer_parameters *w = p->parameters;
    const struct ls_tensor x = kept(p, LS_KEPT_INPUT);
    struct ls_tensor n1 = kept(p, LS_KEPT_NORM1), inside;

    if (p->makes[LS_KEPT_NORM1]) norm(p, &n1, LS_KEPT_STATISTICS1, &x, w->norm1, w->norm1_bias);
    if (p->makes[LS_KEPT_QKV] || p->makes[LS_KEPT_UP])
        LS_TRY(ls_layer_gather(&inside, p->plan, &n1));
    if (p->makes[LS_KEPT_QKV]) make_qkv(p, &inside);
    if (p->makes[LS_KEPT_UP]) make_up(p, &inside);
    LS_TRY(end_attention(p, p->y, &x));
    return end_mlp(p, p->y, p->y);
}

ls_status ls_layer_make(const struct ls_layer_pass *pass)
{
    if (pass->plan->options.parallel) return make_parallel(pass);
    return pass->plan->options.post_norm ? make_post_norm(pass) : make_pre_norm(pass);
}
