/* Calls of the device under test on memory of the host, done when they return. */
#ifndef TESTS_DEVICE_CALLS_H
#define TESTS_DEVICE_CALLS_H

#include "device/attention.h"
#include "device/gradient.h"
#include "device/rows.h"
#include "mirror.h"
#include "variants.h"

static inline struct ls_row_states mirror_states(struct mirror *m, const struct ls_row_states *s,
                                                 const struct ls_kernel_call *call)
{
    const int64_t *dim = call->q->dim;
    const size_t rows = (size_t)(dim[0] * dim[2] * dim[1]) * sizeof(float);

    return (struct ls_row_states){
        .m = mirror_result(m, s->m, rows),
        .l = mirror_result(m, s->l, rows),
        .acc = mirror_result(m, s->acc, rows * (size_t)call->v->dim[3]),
    };
}

static inline ls_status run_attention(struct ls_work *work, struct ls_device *device,
                                      struct ls_attention_kernel *kernel,
                                      const struct ls_kernel_call *call)
{
    enum { MOST_FOUND = 4 };
    struct mirror mirror = {.device = device};
    struct ls_kernel_call there = *call;
    struct ls_tensor o, o_lo, lse, q, k, v;
    struct ls_row_states states, found_states[MOST_FOUND];
    struct ls_found found[MOST_FOUND];

    there.o = mirror_output(&o, &mirror, call->o);
    there.o_lo = mirror_output(&o_lo, &mirror, call->o_lo);
    there.lse = mirror_output(&lse, &mirror, call->lse);
    there.q = mirror_input(&q, &mirror, call->q);
    there.k = mirror_input(&k, &mirror, call->k);
    there.v = mirror_input(&v, &mirror, call->v);
    if (call->states) {
        states = mirror_states(&mirror, call->states, call);
        there.states = &states;
    }
    cr_assert_leq(call->found_count, MOST_FOUND);
    for (int i = 0; i < call->found_count; i++) {
        found_states[i] = mirror_states(&mirror, call->found[i].states, call);
        found[i] = (struct ls_found){&found_states[i], call->found[i].after};
    }
    there.found = found;
    ls_attend(&device->queue, kernel, &there);
    const ls_status status = ls_queue_finish(work, &device->queue);
    mirror_read_back(&mirror);
    return status;
}

/* [b, h, s] of a tensor of queries or keys. */
static inline size_t rows_bytes(const struct ls_tensor *t, int64_t h)
{
    return (size_t)(t->dim[0] * h * t->dim[1]) * sizeof(float);
}

static inline ls_status run_gradient(struct ls_work *work, struct ls_device *device,
                                     struct ls_gradient_kernel *kernel,
                                     const struct ls_gradient_call *call)
{
    const int64_t h = call->q->dim[2];
    const size_t d = (size_t)call->q->dim[3], d_v = (size_t)call->v->dim[3];
    const size_t q_rows = rows_bytes(call->q, h), k_rows = rows_bytes(call->k, h);
    struct mirror mirror = {.device = device};
    struct ls_gradient_call there = *call;
    struct ls_tensor q, d_o, k, v, rounded[3];

    there.q = mirror_input(&q, &mirror, call->q);
    there.d_o = mirror_input(&d_o, &mirror, call->d_o);
    there.k = mirror_input(&k, &mirror, call->k);
    there.v = mirror_input(&v, &mirror, call->v);
    there.lse = mirror_operand(&mirror, call->lse, q_rows);
    there.delta = mirror_operand(&mirror, call->delta, q_rows);
    there.dq = mirror_result(&mirror, call->dq, q_rows * d);
    there.dk = mirror_result(&mirror, call->dk, k_rows * d);
    there.dv = mirror_result(&mirror, call->dv, k_rows * d_v);
    there.rounded =
        (struct ls_gradient_rounded){mirror_output(&rounded[0], &mirror, call->rounded.dq),
                                     mirror_output(&rounded[1], &mirror, call->rounded.dk),
                                     mirror_output(&rounded[2], &mirror, call->rounded.dv)};
    ls_gradient(&device->queue, kernel, &there);
    const ls_status status = ls_queue_finish(work, &device->queue);
    mirror_read_back(&mirror);
    return status;
}

static inline void run_delta(float *delta, int threads, const struct ls_tensor *d_o,
                             const struct ls_tensor *o, const struct ls_tensor *o_lo,
                             const struct ls_tensor *dlse)
{
    struct ls_device *device = open_device(threads);
    struct mirror mirror = {.device = device};
    struct ls_tensor t[4];

    need_family(device->ops->rows, "rows");
    ls_delta(&device->queue, mirror_result(&mirror, delta, rows_bytes(d_o, d_o->dim[2])),
             mirror_input(&t[0], &mirror, d_o), mirror_input(&t[1], &mirror, o),
             mirror_input(&t[2], &mirror, o_lo), mirror_input(&t[3], &mirror, dlse));
    cr_assert_eq(ls_queue_finish(NULL, &device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(&mirror);
}

#endif
