#include "device/materialized.h"

static const struct ls_materialized_ops *materialized_of(const struct ls_device *device)
{
    return device->ops->materialized;
}

size_t ls_materialized_kernel_bytes(const struct ls_device *device,
                                    const struct ls_materialized_shape *shape)
{
    return materialized_of(device)->bytes(device->self, shape);
}

ls_status ls_materialized_kernel_create(struct ls_materialized_kernel **out,
                                        const struct ls_device *device,
                                        const struct ls_materialized_shape *shape)
{
    return materialized_of(device)->create(out, device->self, shape);
}

void ls_materialized_kernel_destroy(const struct ls_device *device,
                                    struct ls_materialized_kernel *kernel)
{
    if (kernel) materialized_of(device)->destroy(kernel);
}

void ls_materialized_forward(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                             const struct ls_materialized_forward *call)
{
    if (ls_queue_is_open(queue)) materialized_of(queue->device)->forward(queue, kernel, call);
}

void ls_materialized_backward(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                              const struct ls_materialized_backward *call)
{
    if (ls_queue_is_open(queue)) materialized_of(queue->device)->backward(queue, kernel, call);
}
