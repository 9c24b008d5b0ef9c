/* A tensor is a view: it names memory that somebody else owns. */
#ifndef LONGSPAN_TENSOR_H
#define LONGSPAN_TENSOR_H

#include <stdint.h>

#include "longspan/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* LS_E4M3: 8 bits, 4 of exponent and 3 of mantissa, NaN but no infinity, at most 448.
 * Source: Micikevicius et al. 2022. */
typedef enum { LS_F32, LS_BF16, LS_F16, LS_F64, LS_I8, LS_E4M3 } ls_dtype;

#define LS_MAX_DIMS 4
#define LS_FILE_DIMS 5 /* of a tensor in a file, where q, k and v may lie packed */

/* Strides are in elements. Attention tensors are [batch, sequence, heads, head_dim] whatever
 * their order in memory (a [b, h, s, d] array is viewed with its strides swapped), and stride[3]
 * must be 1; lse is [batch, heads, sequence], f32. */
struct ls_tensor {
    ls_dtype type;
    int ndim;
    int64_t dim[LS_MAX_DIMS];
    int64_t stride[LS_MAX_DIMS];
    void *data;
};

/* View of contiguous memory, last dimension fastest. */
LS_API struct ls_tensor ls_tensor_view(void *data, ls_dtype type, int ndim, const int64_t *dim);

/* Bytes of one element, and the type's name ("bf16"). */
LS_API int ls_dtype_size(ls_dtype type);
LS_API const char *ls_dtype_name(ls_dtype type);

#ifdef __cplusplus
}
#endif
#endif
