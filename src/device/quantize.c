#include "device/quantize.h"

static const struct ls_quantize_ops *ops(const struct ls_queue *queue)
{
    return queue->device->ops->quantize;
}

void ls_quantize_sum(struct ls_queue *queue, int64_t *limb, int64_t *rows,
                     const struct ls_tensor *x)
{
    if (ls_queue_is_open(queue)) ops(queue)->sum(queue->device->self, limb, rows, x);
}

void ls_quantize_largest(struct ls_queue *queue, float *out, const struct ls_tensor *x,
                         const float *mean)
{
    if (ls_queue_is_open(queue)) ops(queue)->largest(queue->device->self, out, x, mean);
}

void ls_quantize_round(struct ls_queue *queue, struct ls_tensor *out, const struct ls_tensor *x,
                       const float *mean, const float *largest)
{
    if (ls_queue_is_open(queue)) ops(queue)->round(queue->device->self, out, x, mean, largest);
}
