/* A device whose memory the host must not touch, as a GPU's: it computes as the CPU does, but all
 * of its blocks lie in one arena, which nobody may read or write while none of its operations,
 * transfers or messages is at work. Whoever does dies of it. One at a time in a process. */
#ifndef TESTS_MPI_GUARDED_H
#define TESTS_MPI_GUARDED_H

#include "comm/transport.h"
#include "device/bias_gradient.h"
#include "device/gradient.h"
#include "device/linear.h"
#include "device/norm.h"
#include "device/pointwise.h"
#include "device/quantize.h"
#include "device/rows.h"
#include "guarded_memory.h"

/* ---- operations */

static inline ls_status guarded_attend(struct ls_queue *queue, struct ls_attention_kernel *kernel,
                                       const struct ls_kernel_call *call)
{
    guarded_enter();
    const ls_status status = guarded.cpu->ops->attention->attend(queue, kernel, call);

    guarded_leave();
    return status;
}

static inline void guarded_merge(struct ls_attention_kernel *kernel, struct ls_row_states into,
                                 struct ls_row_states from, int64_t rows)
{
    guarded_enter();
    guarded.cpu->ops->attention->merge(kernel, into, from, rows);
    guarded_leave();
}

static inline ls_status guarded_gradient(struct ls_queue *queue, struct ls_gradient_kernel *kernel,
                                         const struct ls_gradient_call *call)
{
    guarded_enter();
    const ls_status status = guarded.cpu->ops->gradient->compute(queue, kernel, call);

    guarded_leave();
    return status;
}

static inline ls_status guarded_bias_gradient(struct ls_queue *queue,
                                              struct ls_bias_gradient_kernel *kernel,
                                              const struct ls_bias_gradient_call *call)
{
    guarded_enter();
    const ls_status status = guarded.cpu->ops->bias_gradient->compute(queue, kernel, call);

    guarded_leave();
    return status;
}

static inline void guarded_rows_copy(void *self, struct ls_tensor *to, const struct ls_tensor *from)
{
    guarded_enter();
    guarded.cpu->ops->rows->copy(self, to, from);
    guarded_leave();
}

static inline void guarded_rows_zero(void *self, struct ls_tensor *t)
{
    guarded_enter();
    guarded.cpu->ops->rows->zero(self, t);
    guarded_leave();
}

static inline void guarded_rows_add(void *self, float *into, const float *from, int64_t n)
{
    guarded_enter();
    guarded.cpu->ops->rows->add(self, into, from, n);
    guarded_leave();
}

static inline void guarded_round_sums(void *self, struct ls_tensor *out, const float *a,
                                      const float *b, int64_t group)
{
    guarded_enter();
    guarded.cpu->ops->rows->round_sums(self, out, a, b, group);
    guarded_leave();
}

static inline void guarded_delta(void *self, float *delta, const struct ls_tensor *d_o,
                                 const struct ls_tensor *o, const struct ls_tensor *o_lo,
                                 const struct ls_tensor *dlse)
{
    guarded_enter();
    guarded.cpu->ops->rows->delta(self, delta, d_o, o, o_lo, dlse);
    guarded_leave();
}

static inline void guarded_sinks(void *self, double *out, const float *sinks,
                                 const struct ls_sink_rows *rows)
{
    guarded_enter();
    guarded.cpu->ops->rows->sinks(self, out, sinks, rows);
    guarded_leave();
}

static inline size_t guarded_sum_bytes(void *self, int64_t rows, int64_t e)
{
    return guarded.cpu->ops->rows->sum_bytes(self, rows, e);
}

static inline void guarded_sum(void *self, float *out, const struct ls_tensor *x,
                               const struct ls_row_order *order, void *scratch)
{
    guarded_enter();
    guarded.cpu->ops->rows->sum(self, out, x, order, scratch);
    guarded_leave();
}

static inline void guarded_linear(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                                  const struct ls_linear_call *call)
{
    guarded_enter();
    guarded.cpu->ops->linear->forward(queue, kernel, call);
    guarded_leave();
}

static inline void guarded_linear_dx(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                                     const struct ls_linear_input_gradient *call)
{
    guarded_enter();
    guarded.cpu->ops->linear->dx(queue, kernel, call);
    guarded_leave();
}

static inline void guarded_linear_dw(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                                     const struct ls_linear_sum *sum)
{
    guarded_enter();
    guarded.cpu->ops->linear->dw(queue, kernel, sum);
    guarded_leave();
}

static inline void guarded_norm(void *self, const struct ls_norm_forward *call)
{
    guarded_enter();
    guarded.cpu->ops->norm->forward(self, call);
    guarded_leave();
}

static inline void guarded_norm_backward(void *self, const struct ls_norm_backward *call)
{
    guarded_enter();
    guarded.cpu->ops->norm->backward(self, call);
    guarded_leave();
}

static inline void guarded_activation(void *self, struct ls_tensor *y, const struct ls_tensor *z,
                                      ls_activation kind)
{
    guarded_enter();
    guarded.cpu->ops->pointwise->activation_forward(self, y, z, kind);
    guarded_leave();
}

static inline void guarded_activation_backward(void *self, struct ls_tensor *dz,
                                               const struct ls_tensor *dy,
                                               const struct ls_tensor *z, ls_activation kind)
{
    guarded_enter();
    guarded.cpu->ops->pointwise->activation_backward(self, dz, dy, z, kind);
    guarded_leave();
}

static inline void guarded_tensor_add(void *self, struct ls_tensor *out, const struct ls_tensor *a,
                                      const struct ls_tensor *b)
{
    guarded_enter();
    guarded.cpu->ops->pointwise->add(self, out, a, b);
    guarded_leave();
}

static inline void guarded_dropout_mask(void *self, uint8_t *mask, const int64_t dim[3],
                                        const struct ls_dropout *dropout,
                                        const struct ls_row_runs *runs)
{
    guarded_enter();
    guarded.cpu->ops->pointwise->dropout_mask(self, mask, dim, dropout, runs);
    guarded_leave();
}

static inline void guarded_dropout(void *self, const struct ls_dropout_call *call)
{
    guarded_enter();
    guarded.cpu->ops->pointwise->dropout(self, call);
    guarded_leave();
}

static inline void guarded_rotate(void *self, struct ls_tensor *out, const struct ls_tensor *x,
                                  const struct ls_rotary *rotary, const struct ls_row_runs *runs,
                                  bool back)
{
    guarded_enter();
    guarded.cpu->ops->pointwise->rotate(self, out, x, rotary, runs, back);
    guarded_leave();
}

static inline void guarded_quantize_sum(void *self, int64_t *limb, int64_t *rows,
                                        const struct ls_tensor *x)
{
    guarded_enter();
    guarded.cpu->ops->quantize->sum(self, limb, rows, x);
    guarded_leave();
}

static inline void guarded_quantize_largest(void *self, float *out, const struct ls_tensor *x,
                                            const float *mean)
{
    guarded_enter();
    guarded.cpu->ops->quantize->largest(self, out, x, mean);
    guarded_leave();
}

static inline void guarded_quantize_round(void *self, struct ls_tensor *out,
                                          const struct ls_tensor *x, const float *mean,
                                          const float *largest)
{
    guarded_enter();
    guarded.cpu->ops->quantize->round(self, out, x, mean, largest);
    guarded_leave();
}

/* ---- messages, by copies that the host may touch at any time, as MPI does */

struct guarded_bridge {
    const struct ls_transport_ops *ops;
    void *self;
};

/* A message of the host's that stands for one of the device's. */
struct guarded_hop {
    struct ls_message of_host;
    void *data;
};

static inline void guarded_arrive(struct ls_message *message)
{
    struct guarded_hop *hop = (struct guarded_hop *)message->handle;

    if (!message->is_send) guarded_copy(NULL, hop->data, hop->of_host.data, message->bytes);
    free(hop->of_host.data);
    free(hop);
    message->handle = 0;
}

static inline ls_status guarded_start(void *self, struct ls_message *message, int n)
{
    const struct guarded_bridge *bridge = self;

    for (int sends = 0; sends < 2; sends++)
        for (int i = 0; i < n; i++) {
            struct guarded_hop *hop;

            if (message[i].is_send != (bool)sends) continue;
            hop = malloc(sizeof *hop);
            *hop = (struct guarded_hop){.of_host = message[i], .data = message[i].data};
            hop->of_host.data = malloc(message[i].bytes + 1);
            if (sends) guarded_copy(NULL, hop->of_host.data, hop->data, message[i].bytes);
            LS_TRY(bridge->ops->start(bridge->self, &hop->of_host, 1));
            message[i].handle = (uintptr_t)hop;
        }
    return LS_OK;
}

static inline ls_status guarded_test(bool *done, void *self, struct ls_message *message, int n)
{
    const struct guarded_bridge *bridge = self;

    *done = true;
    for (int i = 0; i < n; i++) {
        struct guarded_hop *hop = (struct guarded_hop *)message[i].handle;
        bool arrived;

        if (!hop) continue;
        LS_TRY(bridge->ops->test(&arrived, bridge->self, &hop->of_host, 1));
        if (arrived) guarded_arrive(&message[i]);
        *done &= arrived;
    }
    return LS_OK;
}

static inline ls_status guarded_wait(void *self, struct ls_message *message, int n)
{
    const struct guarded_bridge *bridge = self;

    for (int i = 0; i < n; i++) {
        struct guarded_hop *hop = (struct guarded_hop *)message[i].handle;

        if (!hop) continue;
        LS_TRY(bridge->ops->wait(bridge->self, &hop->of_host, 1));
        guarded_arrive(&message[i]);
    }
    return LS_OK;
}

static inline ls_status guarded_transport_alloc(void **out, void *self, size_t bytes)
{
    return guarded_alloc(out, self, LS_TAG_COMM, bytes);
}

static inline void guarded_fold(void *self, void *out, const void *part, int parts, int64_t stride,
                                int64_t n, ls_dtype type, ls_reduction how)
{
    guarded_enter();
    ls_fold_on_host(self, out, part, parts, stride, n, type, how);
    guarded_leave();
}

static const struct ls_transport_ops guarded_transport_ops = {.name = "guarded",
                                                              .start = guarded_start,
                                                              .test = guarded_test,
                                                              .wait = guarded_wait,
                                                              .fold = guarded_fold,
                                                              .copy = guarded_copy,
                                                              .alloc = guarded_transport_alloc,
                                                              .free = guarded_free};

/* The bridge stays until the process ends. */
static inline struct ls_transport guarded_transport(void *self, const struct ls_comm *comm,
                                                    struct ls_traffic *traffic)
{
    struct ls_transport t = ls_transport_of(comm, traffic);
    struct guarded_bridge *bridge = malloc(sizeof *bridge);

    (void)self;
    *bridge = (struct guarded_bridge){t.ops, t.self};
    t.ops = &guarded_transport_ops;
    t.self = bridge;
    return t;
}

/* ---- the table: what is not here is the CPU's */

static inline struct ls_device *guarded_device(int threads)
{
    static struct ls_device_ops ops;
    static struct ls_attention_ops attention;
    static struct ls_gradient_ops gradient;
    static struct ls_bias_gradient_ops bias_gradient;
    static const struct ls_row_ops rows = {.copy = guarded_rows_copy,
                                           .zero = guarded_rows_zero,
                                           .add = guarded_rows_add,
                                           .round_sums = guarded_round_sums,
                                           .delta = guarded_delta,
                                           .sinks = guarded_sinks,
                                           .sum_bytes = guarded_sum_bytes,
                                           .sum = guarded_sum};
    static struct ls_linear_ops linear;
    static struct ls_norm_ops norm;
    static const struct ls_pointwise_ops pointwise = {.activation_forward = guarded_activation,
                                                      .activation_backward =
                                                          guarded_activation_backward,
                                                      .add = guarded_tensor_add,
                                                      .dropout_mask = guarded_dropout_mask,
                                                      .dropout = guarded_dropout,
                                                      .rotate = guarded_rotate};
    static const struct ls_quantize_ops quantize = {.sum = guarded_quantize_sum,
                                                    .largest = guarded_quantize_largest,
                                                    .round = guarded_quantize_round};
    struct ls_device *cpu, *device = NULL;

    if (ls_device_open(&cpu, "cpu", 0, 1) != LS_OK) return NULL;
    ops = *cpu->ops;
    attention = *ops.attention;
    gradient = *ops.gradient;
    bias_gradient = *ops.bias_gradient;
    linear = *ops.linear;
    norm = *ops.norm;
    ls_device_close(cpu);
    attention.attend = guarded_attend;
    attention.merge = guarded_merge;
    gradient.compute = guarded_gradient;
    bias_gradient.compute = guarded_bias_gradient;
    linear.forward = guarded_linear;
    linear.dx = guarded_linear_dx;
    linear.dw = guarded_linear_dw;
    norm.forward = guarded_norm;
    norm.backward = guarded_norm_backward;
    ops.name = "guarded";
    ops.ordinals = guarded_ordinals;
    ops.open = guarded_open;
    ops.close = guarded_close;
    ops.facts = guarded_facts;
    ops.memory = &guarded_memory;
    ops.attention = &attention;
    ops.gradient = &gradient;
    ops.bias_gradient = &bias_gradient;
    ops.rows = &rows;
    ops.linear = &linear;
    ops.norm = &norm;
    ops.pointwise = &pointwise;
    ops.quantize = &quantize;
    ops.transport = guarded_transport;
    return ls_device_open_backend(&device, &ops, 0, threads) == LS_OK ? device : NULL;
}

#endif
