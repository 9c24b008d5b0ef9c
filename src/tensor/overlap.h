/* Whether tensors share memory, exact for strides as people use them: views of one packed buffer
 * whose bytes are interleaved do not. Tensors have their last dimension contiguous and lie within
 * 2^58 bytes; an empty one shares nothing. */
#ifndef LS_TENSOR_OVERLAP_H
#define LS_TENSOR_OVERLAP_H

#include <stdbool.h>

#include "longspan/tensor.h"

/* Whether a byte belongs to both. False, too, where strides that fit no nesting leave too many
 * places to try. */
bool ls_tensors_overlap(const struct ls_tensor *a, const struct ls_tensor *b);

/* Whether a byte belongs to two rows of t. False likewise. */
bool ls_tensor_rows_overlap(const struct ls_tensor *t);

#endif
