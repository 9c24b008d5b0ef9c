/* What is done to each element by itself, or to pairs of them: activations, dropout, sums of two
 * tensors, rotary embedding. Tensors are [b, s_loc, e] of one type, f32 or bf16, any strides but
 * the last. Arithmetic is f32 and results are rounded once, except that those in f32 of several
 * steps are rounded in each. An element's bits depend on nothing but what it is made of. An output
 * may be one of the inputs of its shape, or overlaps none. */
#ifndef LS_DEVICE_POINTWISE_H
#define LS_DEVICE_POINTWISE_H

#include <stdbool.h>

#include "device/device.h"
#include "longspan/activation.h"
#include "tensor/dropout.h"
#include "tensor/rotary.h"
#include "tensor/row_runs.h"

/* out = residual + (kept ? x / (1 - rate) : 0) */
struct ls_dropout_call {
    struct ls_tensor *out;
    const struct ls_tensor *residual; /* NULL: none */
    const struct ls_tensor *x;
    const uint8_t *mask; /* [b, s_loc, e] from ls_dropout_mask; NULL: drawn again */
    const struct ls_dropout *dropout;
    const struct ls_row_runs *runs; /* where the rows stand; rows in none are left alone */
};

struct ls_pointwise_ops {
    void (*activation_forward)(void *self, struct ls_tensor *y, const struct ls_tensor *z,
                               ls_activation kind);
    void (*activation_backward)(void *self, struct ls_tensor *dz, const struct ls_tensor *dy,
                                const struct ls_tensor *z, ls_activation kind);
    void (*add)(void *self, struct ls_tensor *out, const struct ls_tensor *a,
                const struct ls_tensor *b);
    void (*dropout_mask)(void *self, uint8_t *mask, const int64_t dim[3],
                         const struct ls_dropout *dropout, const struct ls_row_runs *runs);
    void (*dropout)(void *self, const struct ls_dropout_call *call);
    void (*rotate)(void *self, struct ls_tensor *out, const struct ls_tensor *x,
                   const struct ls_rotary *rotary, const struct ls_row_runs *runs, bool back);
};

/* y = act(z); of SwiGLU z has twice the columns of y, and y is another tensor. */
void ls_activation_forward(struct ls_queue *queue, struct ls_tensor *y, const struct ls_tensor *z,
                           ls_activation kind);

/* dz = dy act'(z); of ReLU 0 where z is 0. dz may be z. */
void ls_activation_backward(struct ls_queue *queue, struct ls_tensor *dz,
                            const struct ls_tensor *dy, const struct ls_tensor *z,
                            ls_activation kind);

/* out = a + b */
void ls_tensor_add(struct ls_queue *queue, struct ls_tensor *out, const struct ls_tensor *a,
                   const struct ls_tensor *b);

/* mask [b, s_loc, e] = 1 for elements that are kept, else 0; dim is that of the tensor. */
void ls_dropout_mask(struct ls_queue *queue, uint8_t *mask, const int64_t dim[3],
                     const struct ls_dropout *dropout, const struct ls_row_runs *runs);

/* With dy for x and without a residual this is backward. The mask, if given, is what would be
 * drawn.
 */
void ls_dropout(struct ls_queue *queue, const struct ls_dropout_call *call);

/* Heads [b, s_loc, h, d] turned by their positions' angles (tensor/rotary.h), which err by less
 * than 1e-8 up to position 10^7; `back` turns the other way, which is the gradient. */
void ls_rotate(struct ls_queue *queue, struct ls_tensor *out, const struct ls_tensor *x,
               const struct ls_rotary *rotary, const struct ls_row_runs *runs, bool back);

#endif
