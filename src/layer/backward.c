/* A layer backward. dx is written; to gradients of parameters is added.
 *   da = dropout'(dy)     dWdown += da^T act      dz = act'(z) (da Wdown^T)
 *   dWup += dz^T n2       dn2 = dz Wup^T          dx2 = dy + norm2'(dn2)
 * and the same of attention. What a row-parallel linear gave was summed, so its gradient is
 * gathered; what a column-parallel one was given was gathered, so its gradient is summed, while the
 * weights' gradient is computed; and that needs the gathered input once more, which comes while the
 * input's gradient is computed. Source: Korthikanti et al. 2022, section 4.2.2. */
#include "device/norm.h"
#include "device/pointwise.h"
#include "layer/core.h"

struct backward {
    struct ls_layer_plan *plan;
    struct ls_layer_state *state;
    const struct ls_layer_parameters *parameters, *gradients;
};

static struct ls_queue *queue_of(const struct backward *g)
{
    return &g->plan->device->queue;
}

static struct ls_tensor kept(const struct backward *g, ls_kept_kind kind)
{
    return ls_layer_kept(g->state, kind);
}

/* Of so many columns, one of the tensors within a call. */
static struct ls_tensor work(const struct backward *g, ls_work_kind kind, int64_t width)
{
    struct ls_tensor t = g->plan->work[kind];
    const int64_t dim[] = {t.dim[0], t.dim[1], width};

    return ls_tensor_view(t.data, t.type, 3, dim);
}

/* ---- linears */

static void input_gradient(const struct backward *g, struct ls_linear_kernel *kernel,
                           const struct ls_tensor *dx, const struct ls_tensor *dy,
                           const struct ls_tensor *weight)
{
    struct ls_tensor out = ls_layer_flat(dx);
    const struct ls_tensor in = ls_layer_flat(dy);

    ls_linear_dx(queue_of(g), kernel, &out, &in, weight);
}

/* gradient += dy^T x over the rows of all context-parallel ranks. */
static ls_status weight_gradient(const struct backward *g, struct ls_linear_kernel *kernel,
                                 struct ls_tensor *gradient, const struct ls_tensor *dy,
                                 const struct ls_tensor *x)
{
    const struct ls_tensor flat_dy = ls_layer_flat(dy), flat_x = ls_layer_flat(x);

    return ls_weight_sums_add(&g->plan->weights, kernel, gradient, &flat_dy, &flat_x);
}

/* Of a column-parallel linear: dx [outside] of all ranks, and the weights' gradient. */
static ls_status column_parallel(const struct backward *g, struct ls_linear_kernel *kernel,
                                 struct ls_tensor *gradient, const struct ls_tensor *dy,
                                 const struct ls_tensor *input, const struct ls_tensor *weight)
{
    struct ls_layer_plan *plan = g->plan;
    const struct ls_tensor *partial = &plan->work[LS_WORK_PARTIAL], *sum = &plan->work[LS_WORK_SUM];
    const struct ls_tensor inside = plan->grid.sp ? plan->work[LS_WORK_GATHERED] : *input;

    LS_TRY(ls_exchange_start_gather(&plan->exchange, &inside, input));
    input_gradient(g, kernel, partial, dy, weight);
    LS_TRY(ls_exchange_wait(&plan->exchange));
    LS_TRY(ls_exchange_start_sum(&plan->exchange, sum, partial));
    LS_TRY(weight_gradient(g, kernel, gradient, dy, &inside));
    return ls_exchange_wait(&plan->exchange);
}

/* ---- pieces of both blocks */

/* Into the place of a vector among those of all rows outside. */
enum { NORM1, NORM1_BIAS, NORM2, NORM2_BIAS, OUT_BIAS, DOWN_BIAS, OUTER_VECTORS };

static float *outer_place(const struct backward *g, int vector)
{
    return ls_vectors_place(&g->plan->outer, vector * g->plan->shape.e);
}

/* dx += the gradient through a norm of in, whose output has the gradient dy. */
static void norm_gradient(const struct backward *g, struct ls_tensor *dx,
                          const struct ls_tensor *dy, const struct ls_tensor *in, ls_kept_kind kind,
                          const struct ls_tensor *weight, int vector, bool add)
{
    const struct ls_layer_statistics statistics = ls_layer_statistics_of(g->state, kind);

    ls_norm_backward(queue_of(g), &(struct ls_norm_backward){
                                      .dx = dx,
                                      .add = add,
                                      .dgamma = outer_place(g, vector),
                                      .dbeta = statistics.mean ? outer_place(g, vector + 1) : NULL,
                                      .dy = dy,
                                      .x = in,
                                      .mean = statistics.mean,
                                      .rstd = statistics.rstd,
                                      .gamma = weight->data,
                                      .order = &g->plan->outer.order,
                                      .scratch = g->plan->outer.scratch});
}

/* branch [inside]: the gradient behind a block's row-parallel linear, before dropout; its bias has
 * the sum of it. */
static ls_status enter_block(struct ls_tensor *branch, const struct backward *g,
                             const struct ls_tensor *dy, ls_kept_kind mask, int vector)
{
    struct ls_layer_plan *plan = g->plan;
    struct ls_tensor outside = plan->work[LS_WORK_DROPPED];

    ls_layer_dropout(&outside, plan, g->state, NULL, dy, mask);
    if (!plan->options.no_bias)
        ls_row_sums(queue_of(g), outer_place(g, vector), &outside, &plan->outer.order,
                    plan->outer.scratch);
    *branch = plan->work[LS_WORK_BRANCH];
    LS_TRY(ls_exchange_start_gather(&plan->exchange, branch, &outside));
    return ls_exchange_wait(&plan->exchange);
}

static void inner_bias(const struct backward *g, const struct ls_tensor *dy, int64_t first)
{
    if (g->plan->options.no_bias) return;
    ls_row_sums(queue_of(g), ls_vectors_place(&g->plan->inner, first), dy, &g->plan->inner.order,
                g->plan->inner.scratch);
}

/* ---- blocks: LS_WORK_SUM becomes the gradient of what a block was given, outside */

static ls_status mlp_gradient(const struct backward *g, const struct ls_tensor *dy,
                              const struct ls_tensor *input)
{
    struct ls_layer_plan *plan = g->plan;
    const struct ls_layer_parameters *w = g->parameters, *d = g->gradients;
    const struct ls_tensor act = kept(g, LS_KEPT_ACTIVATION), z = kept(g, LS_KEPT_UP);
    struct ls_tensor d_act = work(g, LS_WORK_D_INNER, plan->columns);
    struct ls_tensor dz = work(g, LS_WORK_D_OUTER, ls_layer_up_width(plan));
    struct ls_tensor branch;

    LS_TRY(enter_block(&branch, g, dy, LS_KEPT_MASK2, DOWN_BIAS));
    input_gradient(g, plan->down, &d_act, &branch, w->down);
    LS_TRY(weight_gradient(g, plan->down, d->down, &branch, &act));
    ls_activation_backward(queue_of(g), &dz, &d_act, &z, plan->options.activation);
    inner_bias(g, &dz, ls_layer_qkv_width(plan));
    return column_parallel(g, plan->up, d->up, &dz, input, w->up);
}

static ls_status attention_gradient(const struct backward *g, const struct ls_tensor *dy,
                                    const struct ls_tensor *input)
{
    struct ls_layer_plan *plan = g->plan;
    const struct ls_layer_parameters *w = g->parameters, *d = g->gradients;
    const struct ls_tensor o = kept(g, LS_KEPT_ATTENTION);
    struct ls_tensor d_o = work(g, LS_WORK_D_INNER, plan->heads * plan->shape.d);
    struct ls_tensor dqkv = work(g, LS_WORK_D_OUTER, ls_layer_qkv_width(plan));
    struct ls_tensor branch;

    LS_TRY(enter_block(&branch, g, dy, LS_KEPT_MASK1, OUT_BIAS));
    input_gradient(g, plan->out, &d_o, &branch, w->out);
    LS_TRY(weight_gradient(g, plan->out, d->out, &branch, &o));
    LS_TRY(plan->core->backward(&dqkv, plan, g->state, &d_o));
    ls_layer_rotate(plan, &dqkv, true);
    inner_bias(g, &dqkv, 0);
    return column_parallel(g, plan->qkv, d->qkv, &dqkv, input, w->qkv);
}

/* ---- the layer */

static ls_status pre_norm(struct ls_tensor *dx, const struct backward *g,
                          const struct ls_tensor *dy)
{
    const struct ls_layer_parameters *w = g->parameters;
    const struct ls_tensor x = kept(g, LS_KEPT_INPUT), x2 = kept(g, LS_KEPT_SUM1);
    const struct ls_tensor n1 = kept(g, LS_KEPT_NORM1), n2 = kept(g, LS_KEPT_NORM2);
    const struct ls_tensor *sum = &g->plan->work[LS_WORK_SUM];
    struct ls_tensor dx2 = g->plan->work[LS_WORK_D_SUM];

    LS_TRY(mlp_gradient(g, dy, &n2));
    ls_copy(queue_of(g), &dx2, dy);
    norm_gradient(g, &dx2, sum, &x2, LS_KEPT_STATISTICS2, w->norm2, NORM2, true);
    LS_TRY(attention_gradient(g, &dx2, &n1));
    ls_copy(queue_of(g), dx, &dx2);
    norm_gradient(g, dx, sum, &x, LS_KEPT_STATISTICS1, w->norm1, NORM1, true);
    return LS_OK;
}

/* y = norm2(n1 + mlp(n1)), n1 = norm1(x + attention(x)) */
static ls_status post_norm(struct ls_tensor *dx, const struct backward *g,
                           const struct ls_tensor *dy)
{
    const struct ls_layer_parameters *w = g->parameters;
    const struct ls_tensor x = kept(g, LS_KEPT_INPUT), x1 = kept(g, LS_KEPT_SUM1);
    const struct ls_tensor n1 = kept(g, LS_KEPT_NORM1), x2 = kept(g, LS_KEPT_SUM2);
    const struct ls_tensor *sum = &g->plan->work[LS_WORK_SUM];
    struct ls_tensor between = g->plan->work[LS_WORK_D_SUM];

    norm_gradient(g, &between, dy, &x2, LS_KEPT_STATISTICS2, w->norm2, NORM2, false);
    LS_TRY(mlp_gradient(g, &between, &n1));
    ls_tensor_add(queue_of(g), &between, &between, sum);
    norm_gradient(g, dx, &between, &x1, LS_KEPT_STATISTICS1, w->norm1, NORM1, false);
    LS_TRY(attention_gradient(g, dx, &x));
    ls_tensor_add(queue_of(g), dx, dx, sum);
    return LS_OK;
}

/* Biases and norms: what all rows add to. */
static ls_status vector_gradients(const struct backward *g)
{
    const struct ls_layer_parameters *d = g->gradients;
    struct ls_layer_plan *plan = g->plan;
    const int64_t e = plan->shape.e, qkv = ls_layer_qkv_width(plan), up = ls_layer_up_width(plan);
    struct ls_tensor *const outer[] = {
        [NORM1] = d->norm1,           [NORM1_BIAS] = d->norm1_bias, [NORM2] = d->norm2,
        [NORM2_BIAS] = d->norm2_bias, [OUT_BIAS] = d->out_bias,     [DOWN_BIAS] = d->down_bias};
    const struct ls_vector inner[] = {{d->qkv_bias, 0, qkv}, {d->up_bias, qkv, up}};
    struct ls_vector list[OUTER_VECTORS];

    for (int i = 0; i < OUTER_VECTORS; i++) list[i] = (struct ls_vector){outer[i], i * e, e};
    LS_TRY(ls_vectors_sum(&plan->outer, list, OUTER_VECTORS));
    return plan->options.no_bias ? LS_OK : ls_vectors_sum(&plan->inner, inner, 2);
}

/* What states do not keep. */
static ls_status bring_back(const struct backward *g)
{
    struct ls_layer_pass pass = {.plan = g->plan, .state = g->state, .parameters = g->parameters};

    for (int kind = 0; kind < LS_KEPT_KINDS; kind++)
        pass.makes[kind] = ls_layer_makes_again(g->plan, kind);
    return ls_layer_make(&pass);
}

ls_status ls_layer_run_backward(struct ls_tensor *dx, const struct ls_layer_parameters *gradients,
                                struct ls_layer_plan *plan, struct ls_layer_state *state,
                                const struct ls_layer_parameters *parameters,
                                const struct ls_tensor *dy)
{
    const struct backward g = {plan, state, parameters, gradients};

    LS_TRY(bring_back(&g));
    LS_TRY(plan->options.post_norm ? post_norm(dx, &g, dy) : pre_norm(dx, &g, dy));
    return vector_gradients(&g);
}
