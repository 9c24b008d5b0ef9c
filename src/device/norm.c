#include "device/norm.h"

void ls_norm_forward(struct ls_queue *queue, const struct ls_norm_forward *call)
{
    if (ls_queue_is_open(queue)) queue->device->ops->norm->forward(queue->device->self, call);
}

size_t ls_norm_backward_bytes(const struct ls_device *device, int64_t rows, int64_t e)
{
    return device->ops->norm->backward_bytes(device->self, rows, e);
}

void ls_norm_backward(struct ls_queue *queue, const struct ls_norm_backward *call)
{
    if (ls_queue_is_open(queue)) queue->device->ops->norm->backward(queue->device->self, call);
}
