/* The tensors that a layer keeps between forward and backward. */
#include <stdlib.h>

#include "layer/plan.h"
#include "plan/pieces.h"
#include "tensor/dtype.h"

/* ---- which there are */

static struct ls_tensor rows_of(const struct ls_layer_plan *plan, int64_t rows, int64_t width)
{
    const int64_t dim[] = {plan->shape.b, rows, width};

    return ls_tensor_view(NULL, plan->shape.type, 3, dim);
}

/* mean, but for RMSNorm, and 1 / deviation: [1 or 2, b, rows]. */
static struct ls_tensor statistics(const struct ls_layer_plan *plan)
{
    const int64_t dim[] = {plan->options.norm == LS_NORM_LAYER ? 2 : 1, plan->shape.b,
                           plan->outer_rows};

    return ls_tensor_view(NULL, LS_F32, 3, dim);
}

static struct ls_tensor lse(const struct ls_layer_plan *plan)
{
    const int64_t dim[] = {plan->shape.b, plan->heads, plan->rows};

    return ls_tensor_view(NULL, LS_F32, 3, dim);
}

static struct ls_tensor probabilities(const struct ls_layer_plan *plan)
{
    const int64_t dim[] = {plan->shape.b, plan->heads, plan->rows, plan->shape.s};

    return ls_tensor_view(NULL, plan->shape.type, 4, dim);
}

int64_t ls_layer_kv_width(const struct ls_layer_plan *plan)
{
    return 2 * plan->kv_heads * plan->shape.d;
}

int64_t ls_layer_qkv_width(const struct ls_layer_plan *plan)
{
    return plan->heads * plan->shape.d + ls_layer_kv_width(plan);
}

int64_t ls_layer_up_width(const struct ls_layer_plan *plan)
{
    return (plan->options.activation == LS_ACTIVATION_SWIGLU ? 2 : 1) * plan->columns;
}

struct ls_tensor ls_layer_tensor(const struct ls_layer_plan *plan, ls_kept_kind kind)
{
    const struct ls_layer_shape *s = &plan->shape;
    const bool parallel = plan->options.parallel, post_norm = plan->options.post_norm;
    const bool fused = plan->options.core == LS_CORE_FUSED;
    const struct ls_tensor outside = rows_of(plan, plan->outer_rows, s->e), none = {0};

    switch (kind) {
    case LS_KEPT_INPUT:
    case LS_KEPT_NORM1:
        return outside;
    case LS_KEPT_SUM1:
        return parallel ? none : outside;
    case LS_KEPT_NORM2: /* behind the MLP it is the next layer's input */
        return parallel || post_norm ? none : outside;
    case LS_KEPT_SUM2:
        return post_norm ? outside : none;
    case LS_KEPT_STATISTICS1:
        return statistics(plan);
    case LS_KEPT_STATISTICS2:
        return parallel ? none : statistics(plan);
    case LS_KEPT_QKV:
        return rows_of(plan, plan->rows, ls_layer_qkv_width(plan));
    case LS_KEPT_SOFTMAX:
        return fused ? none : probabilities(plan);
    case LS_KEPT_DROPPED:
        return fused || plan->options.dropout == 0 ? none : probabilities(plan);
    case LS_KEPT_LSE:
        return fused ? lse(plan) : none;
    case LS_KEPT_ATTENTION:
        return rows_of(plan, plan->rows, plan->heads * s->d);
    case LS_KEPT_UP:
        return rows_of(plan, plan->rows, ls_layer_up_width(plan));
    case LS_KEPT_ACTIVATION:
        return rows_of(plan, plan->rows, plan->columns);
    default:
        return none;
    }
}

/* Behind a block. */
static bool is_mask(ls_kept_kind kind)
{
    return kind == LS_KEPT_MASK1 || kind == LS_KEPT_MASK2;
}

static bool is_of_bytes(ls_kept_kind kind)
{
    return is_mask(kind) || kind == LS_KEPT_SOFTMAX_MASK;
}

/* What has as many elements as there are of a kind. */
static struct ls_tensor elements_of(const struct ls_layer_plan *plan, ls_kept_kind kind)
{
    const struct ls_tensor none = {0};

    if (!is_of_bytes(kind)) return ls_layer_tensor(plan, kind);
    if (plan->options.dropout == 0) return none;
    return ls_layer_tensor(plan, is_mask(kind) ? LS_KEPT_INPUT : LS_KEPT_SOFTMAX);
}

static size_t element_bytes(const struct ls_layer_plan *plan, ls_kept_kind kind)
{
    return is_of_bytes(kind) ? 1 : (size_t)ls_dtype_size(ls_layer_tensor(plan, kind).type);
}

size_t ls_layer_kind_bytes(const struct ls_layer_plan *plan, ls_kept_kind kind)
{
    const struct ls_tensor t = elements_of(plan, kind);
    size_t bytes = element_bytes(plan, kind);

    for (int i = 0; i < t.ndim; i++) bytes *= (size_t)t.dim[i];
    return t.ndim > 0 ? bytes : 0;
}

/* Also without rows: other ranks wait for this one. */
static bool is_made_again(const struct ls_layer_plan *plan, unsigned pieces, ls_kept_kind kind)
{
    return ls_kept_is_made_again(kind, pieces) && elements_of(plan, kind).ndim > 0;
}

bool ls_layer_makes_again(const struct ls_layer_state *state, ls_kept_kind kind)
{
    return is_made_again(state->plan, state->pieces, kind);
}

/* ---- where they are */

static bool is_kept(const struct ls_layer_state *state, ls_kept_kind kind)
{
    return !ls_kept_is_discarded(kind, state->pieces) && ls_layer_kind_bytes(state->plan, kind) > 0;
}

struct ls_tensor ls_layer_kept(const struct ls_layer_state *state, ls_kept_kind kind)
{
    struct ls_tensor t = ls_layer_tensor(state->plan, kind);

    t.data = state->kept[kind];
    if (state->plan->again && ls_layer_makes_again(state, kind))
        t.data = (char *)state->plan->again + state->again[kind];
    return t;
}

/* What is made again lies behind each other, wide elements first, so that each is at a multiple of
 * its size and nothing is in between. Returns the bytes. */
static size_t place_again(size_t at[LS_KEPT_KINDS], const struct ls_layer_plan *plan,
                          unsigned pieces)
{
    size_t bytes = 0;

    for (size_t size = sizeof(float); size > 0; size /= 2)
        for (int kind = 0; kind < LS_KEPT_KINDS; kind++) {
            if (!is_made_again(plan, pieces, kind) || element_bytes(plan, kind) != size) continue;
            at[kind] = bytes;
            bytes += ls_layer_kind_bytes(plan, kind);
        }
    return bytes;
}

ls_status ls_layer_reserve(struct ls_layer_plan *plan, unsigned pieces)
{
    size_t unused[LS_KEPT_KINDS];
    const size_t bytes = place_again(unused, plan, pieces);
    void *more;

    if (bytes <= plan->again_bytes) return LS_OK;
    LS_TRY(ls_device_alloc(&more, plan->device, LS_TAG_RECOMPUTE, bytes));
    ls_device_free(plan->device, plan->again);
    plan->again = more;
    plan->again_bytes = bytes;
    return LS_OK;
}

/* ---- states */

static ls_status create_kept(struct ls_layer_state *state)
{
    struct ls_layer_plan *plan = state->plan;

    LS_TRY(ls_layer_reserve(plan, state->pieces));
    place_again(state->again, plan, state->pieces);
    for (int kind = 0; kind < LS_KEPT_KINDS; kind++)
        if (is_kept(state, kind))
            LS_TRY(ls_device_alloc(&state->kept[kind], plan->device, LS_TAG_ACTIVATION,
                                   ls_layer_kind_bytes(plan, kind)));
    return LS_OK;
}

ls_status ls_layer_state_create(struct ls_layer_state **out, struct ls_layer_plan *plan,
                                const char *recompute)
{
    unsigned pieces = plan->pieces;
    struct ls_layer_state *state;
    ls_status status;

    if (recompute) LS_TRY(ls_pieces_parse(&pieces, recompute));
    state = calloc(1, sizeof *state);
    if (!state) return ls_fail(LS_ENOMEM, "layer: out of memory");
    state->plan = plan;
    state->pieces = pieces;
    LS_TRY_GOTO(status, create_kept(state), destroy);
    *out = state;
    return LS_OK;
destroy:
    ls_layer_state_destroy(state);
    return status;
}

void ls_layer_state_destroy(struct ls_layer_state *state)
{
    if (!state) return;
    for (int kind = 0; kind < LS_KEPT_KINDS; kind++)
        ls_device_free(state->plan->device, state->kept[kind]);
    free(state);
}
