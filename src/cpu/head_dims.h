/* Head dimensions as kernels have them. */
#ifndef LS_CPU_HEAD_DIMS_H
#define LS_CPU_HEAD_DIMS_H

#include "device/attention.h"

/* Of rows of q and k, and of v and o. */
struct head_dims {
    int d, d_v;
};

/* Padded to multiples. */
static inline struct head_dims head_dims_padded(const struct ls_attention_shape *shape,
                                                int multiple)
{
    const int64_t d = shape->d, d_v = ls_value_dim(shape);

    return (struct head_dims){.d = (int)((d + multiple - 1) / multiple * multiple),
                              .d_v = (int)((d_v + multiple - 1) / multiple * multiple)};
}

static inline int head_dims_widest(struct head_dims dims)
{
    return dims.d > dims.d_v ? dims.d : dims.d_v;
}

#endif
