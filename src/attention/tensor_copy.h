#ifndef LS_ATTENTION_TENSOR_COPY_H
#define LS_ATTENTION_TENSOR_COPY_H

#include "longspan/tensor.h"

/* Copies tensors with any strides of the first three dimensions; same shape and type. */
void ls_tensor_copy(struct ls_tensor *to, const struct ls_tensor *from);

#endif
