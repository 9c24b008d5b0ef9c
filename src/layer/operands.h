/* The tensors of a layer's call, checked before anything is computed. */
#ifndef LS_LAYER_OPERANDS_H
#define LS_LAYER_OPERANDS_H

#include "layer/plan.h"

/* out and in: [b, rows, e] of the plan's type, contiguous; gradients NULL: there are none. Errors:
 * LS_EVALUE, LS_ETYPE, LS_ESHAPE, with names. Not collective. */
ls_status ls_layer_check_call(const struct ls_layer_plan *plan, const struct ls_tensor *out,
                              const char *out_name, const struct ls_tensor *in, const char *in_name,
                              const struct ls_layer_parameters *parameters,
                              const struct ls_layer_parameters *gradients);

#endif
