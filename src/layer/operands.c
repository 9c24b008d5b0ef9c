#include "layer/operands.h"

#include <stddef.h>

#include "attention/operands.h"
#include "tensor/contiguous.h"

/* ---- parameters: a row for each */

typedef enum { WIDTH, QKV_BIAS, UP_BIAS, QKV, OUT, UP, DOWN } parameter_shape;
typedef enum { ALWAYS, OF_LINEARS, OF_LAYER_NORMS } parameter_presence;

static const struct parameter {
    const char *name, *gradient;
    size_t offset; /* of its pointer */
    parameter_shape shape;
    parameter_presence presence;
} parameters[] = {
#define PARAMETER(name, shape, presence)                                                           \
    {                                                                                              \
#name, "gradient of " #name, offsetof(struct ls_layer_parameters, name), shape, presence   \
    }
    PARAMETER(norm1, WIDTH, ALWAYS), PARAMETER(norm1_bias, WIDTH, OF_LAYER_NORMS),
    PARAMETER(qkv, QKV, ALWAYS),     PARAMETER(qkv_bias, QKV_BIAS, OF_LINEARS),
    PARAMETER(out, OUT, ALWAYS),     PARAMETER(out_bias, WIDTH, OF_LINEARS),
    PARAMETER(norm2, WIDTH, ALWAYS), PARAMETER(norm2_bias, WIDTH, OF_LAYER_NORMS),
    PARAMETER(up, UP, ALWAYS),       PARAMETER(up_bias, UP_BIAS, OF_LINEARS),
    PARAMETER(down, DOWN, ALWAYS),   PARAMETER(down_bias, WIDTH, OF_LINEARS),
#undef PARAMETER
};

enum { PARAMETERS = sizeof parameters / sizeof *parameters };

static bool is_there(const struct ls_layer_plan *plan, const struct parameter *p)
{
    if (p->presence == OF_LINEARS) return !plan->options.no_bias;
    return p->presence == ALWAYS || plan->options.norm == LS_NORM_LAYER;
}

/* dim [2]; returns how many there are. */
static int shape_of(int64_t *dim, const struct ls_layer_plan *plan, const struct parameter *p)
{
    const int64_t e = plan->shape.e, o = plan->heads * plan->shape.d;
    const int64_t qkv = ls_layer_qkv_width(plan), up = ls_layer_up_width(plan);
    const int64_t shapes[][2] = {
        [WIDTH] = {e},  [QKV_BIAS] = {qkv}, [UP_BIAS] = {up},           [QKV] = {qkv, e},
        [OUT] = {e, o}, [UP] = {up, e},     [DOWN] = {e, plan->columns}};

    dim[0] = shapes[p->shape][0];
    dim[1] = shapes[p->shape][1];
    return p->shape < QKV ? 1 : 2;
}

static const struct ls_tensor *tensor_at(const struct ls_layer_parameters *all,
                                         const struct parameter *p)
{
    return *(struct ls_tensor *const *)((const char *)all + p->offset);
}

/* Operands of all parameters, dim [PARAMETERS][2] their shapes; returns how many there are. */
static int list_parameters(struct ls_operand *out, int64_t (*dim)[2],
                           const struct ls_layer_plan *plan, const struct ls_layer_parameters *all,
                           ls_dtype type, bool gradients)
{
    int count = 0;

    for (int i = 0; i < PARAMETERS; i++) {
        const struct parameter *p = &parameters[i];
        const int ndim = shape_of(dim[i], plan, p);

        if (is_there(plan, p))
            out[count++] = (struct ls_operand){
                gradients ? p->gradient : p->name, tensor_at(all, p), type, ndim, dim[i], false};
    }
    return count;
}

static ls_status check_surplus(const struct ls_layer_plan *plan,
                               const struct ls_layer_parameters *all)
{
    for (int i = 0; i < PARAMETERS; i++)
        if (!is_there(plan, &parameters[i]) && tensor_at(all, &parameters[i]))
            return ls_fail(LS_EVALUE, "%s is given, but the layer has none", parameters[i].name);
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
    int64_t dim[2 * PARAMETERS][2];
    struct ls_operand list[2 * PARAMETERS + 2] = {
        {out_name, out, plan->shape.type, 3, rows, false}};
    int count = 1;

    if (gradients) count += list_parameters(list + count, dim, plan, gradients, LS_F32, true);
    const int outputs = count;
    list[count++] = (struct ls_operand){in_name, in, plan->shape.type, 3, rows, false};
    count += list_parameters(list + count, dim + PARAMETERS, plan, all, plan->shape.type, false);
    LS_TRY(check_surplus(plan, all));
    if (gradients) LS_TRY(check_surplus(plan, gradients));
    LS_TRY(ls_operands_check(list, count, outputs, plan->device));
    for (int i = 0; i < count; i++) LS_TRY(check_contiguous(&list[i]));
    return LS_OK;
}
