#include "longspan/tensor.h"

#include <criterion/criterion.h>

Test(tensor, a_view_is_contiguous_with_the_last_dimension_fastest)
{
    float data[2 * 3 * 4 * 5];
    const int64_t dim[] = {2, 3, 4, 5}, stride[] = {60, 20, 5, 1};
    const struct ls_tensor view = ls_tensor_view(data, LS_F32, 4, dim);

    cr_expect_eq(view.data, data);
    cr_expect_eq(view.type, LS_F32);
    cr_expect_eq(view.ndim, 4);
    for (int i = 0; i < 4; i++) {
        cr_expect_eq(view.dim[i], dim[i], "dimension %d", i);
        cr_expect_eq(view.stride[i], stride[i], "stride %d is %ld", i, (long)view.stride[i]);
    }
}

Test(tensor, fewer_dimensions_and_empty_ones)
{
    const int64_t dim[] = {7, 0};
    const struct ls_tensor vector = ls_tensor_view(NULL, LS_BF16, 1, dim);
    const struct ls_tensor empty = ls_tensor_view(NULL, LS_BF16, 2, dim);
    const struct ls_tensor scalar = ls_tensor_view(NULL, LS_BF16, 0, NULL);

    cr_expect(vector.ndim == 1 && vector.dim[0] == 7 && vector.stride[0] == 1);
    cr_expect(empty.ndim == 2 && empty.dim[1] == 0 && empty.stride[1] == 1);
    cr_expect_eq(scalar.ndim, 0);
}
