#include "layer/operands.h"

#include "attention/operands.h"
#include "layer/parameters.h"
#include "tensor/contiguous.h"

/* ---- parameters */

/* Operands of all parameters, dim [LS_LAYER_PARAMETERS][2] their shapes; returns how many there
 * are. */
static int list_parameters(struct ls_operand *out, int64_t (*dim)[2],
                           const struct ls_layer_plan *plan, struct ls_layer_parameters all,
                           ls_dtype type, bool gradients)
{
    const struct ls_layer_options *o = &plan->options;
    int count = 0;

    for (int i = 0; i < LS_LAYER_PARAMETERS; i++) {
        const struct ls_parameter_part part =
            ls_parameter_part(i, &plan->shape, o, o->tp, plan->grid.tensor);
        const int ndim = ls_parameter_share(dim[i], &part);

        if (!ls_parameter_exists(i, o)) continue;
        out[count++] =
            (struct ls_operand){gradients ? ls_parameter_gradient(i) : ls_parameter_name(i),
                                *ls_parameter_in(&all, i),
                                type,
                                ndim,
                                dim[i],
                                false};
    }
    return count;
}

static ls_status check_surplus(const struct ls_layer_plan *plan, struct ls_layer_parameters all)
{
    for (int i = 0; i < LS_LAYER_PARAMETERS; i++)
        if (!ls_parameter_exists(i, &plan->options) && *ls_parameter_in(&all, i))
            return ls_fail(LS_EVALUE, "%s is given, but the layer has none", ls_parameter_name(i));
    return LS_OK;
}

/* ---- a call */

static ls_status check_contiguous(const struct ls_operand *o)
{
    int64_t stride;
    const int gap = ls_tensor_gap(&stride, o->tensor);

    if (gap < 0) return LS_OK;
    return ls_fail(LS_ESHAPE, "%s: dimension %d has stride %lld, must be contiguous (%lld)",
                   o->name, gap, (long long)o->tensor->stride[gap], (long long)stride);
}

ls_status ls_layer_check_call(const struct ls_layer_plan *plan, const struct ls_tensor *out,
                              const char *out_name, const struct ls_tensor *in, const char *in_name,
                              const struct ls_layer_parameters *all,
                              const struct ls_layer_parameters *gradients)
{
    const int64_t rows[] = {plan->shape.b, plan->outer_rows, plan->shape.e};
    int64_t dim[2][LS_LAYER_PARAMETERS][2];
    struct ls_operand list[2 * LS_LAYER_PARAMETERS + 2] = {
        {out_name, out, plan->shape.type, 3, rows, false}};
    int count = 1;

    if (gradients) count += list_parameters(list + count, dim[0], plan, *gradients, LS_F32, true);
    const int outputs = count;
    list[count++] = (struct ls_operand){in_name, in, plan->shape.type, 3, rows, false};
    count += list_parameters(list + count, dim[1], plan, *all, plan->shape.type, false);
    LS_TRY(check_surplus(plan, *all));
    if (gradients) LS_TRY(check_surplus(plan, *gradients));
    LS_TRY(ls_operands_check(list, count, outputs, plan->device));
    for (int i = 0; i < count; i++) LS_TRY(check_contiguous(&list[i]));
    return LS_OK;
}
