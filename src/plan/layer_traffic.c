#include "plan/layer_traffic.h"

#include "comm/transport.h"
#include "plan/layer_work.h"
#include "plan/model_widths.h"
#include "tensor/dtype.h"

static int64_t times_in_step(const struct ls_layer_exchanges *n, ls_exchange_kind kind)
{
    return n->forward[kind] + n->backward[kind] + n->again[kind];
}

/* ---- rows, between tensor-parallel ranks */

static int64_t row_bytes(const struct ls_model_shape *model, const struct ls_model_run *run,
                         const struct ls_layer_place *place, const struct ls_layer_exchanges *n)
{
    const int64_t gathers = times_in_step(n, LS_EXCHANGE_GATHER);
    const int64_t sums = times_in_step(n, LS_EXCHANGE_SUM);
    const int64_t row = times(run->b, model->h), t = run->t;
    const int64_t block = times(times(share(run->rows, t), row), ls_dtype_size(run->type));

    if (t == 1) return 0;
    if (run->sp) return times(gathers + sums, times(t - 1, block));
    return times(
        sums, ls_batch_all_reduce_bytes((int)t, place->tensor, times(run->rows, row), run->type));
}

/* ---- gradients of parameters */

/* n numbers of f32 of k and v, between the tensor-parallel ranks that have the same heads. */
static int64_t shared_bytes(const struct ls_model_shape *model, const struct ls_model_run *run,
                            const struct ls_layer_place *place, int64_t n)
{
    const int ranks = (int)(run->t > model->a_kv ? run->t / model->a_kv : 1);

    return ls_batch_all_reduce_bytes(ranks, place->tensor % ranks, n, LS_F32);
}

/* Of each sum that a rank brings goes to each other rank its share of the rows, and then of what
 * they add up to. Where k and v are shared, they are summed apart from q. */
static int64_t weight_bytes(const struct ls_model_shape *model, const struct ls_model_run *run,
                            const struct ls_layer_place *place)
{
    const int64_t h = model->h, t = run->t, q = times(model->a / t, model->d);
    const int64_t qkv = qkv_width(model, t), apart = t > model->a_kv ? qkv - q : 0;
    const int64_t linears[][2] = {
        {qkv - apart, h}, {apart, h}, {h, q}, {mlp_width(model, t), h}, {h, model->f / t}};
    int64_t numbers = 0;

    for (int i = 0; i < 5; i++)
        numbers = plus(numbers, times(share(linears[i][0], run->c), linears[i][1]));
    return plus(times(times(run->c - 1, place->weight_sums + 1), times(numbers, sizeof(float))),
                shared_bytes(model, run, place, times(apart, h)));
}

/* Vectors [h] of rows outside: of norms, and biases behind row-parallel linears. */
static int64_t outer_vectors(const struct ls_model_shape *model)
{
    const int64_t of_norm = model->norm == LS_NORM_LAYER ? 2 : 1;

    return (model->parallel ? 1 : 2) * of_norm + (model->bias ? 2 : 0);
}

/* Each rank's nodes go to all that share the rows; and those of biases behind column-parallel
 * linears. */
static int64_t vector_bytes(const struct ls_model_shape *model, const struct ls_model_run *run,
                            const struct ls_layer_place *place)
{
    const int64_t outer_ranks = run->sp ? times(run->t, run->c) : run->c;
    const int64_t outer = times(times(outer_vectors(model), model->h), place->outer_nodes);
    const int64_t inner =
        times(plus(qkv_width(model, run->t), mlp_width(model, run->t)), place->inner_nodes);
    const int64_t n = times(outer_ranks - 1, outer);

    if (!model->bias) return times(n, sizeof(float));
    return plus(times(plus(n, times(run->c - 1, inner)), sizeof(float)),
                shared_bytes(model, run, place, 2 * model->d));
}

/* ---- the core */

/* Blocks are as long as the longest: gathered forward, as often as that is done, and backward,
 * where parts of gradients go back as f32. */
static int64_t key_bytes(const struct ls_model_shape *model, const struct ls_model_run *run,
                         const struct ls_layer_place *place, const struct ls_layer_exchanges *n)
{
    const int64_t gathers = times_in_step(n, LS_EXCHANGE_KEYS);
    const int64_t gathered =
        times(times(gathers, 2 * kv_width(model, run->t)), ls_dtype_size(run->type));
    const int64_t sums = times(times(2 * place->key_sums, model->d), sizeof(float));

    if (run->core == LS_CORE_FUSED || run->c == 1) return 0;
    return times(run->c - 1, times(times(run->b, most_rows(run)), plus(gathered, sums)));
}

static int attentions(const struct ls_model_run *run, const struct ls_layer_exchanges *n)
{
    if (run->core == LS_CORE_MATERIALIZED) return 0;
    return n->forward[LS_EXCHANGE_KEYS] + n->again[LS_EXCHANGE_KEYS];
}

struct ls_layer_traffic ls_layer_traffic_of(const struct ls_model_shape *model,
                                            const struct ls_model_run *run,
                                            const struct ls_layer_place *place)
{
    const struct ls_layer_exchanges n = ls_layer_exchanges_of(model, run);

    return (struct ls_layer_traffic){
        .rows = row_bytes(model, run, place, &n),
        .weights = weight_bytes(model, run, place),
        .vectors = vector_bytes(model, run, place),
        .keys = key_bytes(model, run, place, &n),
        .attentions = attentions(run, &n),
    };
}
