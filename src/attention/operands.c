#include "attention/operands.h"

#include <stdio.h>

#include "base/status.h"
#include "tensor/overlap.h"

/* Elements from the first to the last of a dimension: more bytes than addresses can tell. */
#define FARTHEST ((int64_t)1 << 52)

static ls_status check_strides(const struct ls_operand *o)
{
    const struct ls_tensor *t = o->tensor;
    const int last = o->ndim - 1;

    if (t->dim[last] > 1 && t->stride[last] != 1)
        return ls_fail(LS_ESHAPE, "%s: the last dimension has stride %ld, must be contiguous",
                       o->name, (long)t->stride[last]);
    for (int i = 0; i < last; i++) {
        const int64_t farthest = t->dim[i] > 1 ? FARTHEST / t->dim[i] : INT64_MAX;

        if (t->stride[i] > farthest || t->stride[i] < -farthest)
            return ls_fail(LS_ESHAPE, "%s: dimension %d of %ld has stride %ld, beyond any memory",
                           o->name, i, (long)t->dim[i], (long)t->stride[i]);
    }
    return LS_OK;
}

static ls_status check_operand(const struct ls_operand *o)
{
    const struct ls_tensor *t = o->tensor;
    bool empty = false;

    if (!t) return ls_fail(LS_EVALUE, "%s is missing: the tensor is NULL", o->name);
    if (t->type != o->type)
        return ls_fail(LS_ETYPE, "%s is %s, the plan is for %s", o->name, ls_dtype_name(t->type),
                       ls_dtype_name(o->type));
    if (t->ndim != o->ndim)
        return ls_fail(LS_ESHAPE, "%s has %d dimensions, must have %d", o->name, t->ndim, o->ndim);
    for (int i = 0; i < o->ndim; i++) {
        if (t->dim[i] != o->dim[i])
            return ls_fail(LS_ESHAPE, "%s: dimension %d is %ld, must be %ld on this rank", o->name,
                           i, (long)t->dim[i], (long)o->dim[i]);
        empty |= t->dim[i] == 0;
    }
    LS_TRY(check_strides(o));
    if (!t->data && !empty)
        return ls_fail(LS_EVALUE, "%s has no memory: its data is NULL, only an empty one's may be",
                       o->name);
    return LS_OK;
}

static ls_status fail_rows(const struct ls_operand *o)
{
    char strides[LS_MAX_DIMS * 24] = "";
    size_t used = 0;

    for (int i = 0; i < o->ndim; i++)
        used += (size_t)snprintf(strides + used, sizeof strides - used, "%s%ld x %ld",
                                 i > 0 ? ", " : "", (long)o->tensor->dim[i],
                                 (long)o->tensor->stride[i]);
    return ls_fail(
        LS_EVALUE,
        "rows of %s overlap in memory (dimension x stride: %s): each row that is written "
        "needs its own",
        o->name, strides);
}

static ls_status check_apart(const struct ls_operand *output, const struct ls_operand *others,
                             int count)
{
    if (!output->tensor) return LS_OK;
    if (ls_tensor_rows_overlap(output->tensor)) return fail_rows(output);
    for (int i = 0; i < count; i++)
        if (others[i].tensor && ls_tensors_overlap(output->tensor, others[i].tensor))
            return ls_fail(LS_EVALUE, "%s and %s overlap in memory: what is written needs its own",
                           output->name, others[i].name);
    return LS_OK;
}

static ls_status check_place(const struct ls_operand *o, const struct ls_device *device)
{
    if (!device || !o->tensor->data || ls_device_holds(device, o->tensor->data)) return LS_OK;
    return ls_fail(LS_EVALUE, "%s is not in memory of the plan's device, %s", o->name,
                   device->ops->name);
}

ls_status ls_operands_check(const struct ls_operand *list, int count, int outputs,
                            const struct ls_device *device)
{
    for (int i = 0; i < count; i++) {
        if (!list[i].tensor && list[i].optional) continue;
        LS_TRY(check_operand(&list[i]));
        LS_TRY(check_place(&list[i], device));
    }
    for (int i = 0; i < outputs; i++) LS_TRY(check_apart(&list[i], list + i + 1, count - i - 1));
    return LS_OK;
}
