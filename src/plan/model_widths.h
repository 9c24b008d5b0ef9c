/* Widths that the ranks of a tensor-parallel group have. */
#ifndef LS_PLAN_MODEL_WIDTHS_H
#define LS_PLAN_MODEL_WIDTHS_H

#include "plan/model.h"
#include "plan/saturate.h"

/* Width of q, k and v of a rank; where there are more ranks than kv heads, these have copies. */
static inline int64_t qkv_width(const struct ls_model_shape *model, int64_t t)
{
    return times(model->a / t + 2 * share(model->a_kv, t), model->d);
}

/* Width of what the MLP's first linear gives. */
static inline int64_t mlp_width(const struct ls_model_shape *model, int64_t t)
{
    return times(model->activation == LS_ACTIVATION_SWIGLU ? 2 : 1, model->f / t);
}

#endif
