/* Kernels for the gradients of biases of pairs: p (dp - delta) of each query and key, what is
 * summed elsewhere over rows. */
#ifndef LS_DEVICE_BIAS_GRADIENT_H
#define LS_DEVICE_BIAS_GRADIENT_H

#include "device/attention.h"
#include "tensor/row_runs.h"

/* The meeting of some queries and some keys. Queries stand at runs of positions, none of which goes
 * over from one leaf to the next. Of dbias the rows of these are written, at the places of the
 * leaves' keys: each element is the sum over the entries and heads that share the bias, in their
 * order, whatever else is in the call. */
struct ls_bias_gradient_call {
    struct ls_tensor *dbias;         /* f32 [b or 1, h or 1, s_q_loc, s_k] */
    const struct ls_tensor *q, *d_o; /* [b, s_q_loc, h, d or d_v] */
    const struct ls_tensor *k, *v;   /* [b, s_k_loc, h_kv, d or d_v] */
    const struct ls_tensor *lse;     /* [b, h, s_q_loc], the natural logarithm, as is delta */
    const struct ls_tensor *delta;
    const struct ls_row_run *runs; /* of queries */
    int64_t run_count;
    struct ls_leaf_list k_leaves;
    const struct ls_kernel_change *change; /* from this call on; NULL: none */
};

struct ls_bias_gradient_kernel;

struct ls_bias_gradient_ops {
    size_t (*bytes)(void *self, const struct ls_kernel_shape *shape);
    ls_status (*create)(struct ls_bias_gradient_kernel **out, void *self,
                        const struct ls_kernel_shape *shape);
    void (*destroy)(struct ls_bias_gradient_kernel *kernel);
    ls_status (*compute)(struct ls_queue *queue, struct ls_bias_gradient_kernel *kernel,
                         const struct ls_bias_gradient_call *call);
};

/* As of attention kernels (attention.h), for calls with any number of leaves. */
size_t ls_bias_gradient_kernel_bytes(const struct ls_device *device, struct ls_kernel_shape shape);
ls_status ls_bias_gradient_kernel_create(struct ls_bias_gradient_kernel **out,
                                         const struct ls_device *device,
                                         struct ls_kernel_shape shape);
void ls_bias_gradient_kernel_destroy(const struct ls_device *device,
                                     struct ls_bias_gradient_kernel *kernel);

/* Allocates nothing. Fails with LS_EINTERNAL. */
void ls_bias_gradient(struct ls_queue *queue, struct ls_bias_gradient_kernel *kernel,
                      const struct ls_bias_gradient_call *call);

#endif
