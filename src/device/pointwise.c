#include "device/pointwise.h"

static const struct ls_pointwise_ops *pointwise_of(const struct ls_queue *queue)
{
    return queue->device->ops->pointwise;
}

void ls_activation_forward(struct ls_queue *queue, struct ls_tensor *y, const struct ls_tensor *z,
                           ls_activation kind)
{
    if (ls_queue_is_open(queue))
        pointwise_of(queue)->activation_forward(queue->device->self, y, z, kind);
}

void ls_activation_backward(struct ls_queue *queue, struct ls_tensor *dz,
                            const struct ls_tensor *dy, const struct ls_tensor *z,
                            ls_activation kind)
{
    if (ls_queue_is_open(queue))
        pointwise_of(queue)->activation_backward(queue->device->self, dz, dy, z, kind);
}

void ls_tensor_add(struct ls_queue *queue, struct ls_tensor *out, const struct ls_tensor *a,
                   const struct ls_tensor *b)
{
    if (ls_queue_is_open(queue)) pointwise_of(queue)->add(queue->device->self, out, a, b);
}

void ls_dropout_mask(struct ls_queue *queue, uint8_t *mask, const int64_t dim[3],
                     const struct ls_dropout *dropout, const struct ls_row_runs *runs)
{
    if (ls_queue_is_open(queue))
        pointwise_of(queue)->dropout_mask(queue->device->self, mask, dim, dropout, runs);
}

void ls_dropout(struct ls_queue *queue, const struct ls_dropout_call *call)
{
    if (ls_queue_is_open(queue)) pointwise_of(queue)->dropout(queue->device->self, call);
}

void ls_rotate(struct ls_queue *queue, struct ls_tensor *out, const struct ls_tensor *x,
               const struct ls_rotary *rotary, const struct ls_row_runs *runs, bool back)
{
    if (ls_queue_is_open(queue))
        pointwise_of(queue)->rotate(queue->device->self, out, x, rotary, runs, back);
}
