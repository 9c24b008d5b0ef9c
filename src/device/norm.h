/* LayerNorm and RMSNorm of rows of e elements.
 *   LayerNorm  y = (x - mean) rstd gamma + beta,  rstd = 1 / sqrt(mean of (x - mean)^2 + epsilon)
 *   RMSNorm    y = x rstd gamma,                  rstd = 1 / sqrt(mean of x^2 + epsilon)
 * Tensors are [b, s_loc, e] of one type, f32 or bf16, any strides but the last; gamma and beta [e]
 * have that type, too; mean and rstd [b, s_loc] are f32. Arithmetic is f32, results are rounded
 * once. A row's bits depend on nothing but the row.
 * Sources: Ba, Kiros, Hinton 2016; Zhang, Sennrich 2019. */
#ifndef LS_DEVICE_NORM_H
#define LS_DEVICE_NORM_H

#include "device/rows.h"

struct ls_norm_forward {
    struct ls_tensor *y;
    float *mean, *rstd; /* kept for backward; mean NULL: RMSNorm */
    const struct ls_tensor *x;
    const void *gamma, *beta; /* beta may be NULL */
    float epsilon;
};

/* With xhat = (x - mean) rstd and g = dy gamma:
 *   dx = rstd (g - mean of g - xhat mean of (g xhat)), for RMSNorm without the mean of g,
 *   dgamma = sum of dy xhat and dbeta = sum of dy over rows, of each node at its slot. */
struct ls_norm_backward {
    struct ls_tensor *dx;
    bool add;              /* to what dx holds */
    float *dgamma, *dbeta; /* [nodes, e]; dbeta NULL: not wanted */
    const struct ls_tensor *dy, *x;
    const float *mean, *rstd;
    const void *gamma;
    const struct ls_row_order *order;
    void *scratch; /* ls_norm_backward_bytes */
};

struct ls_norm_ops {
    void (*forward)(void *self, const struct ls_norm_forward *call);
    size_t (*backward_bytes)(void *self, int64_t rows, int64_t e);
    void (*backward)(void *self, const struct ls_norm_backward *call);
};

/* y may be x. */
void ls_norm_forward(struct ls_queue *queue, const struct ls_norm_forward *call);

/* Of at least b s_loc rows; aligned to 64 bytes. */
size_t ls_norm_backward_bytes(const struct ls_device *device, int64_t rows, int64_t e);

/* dx may not overlap what is read. */
void ls_norm_backward(struct ls_queue *queue, const struct ls_norm_backward *call);

#endif
