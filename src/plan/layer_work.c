#include "plan/layer_work.h"

#include "plan/model_widths.h"
#include "tensor/dtype.h"

/* Bytes of a random word: drawing takes about as long as reading so many. */
#define DRAWN 4.0

struct list {
    const struct ls_model_shape *model;
    const struct ls_model_run *run;
    double bytes[LS_KEPT_KINDS]; /* of what the layer makes; 0: it has none */
    double element;
    double tokens;          /* of a rank, the mean */
    double inside, outside; /* bytes of rows of width h there */
    struct ls_layer_operation *out;
    int count;
};

/* ---- work */

struct ls_layer_work ls_layer_work_sum(const struct ls_layer_work *a, const struct ls_layer_work *b)
{
    return (struct ls_layer_work){a->flops + b->flops, a->memory + b->memory,
                                  a->exchanged + b->exchanged};
}

struct ls_layer_work ls_layer_work_times(const struct ls_layer_work *a, double n)
{
    return (struct ls_layer_work){a->flops * n, a->memory * n, a->exchanged * n};
}

static double time_of(double n, double rate)
{
    return rate > 0 ? n / rate : 0;
}

double ls_layer_work_seconds(const struct ls_layer_work *work, const struct ls_rates *rates)
{
    return time_of(work->flops, rates->flops) + time_of(work->memory, rates->memory) +
           time_of(work->exchanged, rates->exchanged);
}

/* ---- operations of both blocks */

static void add(struct list *list, const char *name, unsigned makes, struct ls_layer_work work)
{
    list->out[list->count++] =
        (struct ls_layer_operation){.name = name, .makes = makes, .work = work};
}

static double linear_flops(const struct list *list, int64_t in, int64_t out)
{
    return 2 * list->tokens * (double)in * (double)out;
}

static bool shares_rows(const struct list *list)
{
    return list->run->sp && list->run->t > 1;
}

/* output 0: it is the layer's. */
static void add_norm(struct list *list, const char *name, unsigned output, ls_kept_kind statistics)
{
    add(list, name, output | 1U << statistics,
        (struct ls_layer_work){.memory = 2 * list->outside + list->bytes[statistics]});
}

/* A column-parallel linear, and the gathering of its input. */
static void add_column_parallel(struct list *list, const char *name, ls_kept_kind makes,
                                int64_t width)
{
    const int64_t h = list->model->h;
    struct ls_layer_work work = {.flops = linear_flops(list, h, width),
                                 .memory = list->inside + list->bytes[makes] +
                                           (double)h * (double)width * list->element};

    if (shares_rows(list)) {
        work.memory += list->outside + list->inside;
        work.exchanged = list->inside - list->outside;
    }
    add(list, name, 1U << makes, work);
}

/* A row-parallel linear of what has so many columns and bytes, the sum over ranks, dropout and the
 * residual path. */
static void add_row_parallel(struct list *list, const char *name, unsigned makes, int64_t width,
                             double bytes)
{
    const struct ls_model_run *run = list->run;
    const double h = (double)list->model->h, t = (double)run->t;
    struct ls_layer_work work = {.flops = linear_flops(list, width, list->model->h),
                                 .memory = bytes + (double)width * h * list->element +
                                           list->inside + 3 * list->outside};

    if (run->t > 1) {
        work.memory += list->inside + list->outside;
        work.exchanged = run->sp ? list->inside - list->outside : 2 * list->inside * (t - 1) / t;
    }
    if (run->dropout) work.memory += DRAWN * list->outside / list->element;
    add(list, name, makes, work);
}

/* In backward, where it was not kept: forward has drawn it on the way. */
static void add_mask(struct list *list, const char *name, ls_kept_kind mask)
{
    if (!list->run->dropout) return;
    add(list, name, 1U << mask, (struct ls_layer_work){.memory = DRAWN * list->bytes[mask]});
    list->out[list->count - 1].only_again = true;
}

/* ---- attention */

/* One of two products of all heads. */
static double core_flops(const struct list *list)
{
    const double s = (double)list->run->s, d = (double)q_width(list->model, list->run->t);

    return 2 * list->tokens * d * (list->run->causal ? (s + 1) / 2 : s);
}

/* K or V of the whole sequence, and what of it other context-parallel ranks have. */
static double all_keys(const struct list *list)
{
    return (double)list->run->b * (double)list->run->s *
           (double)kv_width(list->model, list->run->t) * list->element;
}

static double others_keys(const struct list *list)
{
    return all_keys(list) * (1 - (double)part_rows(list->run) / (double)list->run->s);
}

static double query_bytes(const struct list *list)
{
    return list->bytes[LS_KEPT_ATTENTION];
}

static void add_fused_core(struct list *list)
{
    add(list, "attention", 1U << LS_KEPT_ATTENTION | 1U << LS_KEPT_LSE,
        (struct ls_layer_work){.flops = 2 * core_flops(list),
                               .memory = query_bytes(list) + 2 * all_keys(list) +
                                         list->bytes[LS_KEPT_ATTENTION] + list->bytes[LS_KEPT_LSE],
                               .exchanged = 2 * others_keys(list)});
}

/* Scores are written, read and become probabilities, which dropout reads. Keys and values come
 * together. */
static void add_materialized_core(struct list *list)
{
    const double softmax = list->bytes[LS_KEPT_SOFTMAX], mask = list->bytes[LS_KEPT_SOFTMAX_MASK];

    add(list, "softmax", 1U << LS_KEPT_SOFTMAX,
        (struct ls_layer_work){.flops = core_flops(list),
                               .memory = query_bytes(list) + all_keys(list) + 3 * softmax,
                               .exchanged = 2 * others_keys(list)});
    if (list->run->dropout)
        add(list, "dropout of softmax", 1U << LS_KEPT_SOFTMAX_MASK | 1U << LS_KEPT_DROPPED,
            (struct ls_layer_work){.memory = 2 * softmax + (1 + DRAWN) * mask});
    add(list, "attention", 1U << LS_KEPT_ATTENTION,
        (struct ls_layer_work){.flops = core_flops(list),
                               .memory =
                                   softmax + all_keys(list) + list->bytes[LS_KEPT_ATTENTION]});
}

static void add_attention(struct list *list)
{
    const struct ls_model_shape *model = list->model;
    const int64_t t = list->run->t;

    if (!model->post_norm) add_norm(list, "norm 1", 1U << LS_KEPT_NORM1, LS_KEPT_STATISTICS1);
    add_column_parallel(list, "q, k, v", LS_KEPT_QKV, qkv_width(model, t));
    if (model->positions == LS_POSITIONS_ROTARY) /* q and k are turned where they are */
        list->out[list->count - 1].work.memory += 2 * list->bytes[LS_KEPT_QKV] *
                                                  (double)(q_width(model, t) + kv_width(model, t)) /
                                                  (double)qkv_width(model, t);
    if (list->run->core == LS_CORE_FUSED)
        add_fused_core(list);
    else
        add_materialized_core(list);
    add_mask(list, "mask behind attention", LS_KEPT_MASK1);
    add_row_parallel(list, "output of attention", model->parallel ? 0 : 1U << LS_KEPT_SUM1,
                     q_width(model, t), list->bytes[LS_KEPT_ATTENTION]);
}

/* ---- MLP */

/* GELU's tanh form comes with the linear, if that is run. */
static void add_activation(struct list *list)
{
    const unsigned makes = 1U << LS_KEPT_ACTIVATION;

    add(list, "activation of MLP", makes,
        (struct ls_layer_work){.memory = list->bytes[LS_KEPT_ACTIVATION]});
    add(list, "input of activation", makes,
        (struct ls_layer_work){.memory = list->bytes[LS_KEPT_UP]});
    if (list->model->activation != LS_ACTIVATION_GELU_TANH) return;
    list->out[list->count - 1].unless = 1U << LS_KEPT_UP;
    list->out[list->count - 1].only_again = true;
}

static void add_mlp(struct list *list)
{
    const struct ls_model_shape *model = list->model;
    const int64_t t = list->run->t;

    if (!model->parallel && !model->post_norm)
        add_norm(list, "norm 2", 1U << LS_KEPT_NORM2, LS_KEPT_STATISTICS2);
    if (!model->parallel && model->post_norm)
        add_norm(list, "norm 1", 1U << LS_KEPT_NORM1, LS_KEPT_STATISTICS1);
    add_column_parallel(list, "first linear of MLP", LS_KEPT_UP, mlp_width(model, t));
    add_activation(list);
    add_mask(list, "mask behind MLP", LS_KEPT_MASK2);
    add_row_parallel(list, "output of MLP", model->post_norm ? 1U << LS_KEPT_SUM2 : 0, model->f / t,
                     list->bytes[LS_KEPT_ACTIVATION]);
    if (model->post_norm) add_norm(list, "norm 2", 0, LS_KEPT_STATISTICS2);
}

/* ---- a layer */

int ls_layer_operations(struct ls_layer_operation out[LS_LAYER_OPERATIONS],
                        const struct ls_model_shape *model, const struct ls_model_run *run)
{
    const double element = ls_dtype_size(run->type), row = (double)model->h * element;
    struct list list = {.model = model,
                        .run = run,
                        .element = element,
                        .tokens = (double)run->b * (double)run->s / (double)run->c,
                        .inside = (double)inner_rows(run) * row,
                        .outside = (double)outer_rows(run) * row,
                        .out = out};
    struct ls_kept kept[LS_KEPT_KINDS];
    const int n = ls_layer_keeps(kept, model, run);

    for (int i = 0; i < n; i++) list.bytes[kept[i].kind] = (double)kept[i].bytes;
    add_attention(&list);
    add_mlp(&list);
    return list.count;
}

struct ls_layer_work ls_layer_again(const struct ls_model_shape *model,
                                    const struct ls_model_run *run)
{
    struct ls_layer_operation list[LS_LAYER_OPERATIONS];
    const int n = ls_layer_operations(list, model, run);
    const unsigned kinds = ls_kept_discarded(run->pieces);
    struct ls_layer_work sum = {0, 0, 0};

    for (int i = 0; i < n; i++)
        if (list[i].makes & kinds && !(list[i].unless & kinds))
            sum = ls_layer_work_sum(&sum, &list[i].work);
    return sum;
}

/* What backward alone exchanges: inputs of column-parallel linears gathered again, and gradients of
 * K and V in f32. */
static double more_exchanged(const struct ls_model_shape *model, const struct ls_model_run *run)
{
    const double inner = (double)inner_rows(run), outer = (double)outer_rows(run);
    const double others = (double)run->b * (double)(run->s - part_rows(run));
    const double row = (double)model->h * ls_dtype_size(run->type);

    return 2 * (inner - outer) * row + others * 2 * (double)kv_width(model, run->t) * sizeof(float);
}

struct ls_layer_work ls_layer_step(const struct ls_model_shape *model,
                                   const struct ls_model_run *run)
{
    struct ls_layer_operation list[LS_LAYER_OPERATIONS];
    const int n = ls_layer_operations(list, model, run);
    struct ls_layer_work step = {.exchanged = more_exchanged(model, run)};

    for (int i = 0; i < n; i++) {
        const struct ls_layer_work *forward = &list[i].work;
        const bool fused = run->core == LS_CORE_FUSED && list[i].makes & 1U << LS_KEPT_ATTENTION;

        if (list[i].only_again) continue;
        step.flops += forward->flops * (fused ? 3.5 : 3);
        step.memory += 3 * forward->memory;
        step.exchanged += 2 * forward->exchanged;
    }
    return step;
}
