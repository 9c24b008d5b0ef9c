#include "plan/layer_traffic.h"

#include "comm/transport.h"
#include "plan/memory.h"
#include "plan/model_widths.h"
#include "plan/pieces.h"
#include "tensor/dtype.h"

/* ---- rows, between tensor-parallel ranks */

/* Gathers of what is outside, and sums of what each rank has a part of. */
struct exchanges {
    int gathers, sums;
};

/* Forward both blocks gather once and sum once. Backward both gather the gradient, sum it again,
 * and gather the input of their first linear. In parallel that input and its gradient are one. */
static struct exchanges plain_exchanges(bool parallel)
{
    if (parallel) return (struct exchanges){.gathers = 1 + 3, .sums = 2 + 1};
    return (struct exchanges){.gathers = 2 + 4, .sums = 2 + 2};
}

/* Those that stand before what is computed again. */
static struct exchanges again_exchanges(const struct ls_kept *kept, int n, unsigned pieces,
                                        bool parallel)
{
    struct exchanges again = {0, 0};

    for (int i = 0; i < n; i++) {
        const ls_kept_kind kind = kept[i].kind;

        if (!ls_kept_is_discarded(kind, pieces)) continue;
        again.gathers += kind == LS_KEPT_QKV || kind == LS_KEPT_UP;
        again.sums += kind == LS_KEPT_SUM1 || kind == LS_KEPT_SUM2;
    }
    if (parallel && again.gathers > 1) again.gathers = 1;
    return again;
}

static int64_t row_bytes(const struct ls_model_shape *model, const struct ls_model_run *run,
                         const struct ls_layer_place *place, struct exchanges n)
{
    const int64_t row = times(run->b, model->h), t = run->t;
    const int64_t block = times(times(share(run->rows, t), row), ls_dtype_size(run->type));

    if (t == 1) return 0;
    if (run->sp) return times(n.gathers + n.sums, times(t - 1, block));
    return times(
        n.sums, ls_batch_all_reduce_bytes((int)t, place->tensor, times(run->rows, row), run->type));
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
static int64_t key_bytes(const struct ls_model_shape *model, const struct ls_model_run *run)
{
    const int64_t gathers = 2 + ls_kept_is_discarded(LS_KEPT_SOFTMAX, run->pieces);
    const int64_t block = times(times(run->b, most_rows(run)), 2 * kv_width(model, run->t));

    if (run->core == LS_CORE_FUSED || run->c == 1) return 0;
    return times(run->c - 1,
                 times(block, gathers * ls_dtype_size(run->type) + (int64_t)sizeof(float)));
}

static int attentions(const struct ls_model_run *run)
{
    if (run->core == LS_CORE_MATERIALIZED) return 0;
    return ls_kept_is_discarded(LS_KEPT_ATTENTION, run->pieces) ? 2 : 1;
}

struct ls_layer_traffic ls_layer_traffic_of(const struct ls_model_shape *model,
                                            const struct ls_model_run *run,
                                            const struct ls_layer_place *place)
{
    struct ls_kept kept[LS_KEPT_KINDS];
    const int n = ls_layer_keeps(kept, model, run);
    const struct exchanges plain = plain_exchanges(model->parallel);
    const struct exchanges again = again_exchanges(kept, n, run->pieces, model->parallel);

    return (struct ls_layer_traffic){
        .rows =
            row_bytes(model, run, place,
                      (struct exchanges){plain.gathers + again.gathers, plain.sums + again.sums}),
        .weights = weight_bytes(model, run, place),
        .vectors = vector_bytes(model, run, place),
        .keys = key_bytes(model, run),
        .attentions = attentions(run),
    };
}
