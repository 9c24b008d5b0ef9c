/* A layer forward. With norms before the blocks:
 *   n1 = norm1(x)    a = attention(n1 Wqkv + b) Wout + b     x2 = x + dropout(a)
 *   n2 = norm2(x2)   m = act(n2 Wup + b) Wdown + b           y = x2 + dropout(m)
 * Column-parallel linears, Wqkv and Wup, want all rows: g gathers them; what row-parallel ones,
 * Wout and Wdown, give is a rank's part: g's counterpart sums it. Both go beside the linear, which
 * takes rows in the pieces that exchange.h hands out. In parallel both blocks see n1, which is
 * gathered once; but two sums travel, since behind each stands a dropout of its own, whose mask a
 * rank has of its own rows alone. The same page makes again what was not kept. Sources: Korthikanti
 * et al. 2022, sections 3 and 4; of parallel blocks Chowdhery et al. 2022 (PaLM), section 2. */
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

/* GELU's tanh form comes with the linear, of the same z as stored. */
static bool is_fused(const struct ls_layer_pass *p)
{
    return p->makes[LS_KEPT_UP] && p->makes[LS_KEPT_ACTIVATION] &&
           p->plan->options.activation == LS_ACTIVATION_GELU_TANH;
}

/* ---- linears, piece by piece */

static void qkv_piece(const struct ls_layer_pass *p, const struct ls_tensor *x,
                      const struct ls_exchange_piece *piece)
{
    const struct ls_tensor qkv = kept(p, LS_KEPT_QKV);
    struct ls_tensor y = ls_layer_piece(&qkv, piece);

    ls_linear(queue_of(p), p->plan->qkv,
              &(struct ls_linear_call){.y = &y,
                                       .x = x,
                                       .w = p->parameters->qkv,
                                       .bias = p->parameters->qkv_bias,
                                       .packed = !piece->is_first});
}

static void up_piece(const struct ls_layer_pass *p, const struct ls_tensor *x,
                     const struct ls_exchange_piece *piece)
{
    const struct ls_tensor up = kept(p, LS_KEPT_UP), act = kept(p, LS_KEPT_ACTIVATION);
    struct ls_tensor z = ls_layer_piece(&up, piece), y = ls_layer_piece(&act, piece);
    const bool gelu = is_fused(p);

    ls_linear(queue_of(p), p->plan->up,
              &(struct ls_linear_call){.y = gelu ? &y : &z,
                                       .z = gelu ? &z : NULL,
                                       .x = x,
                                       .w = p->parameters->up,
                                       .bias = p->parameters->up_bias,
                                       .gelu = gelu,
                                       .packed = !piece->is_first});
}

/* Column-parallel linears of one input. */
struct columns {
    const struct ls_layer_pass *pass;
    struct ls_tensor inside;
    bool qkv, up;
};

static void columns_piece(const void *job, const struct ls_exchange_piece *piece)
{
    const struct columns *c = job;
    const struct ls_tensor x = ls_layer_piece(&c->inside, piece);

    if (c->qkv) qkv_piece(c->pass, &x, piece);
    if (c->up) up_piece(c->pass, &x, piece);
}

/* Those of them that are to be made, of in [outer]. */
static ls_status column_parallel(const struct ls_layer_pass *p, const struct ls_tensor *in,
                                 bool qkv, bool up)
{
    struct ls_layer_plan *plan = p->plan;
    const struct columns columns = {.pass = p,
                                    .inside = plan->grid.sp ? plan->work[LS_WORK_GATHERED] : *in,
                                    .qkv = qkv && p->makes[LS_KEPT_QKV],
                                    .up = up && p->makes[LS_KEPT_UP]};

    if (!columns.qkv && !columns.up) return LS_OK;
    LS_TRY(ls_exchange_gather_beside(&plan->exchange, &columns.inside, in,
                                     &(struct ls_exchange_work){columns_piece, &columns}));
    const struct ls_tensor made = kept(p, LS_KEPT_QKV);

    if (columns.qkv) ls_layer_rotate(plan, &made, false);
    return LS_OK;
}

/* A row-parallel linear, whose bias one rank adds. */
struct row_parallel {
    const struct ls_layer_pass *pass;
    struct ls_linear_kernel *kernel;
    struct ls_tensor in;
    const struct ls_tensor *weight, *bias;
};

static void partial_piece(const void *job, const struct ls_exchange_piece *piece)
{
    const struct row_parallel *l = job;
    const struct ls_layer_plan *plan = l->pass->plan;
    const struct ls_tensor x = ls_layer_piece(&l->in, piece);
    struct ls_tensor y = ls_layer_piece(&plan->work[LS_WORK_PARTIAL], piece);

    ls_linear(queue_of(l->pass), l->kernel,
              &(struct ls_linear_call){.y = &y,
                                       .x = &x,
                                       .w = l->weight,
                                       .bias = plan->grid.tensor == 0 ? l->bias : NULL,
                                       .packed = !piece->is_first});
}

/* out [outer] = residual + dropout(in W + b) */
static ls_status row_parallel(const struct row_parallel *linear, struct ls_tensor *out,
                              const struct ls_tensor *residual, ls_kept_kind mask)
{
    const struct ls_layer_pass *p = linear->pass;
    struct ls_layer_plan *plan = p->plan;
    const struct ls_tensor *sum = &plan->work[LS_WORK_SUM];

    LS_TRY(ls_exchange_sum_beside(&plan->exchange, sum, &plan->work[LS_WORK_PARTIAL],
                                  &plan->work[LS_WORK_GATHERED],
                                  &(struct ls_exchange_work){partial_piece, linear}));
    ls_layer_draw_mask(plan, p->state, mask);
    ls_layer_dropout(out, plan, p->state, residual, sum, mask);
    return LS_OK;
}

/* ---- attention */

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

    if (p->makes[LS_KEPT_ATTENTION] || p->makes[LS_KEPT_SOFTMAX]) LS_TRY(make_core(p));
    if (!out) return LS_OK;
    return row_parallel(
        &(struct row_parallel){p, p->plan->out, kept(p, LS_KEPT_ATTENTION), w->out, w->out_bias},
        out, residual, LS_KEPT_MASK1);
}

static ls_status make_attention(const struct ls_layer_pass *p, const struct ls_tensor *in,
                                const struct ls_tensor *residual)
{
    struct ls_tensor sum = kept(p, LS_KEPT_SUM1);

    LS_TRY(column_parallel(p, in, true, false));
    return end_attention(p, p->makes[LS_KEPT_SUM1] ? &sum : NULL, residual);
}

/* ---- MLP */

static ls_status end_mlp(const struct ls_layer_pass *p, struct ls_tensor *out,
                         const struct ls_tensor *residual)
{
    const struct ls_layer_parameters *w = p->parameters;
    const struct ls_tensor up = kept(p, LS_KEPT_UP);
    struct ls_tensor y = kept(p, LS_KEPT_ACTIVATION);

    if (p->makes[LS_KEPT_ACTIVATION] && !is_fused(p))
        ls_activation_forward(queue_of(p), &y, &up, p->plan->options.activation);
    if (!out) return LS_OK;
    return row_parallel(&(struct row_parallel){p, p->plan->down, y, w->down, w->down_bias}, out,
                        residual, LS_KEPT_MASK2);
}

static ls_status make_mlp(const struct ls_layer_pass *p, struct ls_tensor *out,
                          const struct ls_tensor *in, const struct ls_tensor *residual)
{
    LS_TRY(column_parallel(p, in, false, true));
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
    struct ls_tensor n1 = kept(p, LS_KEPT_NORM1);

    if (p->makes[LS_KEPT_NORM1]) norm(p, &n1, LS_KEPT_STATISTICS1, &x, w->norm1, w->norm1_bias);
    LS_TRY(column_parallel(p, &n1, true, true));
    LS_TRY(end_attention(p, p->y, &x));
    return end_mlp(p, p->y, p->y);
}

ls_status ls_layer_make(const struct ls_layer_pass *pass)
{
    if (pass->plan->options.parallel) return make_parallel(pass);
    return pass->plan->options.post_norm ? make_post_norm(pass) : make_pre_norm(pass);
}
