/* Making a layer's plan, and ending it. */
#include "layer/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/plan.h"
#include "device/norm.h"
#include "layer/core.h"
#include "plan/pieces.h"

/* ---- what is asked for */

static ls_status read_options(struct ls_layer_options *out, const struct ls_layer_options *in)
{
    if (in->size != sizeof *out)
        return ls_fail(LS_EVALUE,
                       "layer options of %zu bytes, this library knows %zu: start from "
                       "LS_LAYER_OPTIONS",
                       in->size, sizeof *out);
    *out = *in;
    if (out->tp == 0) out->tp = 1;
    if (out->cp == 0) out->cp = 1;
    if (out->epsilon == 0) out->epsilon = 1e-5F;
    if (!out->device) return ls_fail(LS_EVALUE, "a layer needs options.device");
    if (!(out->dropout >= 0 && out->dropout < 1))
        return ls_fail(LS_EVALUE, "dropout is %g, must be 0 to below 1", (double)out->dropout);
    if (!(out->epsilon > 0) || !isfinite(out->epsilon))
        return ls_fail(LS_EVALUE, "epsilon is %g, must be finite and more than 0",
                       (double)out->epsilon);
    if (out->post_norm && out->parallel)
        return ls_fail(LS_EVALUE, "a layer whose blocks are parallel has one norm, before them: "
                                  "parallel goes with post_norm off");
    return LS_OK;
}

static ls_status check_share(const char *what, int64_t n, int ranks)
{
    if (n > 0 && n % ranks == 0) return LS_OK;
    return ls_fail(LS_ESHAPE, "%lld %s cannot be shared evenly by %d tensor-parallel ranks",
                   (long long)n, what, ranks);
}

/* Each rank has some, or each some ranks. */
static ls_status check_kv_heads(const struct ls_layer_shape *s, int ranks)
{
    if (s->h_kv < 1 || s->h % s->h_kv != 0)
        return ls_fail(LS_ESHAPE, "%lld heads are not a multiple of %lld key/value heads",
                       (long long)s->h, (long long)s->h_kv);
    if (s->h_kv % ranks == 0 || ranks % s->h_kv == 0) return LS_OK;
    return ls_fail(
        LS_ESHAPE,
        "%lld key/value heads and %d tensor-parallel ranks: neither is a multiple of the "
        "other",
        (long long)s->h_kv, ranks);
}

static ls_status check_shape(const struct ls_layer_shape *s, const struct ls_layer_options *o)
{
    if (s->type != LS_BF16 && s->type != LS_F32)
        return ls_fail(LS_ETYPE, "layers are bf16 or f32, not %s", ls_dtype_name(s->type));
    if (o->rope_theta != 0 && (s->d % 2 != 0 || !(o->rope_theta > 0)))
        return ls_fail(LS_ESHAPE, "rotary positions of base %g turn pairs, head dim is %lld",
                       (double)o->rope_theta, (long long)s->d);
    if (s->b < 1 || s->s < 1 || s->e < 1)
        return ls_fail(LS_ESHAPE, "a layer of %lld sequences of %lld tokens of width %lld",
                       (long long)s->b, (long long)s->s, (long long)s->e);
    LS_TRY(check_share("heads", s->h, o->tp));
    LS_TRY(check_kv_heads(s, o->tp));
    return check_share("columns of the MLP", s->f, o->tp);
}

/* ---- parts */

static ls_status create_rotary(struct ls_layer_plan *plan)
{
    const int64_t d = plan->shape.d;

    if (plan->options.rope_theta == 0) return LS_OK;
    plan->frequency = calloc((size_t)(d / 2) + 1, sizeof *plan->frequency);
    if (!plan->frequency) return ls_fail(LS_ENOMEM, "layer: out of memory");
    ls_rotary_frequencies(plan->frequency, (double)plan->options.rope_theta, d);
    plan->rotary = (struct ls_rotary){.dims = d, .frequency = plan->frequency};
    return LS_OK;
}

static ls_status create_linear(struct ls_linear_kernel **out, const struct ls_layer_plan *plan,
                               int64_t in, int64_t width)
{
    const struct ls_linear_shape shape = {.type = plan->shape.type,
                                          .rows = plan->shape.b * plan->rows,
                                          .in = in,
                                          .out = width,
                                          .backward = true,
                                          .b = plan->shape.b,
                                          .s = plan->shape.s};

    return ls_linear_kernel_create(out, plan->device, &shape);
}

static ls_status create_linears(struct ls_layer_plan *plan)
{
    const int64_t e = plan->shape.e;

    LS_TRY(create_linear(&plan->qkv, plan, e, ls_layer_qkv_width(plan)));
    LS_TRY(create_linear(&plan->out, plan, plan->heads * plan->shape.d, e));
    LS_TRY(create_linear(&plan->up, plan, e, ls_layer_up_width(plan)));
    return create_linear(&plan->down, plan, plan->columns, e);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Rows and width of what lives within a call; outside, where there is no other rank to share rows
 * with, is inside. */
static void shape_work(int64_t rows[LS_WORKS], int64_t width[LS_WORKS],
                       const struct ls_layer_plan *plan)
{
    const int64_t e = plan->shape.e, d = plan->shape.d;

    for (int i = 0; i < LS_WORKS; i++) width[i] = e;
    width[LS_WORK_D_INNER] = larger(plan->heads * d, plan->columns);
    width[LS_WORK_D_OUTER] = larger(ls_layer_qkv_width(plan), ls_layer_up_width(plan));
    rows[LS_WORK_PARTIAL] = rows[LS_WORK_D_INNER] = rows[LS_WORK_D_OUTER] = plan->rows;
    rows[LS_WORK_GATHERED] = rows[LS_WORK_BRANCH] = plan->grid.sp ? plan->rows : 0;
    rows[LS_WORK_SUM] = plan->grid.sp ? plan->outer_rows : 0;
    rows[LS_WORK_DROPPED] = rows[LS_WORK_D_SUM] = plan->outer_rows;
}

static ls_status create_work(struct ls_layer_plan *plan)
{
    const size_t element = (size_t)ls_dtype_size(plan->shape.type);
    int64_t rows[LS_WORKS], width[LS_WORKS];
    size_t at[LS_WORKS + 1] = {0};

    shape_work(rows, width, plan);
    for (int i = 0; i < LS_WORKS; i++)
        at[i + 1] = at[i] + ((size_t)(plan->shape.b * rows[i] * width[i]) * element + 63) / 64 * 64;
    LS_TRY(ls_device_alloc(&plan->memory, plan->device, LS_TAG_WORKSPACE, at[LS_WORKS]));
    for (int i = 0; i < LS_WORKS; i++) {
        const int64_t dim[] = {plan->shape.b, rows[i], width[i]};

        plan->work[i] = ls_tensor_view((char *)plan->memory + at[i], plan->shape.type, 3, dim);
    }
    if (!plan->grid.sp) plan->work[LS_WORK_SUM] = plan->work[LS_WORK_PARTIAL];
    if (!plan->grid.sp) plan->work[LS_WORK_BRANCH] = plan->work[LS_WORK_DROPPED];
    return LS_OK;
}

static ls_status create_weight_sums(struct ls_layer_plan *plan, const struct ls_transport *context)
{
    const int64_t e = plan->shape.e, o = plan->heads * plan->shape.d;
    const struct ls_weight_shape shape = {
        .layout = &plan->layout,
        .b = plan->shape.b,
        .leaves = plan->leaves,
        .most_weights = e * larger(larger(ls_layer_qkv_width(plan), o), ls_layer_up_width(plan)),
        .most_columns = larger(larger(e, o), plan->columns),
        .strict = plan->options.strict};

    return ls_weight_sums_init(&plan->weights, context, plan->device, &shape);
}

/* Where other tensor-parallel ranks have the same key/value heads. */
static ls_status create_kv_sums(struct ls_layer_plan *plan)
{
    const int64_t n = ls_layer_kv_width(plan) * plan->shape.e;
    void *memory;

    if (!plan->kv_ranks) return LS_OK;
    const struct ls_transport kv = ls_transport_on(plan->device, plan->kv_ranks, &plan->traffic);

    LS_TRY(ls_batch_init_collective(&plan->kv_sums, &kv));
    LS_TRY(ls_device_alloc(&memory, plan->device, LS_TAG_GRADIENT, (size_t)n * sizeof(float)));
    plan->kv_gradient = memory;
    return LS_OK;
}

static ls_status create_local(struct ls_layer_plan *plan, const struct ls_transport *tensor,
                              const struct ls_transport *context)
{
    LS_TRY(ls_layer_list_rows(plan));
    LS_TRY(create_rotary(plan));
    LS_TRY(create_linears(plan));
    LS_TRY(create_work(plan));
    LS_TRY(ls_layer_reserve(plan, plan->pieces));
    LS_TRY(create_weight_sums(plan, context));
    LS_TRY(create_kv_sums(plan));
    return ls_exchange_init(&plan->exchange, &plan->grid, tensor, &plan->device->queue,
                            plan->shape.b, plan->rows, plan->shape.e, plan->shape.type);
}

static size_t outer_scratch(const struct ls_layer_plan *plan)
{
    const int64_t rows = plan->shape.b * plan->outer_rows, e = plan->shape.e;
    const size_t norm = ls_norm_backward_bytes(plan->device, rows, e);
    const size_t sums = ls_row_sums_bytes(plan->device, rows, e);

    return norm > sums ? norm : sums;
}

/* Rows outside are shared by all ranks, or all tensor-parallel ranks have them. */
static ls_status create_vectors(struct ls_layer_plan *plan, const struct ls_transport *all,
                                const struct ls_transport *context)
{
    const struct ls_layer_options *o = &plan->options;
    const int64_t b = plan->shape.b, e = plan->shape.e;
    const int64_t qkv = ls_layer_qkv_width(plan), up = ls_layer_up_width(plan);
    const int64_t norm2 = o->parallel ? 0 : e, beta = o->norm == LS_NORM_LAYER;
    const int64_t outer[LS_OUTER_VECTORS] = {[LS_OUTER_NORM1] = e,
                                             [LS_OUTER_NORM1_BIAS] = beta * e,
                                             [LS_OUTER_NORM2] = norm2,
                                             [LS_OUTER_NORM2_BIAS] = beta * norm2,
                                             [LS_OUTER_OUT_BIAS] = o->no_bias ? 0 : e,
                                             [LS_OUTER_DOWN_BIAS] = o->no_bias ? 0 : e};
    const int64_t inner[LS_INNER_VECTORS] = {
        [LS_INNER_QKV_BIAS] = o->no_bias ? 0 : qkv, [LS_INNER_UP_BIAS] = o->no_bias ? 0 : up};
    const bool sp = plan->grid.sp;

    LS_TRY(ls_vectors_init(&plan->outer, sp ? plan->grid.all : plan->grid.context_ranks,
                           sp ? all : context, plan->device, &plan->outer_runs, b, outer,
                           LS_OUTER_VECTORS, outer_scratch(plan)));
    return ls_vectors_init(&plan->inner, plan->grid.context_ranks, context, plan->device,
                           &plan->inner_runs, b, inner, LS_INNER_VECTORS,
                           ls_row_sums_bytes(plan->device, b * plan->rows, larger(qkv, up)));
}

/* Where there are more tensor-parallel ranks than key/value heads, several have the same one. */
static ls_status share_kv_heads(struct ls_layer_plan *plan)
{
    const int64_t t = plan->grid.t, h_kv = plan->shape.h_kv;

    plan->kv_heads = h_kv > t ? h_kv / t : 1;
    return t > h_kv ? ls_grid_split(&plan->kv_ranks, &plan->grid, (int)(t / h_kv)) : LS_OK;
}

static ls_status create(struct ls_layer_plan *plan, struct ls_comm *comm)
{
    const struct ls_layer_options *o = &plan->options;

    LS_TRY(ls_grid_init(&plan->grid, comm, o->tp, o->cp, o->sp));
    plan->heads = plan->shape.h / o->tp;
    plan->columns = plan->shape.f / o->tp;
    LS_TRY(share_kv_heads(plan));
    plan->traffic.mover = &plan->device->queue.progress;
    LS_TRY(ls_comm_agree(plan->grid.all, plan->core->create(plan)));
    const struct ls_transport all = ls_transport_on(plan->device, plan->grid.all, &plan->traffic);
    const struct ls_transport tensor =
        ls_transport_on(plan->device, plan->grid.tensor_ranks, &plan->traffic);
    const struct ls_transport context =
        ls_transport_on(plan->device, plan->grid.context_ranks, &plan->traffic);
    LS_TRY(ls_comm_agree(plan->grid.all, create_local(plan, &tensor, &context)));
    return ls_comm_agree(plan->grid.all, create_vectors(plan, &all, &context));
}

ls_status ls_layer_plan_create(struct ls_layer_plan **out, struct ls_comm *comm,
                               const struct ls_layer_shape *shape,
                               const struct ls_layer_options *options)
{
    struct ls_layer_plan *plan = calloc(1, sizeof *plan);
    struct ls_layer_options read = LS_LAYER_OPTIONS;
    unsigned pieces = 0;
    ls_status status =
        plan ? read_options(&read, options) : ls_fail(LS_ENOMEM, "layer: out of memory");

    if (status == LS_OK) status = check_shape(shape, &read);
    if (status == LS_OK && read.recompute) status = ls_pieces_parse(&pieces, read.recompute);
    if (status == LS_OK) status = ls_layer_core_of(&plan->core, read.core);
    LS_TRY_GOTO(status, ls_layer_agree(comm, status, shape, &read, pieces), destroy);
    plan->shape = *shape;
    plan->options = read;
    plan->pieces = pieces;
    plan->device = read.device;
    LS_TRY_GOTO(status, create(plan, comm), destroy);
    *out = plan;
    return LS_OK;
destroy:
    ls_layer_plan_destroy(plan);
    return status;
}

void ls_layer_plan_destroy(struct ls_layer_plan *plan)
{
    if (!plan) return;
    plan->traffic.mover = NULL;
    ls_vectors_fini(&plan->inner);
    ls_vectors_fini(&plan->outer);
    ls_weight_sums_fini(&plan->weights);
    ls_batch_fini(&plan->kv_sums);
    ls_exchange_fini(&plan->exchange);
    if (plan->device) {
        ls_device_free(plan->device, plan->again);
        ls_device_free(plan->device, plan->kv_gradient);
        ls_device_free(plan->device, plan->memory);
        ls_linear_kernel_destroy(plan->device, plan->down);
        ls_linear_kernel_destroy(plan->device, plan->up);
        ls_linear_kernel_destroy(plan->device, plan->out);
        ls_linear_kernel_destroy(plan->device, plan->qkv);
    }
    free(plan->frequency);
    free(plan->leaf);
    free(plan->run);
    if (plan->core) plan->core->destroy(plan);
    ls_comm_destroy(plan->kv_ranks);
    ls_grid_fini(&plan->grid);
    free(plan);
}
