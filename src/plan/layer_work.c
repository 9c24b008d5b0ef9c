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

/* ---- what other ranks have */

static bool shares_rows(const struct list *list)
{
    return list->run->sp && list->run->t > 1;
}

/* Elements of K or V of the whole sequence, and of those that other context-parallel ranks have. */
static double all_keys(const struct list *list)
{
    return (double)list->run->b * (double)list->run->s *
           (double)kv_width(list->model, list->run->t);
}

static double others_keys(const struct list *list)
{
    return all_keys(list) * (1 - (double)part_rows(list->run) / (double)list->run->s);
}

/* Bytes that one exchange brings. */
static double exchanged(const struct list *list, ls_exchange_kind kind)
{
    const double t = (double)list->run->t, others = list->inside - list->outside;

    switch (kind) {
    case LS_EXCHANGE_GATHER:
        return others;
    case LS_EXCHANGE_SUM:
        return shares_rows(list) ? others : 2 * list->inside * (t - 1) / t;
    case LS_EXCHANGE_KEYS:
        return 2 * others_keys(list) * list->element;
    default:
        return 0;
    }
}

/* ---- operations of both blocks */

static void add_exchange(struct list *list, const char *name, unsigned makes,
                         ls_exchange_kind exchange, struct ls_layer_work work)
{
    work.exchanged = exchanged(list, exchange);
    list->out[list->count++] = (struct ls_layer_operation){
        .name = name, .makes = makes, .exchange = exchange, .work = work};
}

static void add(struct list *list, const char *name, unsigned makes, struct ls_layer_work work)
{
    add_exchange(list, name, makes, LS_EXCHANGE_NOTHING, work);
}

static double linear_flops(const struct list *list, int64_t in, int64_t out)
{
    return 2 * list->tokens * (double)in * (double)out;
}

/* output 0: it is the layer's. */
static void add_norm(struct list *list, const char *name, unsigned output, ls_kept_kind statistics)
{
    add(list, name, output | 1U << statistics,
        (struct ls_layer_work){.memory = 2 * list->outside + list->bytes[statistics]});
}

/* The input of column-parallel linears. */
static void add_gather(struct list *list, const char *name, unsigned makes)
{
    add_exchange(
        list, name, makes, LS_EXCHANGE_GATHER,
        (struct ls_layer_work){.memory = shares_rows(list) ? list->outside + list->inside : 0});
}

static void add_column_parallel(struct list *list, const char *name, ls_kept_kind makes,
                                int64_t width)
{
    const double h = (double)list->model->h, weights = h * (double)width * list->element;

    add(list, name, 1U << makes,
        (struct ls_layer_work){.flops = linear_flops(list, list->model->h, width),
                               .memory = list->inside + list->bytes[makes] + weights});
}

/* A row-parallel linear of what has so many columns and bytes, the sum over ranks, dropout and the
 * residual path. */
static void add_row_parallel(struct list *list, const char *name, unsigned makes, int64_t width,
                             double bytes)
{
    const struct ls_model_run *run = list->run;
    const double h = (double)list->model->h;
    struct ls_layer_work work = {.flops = linear_flops(list, width, list->model->h),
                                 .memory = bytes + (double)width * h * list->element +
                                           list->inside + 3 * list->outside};

    if (run->t > 1) work.memory += list->inside + list->outside;
    if (run->dropout) work.memory += DRAWN * list->outside / list->element;
    add_exchange(list, name, makes, LS_EXCHANGE_SUM, work);
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

static double key_bytes(const struct list *list)
{
    return all_keys(list) * list->element;
}

static double query_bytes(const struct list *list)
{
    return list->bytes[LS_KEPT_ATTENTION];
}

static void add_fused_core(struct list *list)
{
    add_exchange(list, "attention", 1U << LS_KEPT_ATTENTION | 1U << LS_KEPT_LSE, LS_EXCHANGE_KEYS,
                 (struct ls_layer_work){.flops = 2 * core_flops(list),
                                        .memory = query_bytes(list) + 2 * key_bytes(list) +
                                                  list->bytes[LS_KEPT_ATTENTION] +
                                                  list->bytes[LS_KEPT_LSE]});
}

/* Scores are written, read and become probabilities, which dropout reads. Keys and values come
 * together. */
static void add_materialized_core(struct list *list)
{
    const double softmax = list->bytes[LS_KEPT_SOFTMAX], mask = list->bytes[LS_KEPT_SOFTMAX_MASK];

    add_exchange(
        list, "softmax", 1U << LS_KEPT_SOFTMAX, LS_EXCHANGE_KEYS,
        (struct ls_layer_work){.flops = core_flops(list),
                               .memory = query_bytes(list) + key_bytes(list) + 3 * softmax});
    if (list->run->dropout)
        add(list, "dropout of softmax", 1U << LS_KEPT_SOFTMAX_MASK | 1U << LS_KEPT_DROPPED,
            (struct ls_layer_work){.memory = 2 * softmax + (1 + DRAWN) * mask});
    add(list, "attention", 1U << LS_KEPT_ATTENTION,
        (struct ls_layer_work){.flops = core_flops(list),
                               .memory =
                                   softmax + key_bytes(list) + list->bytes[LS_KEPT_ATTENTION]});
}

/* q and k are turned where they are. */
static void add_rotary(struct list *list)
{
    const int64_t t = list->run->t, turned = q_width(list->model, t) + kv_width(list->model, t);

    add(list, "rotary positions", 1U << LS_KEPT_QKV,
        (struct ls_layer_work){.memory = 2 * list->bytes[LS_KEPT_QKV] * (double)turned /
                                         (double)qkv_width(list->model, t)});
}

static void add_attention(struct list *list)
{
    const struct ls_model_shape *model = list->model;
    const int64_t t = list->run->t;

    if (!model->post_norm) add_norm(list, "norm 1", 1U << LS_KEPT_NORM1, LS_KEPT_STATISTICS1);
    add_gather(list, model->parallel ? "input of both blocks" : "input of attention",
               1U << LS_KEPT_QKV | (model->parallel ? 1U << LS_KEPT_UP : 0));
    add_column_parallel(list, "q, k, v", LS_KEPT_QKV, qkv_width(model, t));
    if (model->positions == LS_POSITIONS_ROTARY) add_rotary(list);
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
    if (!model->parallel) add_gather(list, "input of MLP", 1U << LS_KEPT_UP);
    add_column_parallel(list, "first linear of MLP", LS_KEPT_UP, mlp_width(model, t));
    add_activation(list);
    add_mask(list, "mask behind MLP", LS_KEPT_MASK2);
    add_row_parallel(list, "output of MLP", model->post_norm ? 1U << LS_KEPT_SUM2 : 0, model->f / t,
                     list->bytes[LS_KEPT_ACTIVATION]);
    if (model->post_norm) add_norm(list, "norm 2", 0, LS_KEPT_STATISTICS2);
}

/* ---- a layer */

static struct list list_operations(struct ls_layer_operation *out,
                                   const struct ls_model_shape *model,
                                   const struct ls_model_run *run)
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
    return list;
}

int ls_layer_operations(struct ls_layer_operation out[LS_LAYER_OPERATIONS],
                        const struct ls_model_shape *model, const struct ls_model_run *run)
{
    return list_operations(out, model, run).count;
}

static bool runs_again(const struct ls_layer_operation *operation, unsigned kinds)
{
    return operation->makes & kinds && !(operation->unless & kinds);
}

static struct ls_layer_exchanges count_exchanges(const struct list *list)
{
    const unsigned kinds = ls_kept_discarded(list->run->pieces);
    struct ls_layer_exchanges n = {.forward = {0}};

    for (int i = 0; i < list->count; i++) {
        const struct ls_layer_operation *operation = &list->out[i];

        n.forward[operation->exchange] += !operation->only_again;
        n.again[operation->exchange] += runs_again(operation, kinds);
    }
    n.backward[LS_EXCHANGE_GATHER] = n.forward[LS_EXCHANGE_SUM] + n.forward[LS_EXCHANGE_GATHER];
    n.backward[LS_EXCHANGE_SUM] = n.forward[LS_EXCHANGE_GATHER];
    n.backward[LS_EXCHANGE_KEYS] = n.forward[LS_EXCHANGE_KEYS];
    return n;
}

struct ls_layer_exchanges ls_layer_exchanges_of(const struct ls_model_shape *model,
                                                const struct ls_model_run *run)
{
    struct ls_layer_operation operations[LS_LAYER_OPERATIONS];
    const struct list list = list_operations(operations, model, run);

    return count_exchanges(&list);
}

struct ls_layer_work ls_layer_again(const struct ls_model_shape *model,
                                    const struct ls_model_run *run)
{
    struct ls_layer_operation list[LS_LAYER_OPERATIONS];
    const int n = ls_layer_operations(list, model, run);
    const unsigned kinds = ls_kept_discarded(run->pieces);
    struct ls_layer_work sum = {0, 0, 0};

    for (int i = 0; i < n; i++)
        if (runs_again(&list[i], kinds)) sum = ls_layer_work_sum(&sum, &list[i].work);
    return sum;
}

static double step_exchanged(const struct list *list)
{
    const struct ls_layer_exchanges n = count_exchanges(list);
    double bytes = 2 * others_keys(list) * sizeof(float); /* gradients */

    for (ls_exchange_kind kind = 0; kind < LS_EXCHANGE_KINDS; kind++)
        bytes += (n.forward[kind] + n.backward[kind]) * exchanged(list, kind);
    return bytes;
}

struct ls_layer_work ls_layer_step(const struct ls_model_shape *model,
                                   const struct ls_model_run *run)
{
    struct ls_layer_operation operations[LS_LAYER_OPERATIONS];
    const struct list list = list_operations(operations, model, run);
    struct ls_layer_work step = {.exchanged = step_exchanged(&list)};

    for (int i = 0; i < list.count; i++) {
        const struct ls_layer_operation *operation = &operations[i];
        const bool fused = run->core == LS_CORE_FUSED && operation->makes & 1U << LS_KEPT_ATTENTION;

        if (operation->only_again) continue;
        step.flops += operation->work.flops * (fused ? 3.5 : 3);
        step.memory += 3 * operation->work.memory;
    }
    return step;
}
