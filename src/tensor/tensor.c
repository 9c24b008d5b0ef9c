#include "longspan/tensor.h"

#include <assert.h>

struct ls_tensor ls_tensor_view(void *data, ls_dtype type, int ndim, const int64_t *dim)
{
    struct ls_tensor tensor = {.type = type, .ndim = ndim, .data = data};
    int64_t stride = 1;

    assert(ndim >= 0 && ndim <= LS_MAX_DIMS);
    for (int i = ndim - 1; i >= 0; i--) {
        tensor.dim[i] = dim[i];
        tensor.stride[i] = stride;
        stride *= dim[i];
    }
    return tensor;
}
