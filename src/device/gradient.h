/* Gradient kernels. */
#ifndef LS_DEVICE_GRADIENT_H
#define LS_DEVICE_GRADIENT_H

#include "device/attention.h"

/* What a gradient kernel is made for. */
struct ls_gradient_shape {
    struct ls_kernel_shape attention;
    int64_t q_leaves;    /* the most that one call brings */
    bool queries_return; /* the same ones meet several leaves of keys, call after call */
};

/* Where a call's sums are all that there is of a gradient and nobody wants them but rounded, as by
 * ls_round_sums: they go here instead, dk and dv only if h is h_kv. Their memory is still the
 * kernel's to use. */
struct ls_gradient_rounded {
    struct ls_tensor *dq, *dk, *dv; /* dq may be q, dk k and dv v; each may be NULL */
};

/* The gradients of one meeting of queries and keys. Sums start from nothing and are written to rows
 * of the call's leaves alone: dq over the call's leaves of keys, dk and dv of each query head over
 * its leaves of queries, by the binary tree over the leaves' places in the lists. Head and row
 * strides are those of contiguous [b, h, s_loc, d], or d_v. */
struct ls_gradient_call {
    const struct ls_tensor *q, *d_o, *k, *v;
    const float *lse, *delta; /* [b, h, s_q_loc], lse the natural logarithm */
    struct ls_leaf_list q_leaves, k_leaves;
    bool same_queries; /* q, d_o, lse, delta and q_leaves: as in the kernel's last call, which
                          went well, and unchanged since */
    float *dq;         /* [b, h, s_q_loc, d] */
    float *dk, *dv;    /* [b, h, s_k_loc, d], [b, h, s_k_loc, d_v] */
    struct ls_gradient_rounded rounded;
    const struct ls_kernel_change *change; /* from this call on; NULL: none */
};

struct ls_gradient_kernel;

struct ls_gradient_ops {
    const char *(*name)(void *self, const struct ls_kernel_shape *attention);
    size_t (*bytes)(void *self, const struct ls_gradient_shape *shape);
    ls_status (*create)(struct ls_gradient_kernel **out, void *self,
                        const struct ls_gradient_shape *shape);
    void (*destroy)(struct ls_gradient_kernel *kernel);
    ls_status (*compute)(struct ls_queue *queue, struct ls_gradient_kernel *kernel,
                         const struct ls_gradient_call *call);
};

/* As of attention kernels (attention.h). */
const char *ls_gradient_kernel_name(const struct ls_device *device,
                                    struct ls_kernel_shape attention);
size_t ls_gradient_kernel_bytes(const struct ls_device *device, struct ls_gradient_shape shape);
ls_status ls_gradient_kernel_create(struct ls_gradient_kernel **out, const struct ls_device *device,
                                    struct ls_gradient_shape shape);
void ls_gradient_kernel_destroy(const struct ls_device *device, struct ls_gradient_kernel *kernel);

/* Allocates nothing. Fails with LS_EINTERNAL. */
void ls_gradient(struct ls_queue *queue, struct ls_gradient_kernel *kernel,
                 const struct ls_gradient_call *call);

#endif
