#include "attention/tensor_copy.h"

#include <string.h>

#include "tensor/dtype.h"

void ls_tensor_copy(struct ls_tensor *to, const struct ls_tensor *from)
{
    const size_t size = (size_t)ls_dtype_size(from->type);

    for (int64_t i = 0; i < from->dim[0]; i++) {
        for (int64_t j = 0; j < from->dim[1]; j++) {
            for (int64_t k = 0; k < from->dim[2]; k++) {
                const int64_t at = i * from->stride[0] + j * from->stride[1] + k * from->stride[2];
                const int64_t into = i * to->stride[0] + j * to->stride[1] + k * to->stride[2];

                memcpy((char *)to->data + (size_t)into * size,
                       (const char *)from->data + (size_t)at * size, (size_t)from->dim[3] * size);
            }
        }
    }
}
