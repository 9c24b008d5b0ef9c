/* What forward and backward of a layer have in common. */
#include "layer/pass.h"

#include "attention/problem.h"

struct ls_tensor ls_layer_flat(const struct ls_tensor *t)
{
    const int64_t dim[] = {t->dim[0] * t->dim[1], t->dim[2]};

    return ls_tensor_view(t->data, t->type, 2, dim);
}

struct ls_tensor ls_layer_piece(const struct ls_tensor *t, const struct ls_exchange_piece *piece)
{
    const struct ls_tensor flat = ls_layer_flat(t);

    return ls_range_of(&flat, 0, piece->first, piece->count);
}

struct ls_layer_statistics ls_layer_statistics_of(const struct ls_layer_state *state,
                                                  ls_kept_kind kind)
{
    const struct ls_tensor numbers = ls_layer_kept(state, kind);
    const int64_t rows = numbers.dim[1] * numbers.dim[2];
    float *first = numbers.data;

    if (numbers.dim[0] == 1) return (struct ls_layer_statistics){.mean = NULL, .rstd = first};
    return (struct ls_layer_statistics){.mean = first, .rstd = first + rows};
}

/* ---- heads */

/* Heads [first, first + heads) of what is `width` wide. */
static struct ls_tensor heads_in(const struct ls_layer_plan *plan, const struct ls_tensor *t,
                                 int64_t first, int64_t heads)
{
    const int64_t d = plan->shape.d, dim[] = {t->dim[0], t->dim[1], heads, d};
    struct ls_tensor view =
        ls_tensor_view((char *)t->data + first * d * ls_dtype_size(t->type), t->type, 4, dim);

    view.stride[0] = t->stride[0];
    view.stride[1] = t->stride[1];
    return view;
}

struct ls_layer_heads ls_layer_heads_of(const struct ls_layer_plan *plan,
                                        const struct ls_tensor *qkv)
{
    const int64_t h = plan->heads, kv = plan->kv_heads;

    return (struct ls_layer_heads){.q = heads_in(plan, qkv, 0, h),
                                   .k = heads_in(plan, qkv, h, kv),
                                   .v = heads_in(plan, qkv, h + kv, kv)};
}

struct ls_tensor ls_layer_output_heads(const struct ls_layer_plan *plan,
                                       const struct ls_tensor *all)
{
    return heads_in(plan, all, 0, plan->heads);
}

void ls_layer_rotate(struct ls_layer_plan *plan, const struct ls_tensor *qkv, bool back)
{
    struct ls_tensor turned = heads_in(plan, qkv, 0, plan->heads + plan->kv_heads);

    if (plan->rotary.dims > 0)
        ls_rotate(&plan->device->queue, &turned, &turned, &plan->rotary, &plan->inner_runs, back);
}

/* ---- dropout */

static struct ls_dropout dropout_of(const struct ls_layer_plan *plan,
                                    const struct ls_layer_state *state, ls_kept_kind mask)
{
    return (struct ls_dropout){.rate = plan->options.dropout,
                               .seed = state->seed,
                               .stream =
                                   mask == LS_KEPT_MASK1 ? LS_BEHIND_ATTENTION : LS_BEHIND_MLP};
}

void ls_layer_draw_mask(struct ls_layer_plan *plan, const struct ls_layer_state *state,
                        ls_kept_kind mask)
{
    const struct ls_dropout dropout = dropout_of(plan, state, mask);
    const int64_t dim[] = {plan->shape.b, plan->outer_rows, plan->shape.e};

    if (state->kept[mask])
        ls_dropout_mask(&plan->device->queue, state->kept[mask], dim, &dropout, &plan->outer_runs);
}

void ls_layer_dropout(struct ls_tensor *out, struct ls_layer_plan *plan,
                      const struct ls_layer_state *state, const struct ls_tensor *residual,
                      const struct ls_tensor *x, ls_kept_kind mask)
{
    const struct ls_dropout dropout = dropout_of(plan, state, mask);

    ls_dropout(&plan->device->queue, &(struct ls_dropout_call){.out = out,
                                                               .residual = residual,
                                                               .x = x,
                                                               .mask = state->kept[mask],
                                                               .dropout = &dropout,
                                                               .runs = &plan->outer_runs});
}
