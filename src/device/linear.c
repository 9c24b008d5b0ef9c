#include "device/linear.h"

static const struct ls_linear_ops *linear_of(const struct ls_device *device)
{
    return device->ops->linear;
}

const char *ls_linear_kernel_name(const struct ls_device *device, ls_dtype type)
{
    return linear_of(device)->name(device->self, type);
}

size_t ls_linear_kernel_bytes(const struct ls_device *device, const struct ls_linear_shape *shape)
{
    return linear_of(device)->bytes(device->self, shape);
}

ls_status ls_linear_kernel_create(struct ls_linear_kernel **out, const struct ls_device *device,
                                  const struct ls_linear_shape *shape)
{
    return linear_of(device)->create(out, device->self, shape);
}

void ls_linear_kernel_destroy(const struct ls_device *device, struct ls_linear_kernel *kernel)
{
    if (kernel) linear_of(device)->destroy(kernel);
}

void ls_linear(struct ls_queue *queue, struct ls_linear_kernel *kernel,
               const struct ls_linear_call *call)
{
    if (ls_queue_is_open(queue)) linear_of(queue->device)->forward(queue, kernel, call);
}

void ls_linear_dx(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                  const struct ls_linear_input_gradient *call)
{
    if (ls_queue_is_open(queue)) linear_of(queue->device)->dx(queue, kernel, call);
}

void ls_linear_dw(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                  const struct ls_linear_sum *sum)
{
    if (ls_queue_is_open(queue)) linear_of(queue->device)->dw(queue, kernel, sum);
}
