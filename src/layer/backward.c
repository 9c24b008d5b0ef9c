/* A layer backward. dx is written; to gradients of parameters is added.
 *   da = dropout'(dy)     dWdown += da^T act      dz = act'(z) (da Wdown^T)
 *   dWup += dz^T n2       dn2 = dz Wup^T          dx2 = dy + norm2'(dn2)
 * and the same of attention. What a row-parallel linear gave was summed, so its gradient is
 * gathered, beside that of its input; what a column-parallel one was given was gathered, so its
 * gradient is summed, while the weights' gradient is computed; and that needs the gathered input
 * once more, which comes while the input's gradient is computed. In parallel both blocks were given
 * the same, which is gathered once, and the sum of their parts is one exchange. Source: Korthikanti
 * et al. 2022, section 4.2.2. */
#include "attention/problem.h"
#include "base/profile.h"
#include "base/trace.h"
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

    ls_linear_dx(queue_of(g), kernel,
                 &(struct ls_linear_input_gradient){.dx = &out, .dy = &in, .w = weight});
}

/* values [n] become the sum of all ranks', where there are others. */
static ls_status sum_of_ranks(struct ls_batch *batch, float *values, int64_t n)
{
    if (n == 0 || batch->transport.size < 2) return LS_OK;
    ls_batch_all_reduce(batch, values, LS_F32, n, LS_REDUCE_SUM);
    return ls_batch_run(batch);
}

/* Of q, k and v, where other tensor-parallel ranks have the same k and v, and add to theirs. */
static ls_status shared_gradient(const struct backward *g, struct ls_tensor *gradient,
                                 const struct ls_tensor *dy, const struct ls_tensor *x)
{
    struct ls_layer_plan *plan = g->plan;
    const int64_t q = plan->heads * plan->shape.d, e = plan->shape.e;
    const int64_t kv = ls_layer_kv_width(plan), dim[] = {kv, e};
    const struct ls_tensor of_q = ls_range_of(dy, 1, 0, q), of_kv = ls_range_of(dy, 1, q, kv);
    struct ls_tensor rows = ls_range_of(gradient, 0, 0, q);
    struct ls_tensor own = ls_tensor_view(plan->kv_gradient, LS_F32, 2, dim);

    LS_TRY(ls_weight_sums_add(&plan->weights, plan->qkv, &rows, &of_q, x));
    ls_zero(queue_of(g), &own);
    LS_TRY(ls_weight_sums_add(&plan->weights, plan->qkv, &own, &of_kv, x));
    LS_TRY(sum_of_ranks(&plan->kv_sums, plan->kv_gradient, kv * e));
    ls_add(queue_of(g), (float *)gradient->data + q * e, plan->kv_gradient, kv * e);
    return LS_OK;
}

/* gradient += dy^T x over the rows of all context-parallel ranks. */
static ls_status weight_gradient(const struct backward *g, struct ls_linear_kernel *kernel,
                                 struct ls_tensor *gradient, const struct ls_tensor *dy,
                                 const struct ls_tensor *x)
{
    const struct ls_tensor flat_dy = ls_layer_flat(dy), flat_x = ls_layer_flat(x);

    if (kernel == g->plan->qkv && g->plan->kv_ranks)
        return shared_gradient(g, gradient, &flat_dy, &flat_x);
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

/* dx += the gradient through a norm of in, whose output has the gradient dy. */
static void norm_gradient(const struct backward *g, struct ls_tensor *dx,
                          const struct ls_tensor *dy, const struct ls_tensor *in, ls_kept_kind kind,
                          const struct ls_tensor *weight, int vector, bool add)
{
    const struct ls_layer_statistics statistics = ls_layer_statistics_of(g->state, kind);

    ls_norm_backward(queue_of(g), &(struct ls_norm_backward){
                                      .dx = dx,
                                      .add = add,
                                      .dgamma = ls_vectors_place(&g->plan->outer, vector),
                                      .dbeta = ls_vectors_place(&g->plan->outer, vector + 1),
                                      .dy = dy,
                                      .x = in,
                                      .mean = statistics.mean,
                                      .rstd = statistics.rstd,
                                      .gamma = weight->data,
                                      .order = &g->plan->outer.order,
                                      .scratch = g->plan->outer.scratch});
}

/* A bias has the sum of dy, if there is one. */
static void bias_gradient(const struct backward *g, const struct ls_vectors *vectors, int vector,
                          const struct ls_tensor *dy)
{
    float *place = ls_vectors_place(vectors, vector);

    if (place) ls_row_sums(queue_of(g), place, dy, &vectors->order, vectors->scratch);
}

/* A row-parallel linear: dx of dy [inside]. */
struct entry {
    const struct backward *g;
    struct ls_linear_kernel *kernel;
    const struct ls_tensor *weight;
    struct ls_tensor dx, dy;
};

static void entry_piece(const void *job, const struct ls_exchange_piece *piece)
{
    const struct entry *e = job;
    struct ls_tensor dx = ls_layer_piece(&e->dx, piece);
    const struct ls_tensor dy = ls_layer_piece(&e->dy, piece);

    ls_linear_dx(queue_of(e->g), e->kernel,
                 &(struct ls_linear_input_gradient){
                     .dx = &dx, .dy = &dy, .w = e->weight, .packed = !piece->is_first});
}

/* entry->dy becomes the gradient behind a block's row-parallel linear, before dropout, and its bias
 * has the sum of it; entry->dx what follows from it. */
static ls_status enter_block(const struct entry *entry, const struct ls_tensor *dy,
                             ls_kept_kind mask, int vector)
{
    const struct backward *g = entry->g;
    struct ls_layer_plan *plan = g->plan;
    struct ls_tensor outside = plan->work[LS_WORK_DROPPED];

    ls_layer_dropout(&outside, plan, g->state, NULL, dy, mask);
    bias_gradient(g, &plan->outer, vector, &outside);
    return ls_exchange_gather_beside(&plan->exchange, &entry->dy, &outside,
                                     &(struct ls_exchange_work){entry_piece, entry});
}

/* ---- blocks: the gradient of what their column-parallel linear gave, in LS_WORK_D_OUTER */

static ls_status end_mlp(struct ls_tensor *dz, const struct backward *g, const struct ls_tensor *dy)
{
    struct ls_layer_plan *plan = g->plan;
    const struct ls_layer_parameters *w = g->parameters, *d = g->gradients;
    const struct ls_tensor act = kept(g, LS_KEPT_ACTIVATION), z = kept(g, LS_KEPT_UP);
    const struct entry entry = {g, plan->down, w->down, work(g, LS_WORK_D_INNER, plan->columns),
                                plan->work[LS_WORK_BRANCH]};

    *dz = work(g, LS_WORK_D_OUTER, ls_layer_up_width(plan));
    LS_TRY(enter_block(&entry, dy, LS_KEPT_MASK2, LS_OUTER_DOWN_BIAS));
    LS_TRY(weight_gradient(g, plan->down, d->down, &entry.dy, &act));
    ls_activation_backward(queue_of(g), dz, &entry.dx, &z, plan->options.activation);
    bias_gradient(g, &plan->inner, LS_INNER_UP_BIAS, dz);
    return LS_OK;
}

static ls_status core_gradient(const struct backward *g, const struct ls_tensor *dqkv,
                               const struct ls_tensor *d_o)
{
    static const struct ls_trace_kind kind = {"core", "layer backward", {NULL}};
    const double begin = ls_now();

    LS_TRY(g->plan->core->backward(dqkv, g->plan, g->state, d_o));
    ls_trace_note(&kind, begin, 0);
    return LS_OK;
}

static ls_status end_attention(struct ls_tensor *dqkv, const struct backward *g,
                               const struct ls_tensor *dy)
{
    struct ls_layer_plan *plan = g->plan;
    const struct ls_layer_parameters *w = g->parameters, *d = g->gradients;
    const struct ls_tensor o = kept(g, LS_KEPT_ATTENTION);
    const struct entry entry = {g, plan->out, w->out,
                                work(g, LS_WORK_D_INNER, plan->heads * plan->shape.d),
                                plan->work[LS_WORK_BRANCH]};

    *dqkv = work(g, LS_WORK_D_OUTER, ls_layer_qkv_width(plan));
    LS_TRY(enter_block(&entry, dy, LS_KEPT_MASK1, LS_OUTER_OUT_BIAS));
    LS_TRY(weight_gradient(g, plan->out, d->out, &entry.dy, &o));
    LS_TRY(core_gradient(g, dqkv, &entry.dx));
    ls_layer_rotate(plan, dqkv, true);
    bias_gradient(g, &plan->inner, LS_INNER_QKV_BIAS, dqkv);
    return LS_OK;
}

/* ---- blocks: LS_WORK_SUM becomes the gradient of what they were given, outside */

static ls_status mlp_gradient(const struct backward *g, const struct ls_tensor *dy,
                              const struct ls_tensor *input)
{
    struct ls_tensor dz;

    LS_TRY(end_mlp(&dz, g, dy));
    return column_parallel(g, g->plan->up, g->gradients->up, &dz, input, g->parameters->up);
}

static ls_status attention_gradient(const struct backward *g, const struct ls_tensor *dy,
                                    const struct ls_tensor *input)
{
    struct ls_tensor dqkv;

    LS_TRY(end_attention(&dqkv, g, dy));
    return column_parallel(g, g->plan->qkv, g->gradients->qkv, &dqkv, input, g->parameters->qkv);
}

/* Both, of the same input. */
static ls_status parallel_gradient(const struct backward *g, const struct ls_tensor *dy,
                                   const struct ls_tensor *input)
{
    struct ls_layer_plan *plan = g->plan;
    const struct ls_layer_parameters *w = g->parameters, *d = g->gradients;
    const struct ls_tensor *partial = &plan->work[LS_WORK_PARTIAL], *sum = &plan->work[LS_WORK_SUM];
    const struct ls_tensor *other = &plan->work[LS_WORK_BRANCH];
    const struct ls_tensor inside = plan->grid.sp ? plan->work[LS_WORK_GATHERED] : *input;
    struct ls_tensor both = *partial, dz, dqkv;

    LS_TRY(end_mlp(&dz, g, dy));
    LS_TRY(ls_exchange_start_gather(&plan->exchange, &inside, input));
    input_gradient(g, plan->up, partial, &dz, w->up);
    LS_TRY(ls_exchange_wait(&plan->exchange));
    LS_TRY(weight_gradient(g, plan->up, d->up, &dz, &inside));
    LS_TRY(end_attention(&dqkv, g, dy));
    input_gradient(g, plan->qkv, other, &dqkv, w->qkv);
    ls_tensor_add(queue_of(g), &both, partial, other);
    LS_TRY(ls_exchange_start_sum(&plan->exchange, sum, partial));
    LS_TRY(weight_gradient(g, plan->qkv, d->qkv, &dqkv, &inside));
    return ls_exchange_wait(&plan->exchange);
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
    norm_gradient(g, &dx2, sum, &x2, LS_KEPT_STATISTICS2, w->norm2, LS_OUTER_NORM2, true);
    LS_TRY(attention_gradient(g, &dx2, &n1));
    ls_copy(queue_of(g), dx, &dx2);
    norm_gradient(g, dx, sum, &x, LS_KEPT_STATISTICS1, w->norm1, LS_OUTER_NORM1, true);
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

    norm_gradient(g, &between, dy, &x2, LS_KEPT_STATISTICS2, w->norm2, LS_OUTER_NORM2, false);
    LS_TRY(mlp_gradient(g, &between, &n1));
    ls_tensor_add(queue_of(g), &between, &between, sum);
    norm_gradient(g, dx, &between, &x1, LS_KEPT_STATISTICS1, w->norm1, LS_OUTER_NORM1, false);
    LS_TRY(attention_gradient(g, dx, &x));
    ls_tensor_add(queue_of(g), dx, dx, sum);
    return LS_OK;
}

static ls_status parallel(struct ls_tensor *dx, const struct backward *g,
                          const struct ls_tensor *dy)
{
    const struct ls_tensor x = kept(g, LS_KEPT_INPUT), n1 = kept(g, LS_KEPT_NORM1);

    LS_TRY(parallel_gradient(g, dy, &n1));
    ls_copy(queue_of(g), dx, dy);
    norm_gradient(g, dx, &g->plan->work[LS_WORK_SUM], &x, LS_KEPT_STATISTICS1, g->parameters->norm1,
                  LS_OUTER_NORM1, true);
    return LS_OK;
}

/* gradients += what all rows have added, of those that there are. */
static void add_vectors(const struct backward *g, const struct ls_vectors *vectors,
                        struct ls_tensor *const *gradients, int count)
{
    for (int i = 0; i < count; i++) {
        const float *whole = ls_vectors_whole(vectors, i);

        if (whole) ls_add(queue_of(g), gradients[i]->data, whole, gradients[i]->dim[0]);
    }
}

/* Biases and norms: what all rows add to. */
static ls_status vector_gradients(const struct backward *g)
{
    const struct ls_layer_parameters *d = g->gradients;
    struct ls_layer_plan *plan = g->plan;
    struct ls_tensor *const outer[LS_OUTER_VECTORS] = {
        [LS_OUTER_NORM1] = d->norm1,       [LS_OUTER_NORM1_BIAS] = d->norm1_bias,
        [LS_OUTER_NORM2] = d->norm2,       [LS_OUTER_NORM2_BIAS] = d->norm2_bias,
        [LS_OUTER_OUT_BIAS] = d->out_bias, [LS_OUTER_DOWN_BIAS] = d->down_bias};
    struct ls_tensor *const inner[LS_INNER_VECTORS] = {
        [LS_INNER_QKV_BIAS] = d->qkv_bias, [LS_INNER_UP_BIAS] = d->up_bias};

    LS_TRY(ls_vectors_sum(&plan->outer));
    LS_TRY(ls_vectors_sum(&plan->inner));
    float *qkv = ls_vectors_whole(&plan->inner, LS_INNER_QKV_BIAS);
    if (qkv)
        LS_TRY(sum_of_ranks(&plan->kv_sums, qkv + plan->heads * plan->shape.d,
                            ls_layer_kv_width(plan)));
    add_vectors(g, &plan->outer, outer, LS_OUTER_VECTORS);
    add_vectors(g, &plan->inner, inner, LS_INNER_VECTORS);
    return LS_OK;
}

/* What states do not keep. */
static ls_status bring_back(const struct backward *g)
{
    static const struct ls_trace_kind span = {"bringing back", "layer backward", {NULL}};
    struct ls_layer_pass pass = {.plan = g->plan, .state = g->state, .parameters = g->parameters};
    const double begin = ls_now();

    for (int kind = 0; kind < LS_KEPT_KINDS; kind++)
        pass.makes[kind] = ls_layer_makes_again(g->state, kind);
    LS_TRY(ls_layer_make(&pass));
    ls_trace_note(&span, begin, 0);
    return LS_OK;
}

static ls_status run(struct ls_tensor *dx, const struct backward *g, const struct ls_tensor *dy)
{
    if (g->plan->options.parallel) return parallel(dx, g, dy);
    return g->plan->options.post_norm ? post_norm(dx, g, dy) : pre_norm(dx, g, dy);
}

ls_status ls_layer_run_backward(struct ls_tensor *dx, const struct ls_layer_parameters *gradients,
                                struct ls_layer_plan *plan, struct ls_layer_state *state,
                                const struct ls_layer_parameters *parameters,
                                const struct ls_tensor *dy)
{
    const struct backward g = {plan, state, parameters, gradients};

    LS_TRY(bring_back(&g));
    LS_TRY(run(dx, &g, dy));
    return vector_gradients(&g);
}
