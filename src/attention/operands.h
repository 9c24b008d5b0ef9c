/* The tensors of a call, checked before anything is computed. */
#ifndef LS_ATTENTION_OPERANDS_H
#define LS_ATTENTION_OPERANDS_H

#include <stdbool.h>

#include "device/device.h"
#include "longspan/tensor.h"

struct ls_operand {
    const char *name;
    const struct ls_tensor *tensor;
    ls_dtype type;
    int ndim;
    const int64_t *dim; /* on this rank */
    bool optional;      /* may be NULL */
};

/* Whether they are what the plan wants, in memory of its device (NULL: of the host), and no memory
 * of the first `outputs`, which are written, is named twice. Errors: LS_EVALUE, LS_ETYPE,
 * LS_ESHAPE, with names. */
ls_status ls_operands_check(const struct ls_operand *list, int count, int outputs,
                            const struct ls_device *device);

#endif
