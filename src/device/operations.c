/* The fronts of the families of operations. */
#include "device/bias_gradient.h"
#include "device/gradient.h"
#include "device/rows.h"

static const struct ls_row_ops *rows_of(const struct ls_queue *queue)
{
    return queue->device->ops->rows;
}

/* ---- attention */

const char *ls_attention_kernel_name(const struct ls_device *device, struct ls_kernel_shape shape)
{
    return device->ops->attention->name(device->self, &shape);
}

size_t ls_attention_kernel_bytes(const struct ls_device *device, struct ls_kernel_shape shape)
{
    return device->ops->attention->bytes(device->self, &shape);
}

ls_status ls_attention_kernel_create(struct ls_attention_kernel **out,
                                     const struct ls_device *device, struct ls_kernel_shape shape)
{
    return device->ops->attention->create(out, device->self, &shape);
}

void ls_attention_kernel_destroy(const struct ls_device *device, struct ls_attention_kernel *kernel)
{
    if (kernel) device->ops->attention->destroy(kernel);
}

bool ls_attention_kernel_is_canonical(const struct ls_device *device,
                                      const struct ls_attention_kernel *kernel)
{
    return device->ops->attention->canonical(kernel);
}

void ls_attend(struct ls_queue *queue, struct ls_attention_kernel *kernel,
               const struct ls_kernel_call *call)
{
    if (ls_queue_is_open(queue))
        ls_queue_note(queue, queue->device->ops->attention->attend(queue, kernel, call));
}

void ls_merge(struct ls_queue *queue, struct ls_attention_kernel *kernel, struct ls_row_states into,
              struct ls_row_states from, int64_t rows)
{
    if (ls_queue_is_open(queue)) queue->device->ops->attention->merge(kernel, into, from, rows);
}

/* ---- gradients */

const char *ls_gradient_kernel_name(const struct ls_device *device,
                                    struct ls_kernel_shape attention)
{
    return device->ops->gradient->name(device->self, &attention);
}

size_t ls_gradient_kernel_bytes(const struct ls_device *device, struct ls_gradient_shape shape)
{
    return device->ops->gradient->bytes(device->self, &shape);
}

ls_status ls_gradient_kernel_create(struct ls_gradient_kernel **out, const struct ls_device *device,
                                    struct ls_gradient_shape shape)
{
    return device->ops->gradient->create(out, device->self, &shape);
}

void ls_gradient_kernel_destroy(const struct ls_device *device, struct ls_gradient_kernel *kernel)
{
    if (kernel) device->ops->gradient->destroy(kernel);
}

void ls_gradient(struct ls_queue *queue, struct ls_gradient_kernel *kernel,
                 const struct ls_gradient_call *call)
{
    if (ls_queue_is_open(queue))
        ls_queue_note(queue, queue->device->ops->gradient->compute(queue, kernel, call));
}

/* ---- gradients of biases */

size_t ls_bias_gradient_kernel_bytes(const struct ls_device *device, struct ls_kernel_shape shape)
{
    return device->ops->bias_gradient->bytes(device->self, &shape);
}

ls_status ls_bias_gradient_kernel_create(struct ls_bias_gradient_kernel **out,
                                         const struct ls_device *device,
                                         struct ls_kernel_shape shape)
{
    return device->ops->bias_gradient->create(out, device->self, &shape);
}

void ls_bias_gradient_kernel_destroy(const struct ls_device *device,
                                     struct ls_bias_gradient_kernel *kernel)
{
    if (kernel) device->ops->bias_gradient->destroy(kernel);
}

void ls_bias_gradient(struct ls_queue *queue, struct ls_bias_gradient_kernel *kernel,
                      const struct ls_bias_gradient_call *call)
{
    if (ls_queue_is_open(queue))
        ls_queue_note(queue, queue->device->ops->bias_gradient->compute(queue, kernel, call));
}

/* ---- rows */

void ls_copy(struct ls_queue *queue, struct ls_tensor *to, const struct ls_tensor *from)
{
    if (ls_queue_is_open(queue)) rows_of(queue)->copy(queue->device->self, to, from);
}

void ls_zero(struct ls_queue *queue, struct ls_tensor *t)
{
    if (ls_queue_is_open(queue)) rows_of(queue)->zero(queue->device->self, t);
}

void ls_add(struct ls_queue *queue, float *into, const float *from, int64_t n)
{
    if (ls_queue_is_open(queue)) rows_of(queue)->add(queue->device->self, into, from, n);
}

void ls_round_sums(struct ls_queue *queue, struct ls_tensor *out, const float *a, const float *b,
                   int64_t group)
{
    if (ls_queue_is_open(queue)) rows_of(queue)->round_sums(queue->device->self, out, a, b, group);
}

void ls_delta(struct ls_queue *queue, float *delta, const struct ls_tensor *d_o,
              const struct ls_tensor *o, const struct ls_tensor *o_lo, const struct ls_tensor *dlse)
{
    if (ls_queue_is_open(queue))
        rows_of(queue)->delta(queue->device->self, delta, d_o, o, o_lo, dlse);
}

void ls_sink_sums(struct ls_queue *queue, double *out, const float *sinks,
                  const struct ls_sink_rows *rows)
{
    if (ls_queue_is_open(queue)) rows_of(queue)->sinks(queue->device->self, out, sinks, rows);
}

size_t ls_row_sums_bytes(const struct ls_device *device, int64_t rows, int64_t e)
{
    return device->ops->rows->sum_bytes(device->self, rows, e);
}

void ls_row_sums(struct ls_queue *queue, float *out, const struct ls_tensor *x,
                 const struct ls_row_order *order, void *scratch)
{
    if (ls_queue_is_open(queue)) rows_of(queue)->sum(queue->device->self, out, x, order, scratch);
}
