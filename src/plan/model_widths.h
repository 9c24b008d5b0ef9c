/* Rows and widths that a rank has. */
#ifndef LS_PLAN_MODEL_WIDTHS_H
#define LS_PLAN_MODEL_WIDTHS_H

#include "plan/attention_size.h"
#include "plan/model.h"
#include "plan/saturate.h"

/* ---- rows of this rank, or of the one that has most: the first */

/* Of a sequence, of the rank that has most. */
static inline int64_t most_rows(const struct ls_model_run *run)
{
    struct ls_layout layout = {.kind = run->layout, .s = run->s, .p = (int)run->c};

    if (layout.kind == LS_LAYOUT_AUTO) layout.kind = ls_layout_for_rings(run->causal, layout.p);
    return ls_layout_most_rows(&layout);
}

/* Of a sequence, that attention and MLP work on. */
static inline int64_t part_rows(const struct ls_model_run *run)
{
    return run->has_rows ? run->rows : most_rows(run);
}

/* Of a batch. */
static inline int64_t inner_rows(const struct ls_model_run *run)
{
    return times(run->b, part_rows(run));
}

/* The same outside of attention and MLP. */
static inline int64_t outer_rows(const struct ls_model_run *run)
{
    const int64_t most = share(part_rows(run), run->sp ? run->t : 1);

    return times(run->b, run->has_rows ? run->outer_rows : most);
}

/* ---- widths */

/* Of q, and of k or v; where there are more ranks than kv heads, these have copies. */
static inline int64_t q_width(const struct ls_model_shape *model, int64_t t)
{
    return times(model->a / t, model->d);
}

static inline int64_t kv_width(const struct ls_model_shape *model, int64_t t)
{
    return times(share(model->a_kv, t), model->d);
}

static inline int64_t qkv_width(const struct ls_model_shape *model, int64_t t)
{
    return plus(q_width(model, t), times(2, kv_width(model, t)));
}

/* Width of what the MLP's first linear gives. */
static inline int64_t mlp_width(const struct ls_model_shape *model, int64_t t)
{
    return times(model->activation == LS_ACTIVATION_SWIGLU ? 2 : 1, model->f / t);
}

#endif
