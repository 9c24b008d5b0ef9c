/* A device whose memory the host must not touch, as a GPU's: it computes as the CPU does, but all
 * of its blocks lie in one arena, which nobody may read or write while none of its operations,
 * transfers or messages is at work. Whoever does dies of it. One at a time in a process. */
#ifndef TESTS_MPI_GUARDED_H
#define TESTS_MPI_GUARDED_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "comm/transport.h"
#include "device/gradient.h"
#include "device/rows.h"

#define ARENA_BYTES ((size_t)1 << 30) /* of addresses; memory only where it is used */

static struct guarded {
    struct ls_device *cpu; /* that computes */
    char *arena;
    size_t used;
    int blocks, entered;
    struct ls_ledger ledger;
} guarded;

static inline void guarded_enter(void)
{
    if (guarded.entered++ == 0) mprotect(guarded.arena, ARENA_BYTES, PROT_READ | PROT_WRITE);
}

static inline void guarded_leave(void)
{
    if (--guarded.entered == 0) mprotect(guarded.arena, ARENA_BYTES, PROT_NONE);
}

static inline int guarded_ordinals(void)
{
    return 1;
}

static inline ls_status guarded_open(void **self, int ordinal, int threads)
{
    guarded = (struct guarded){.ledger = LS_LEDGER};
    LS_TRY(ls_device_open(&guarded.cpu, "cpu", ordinal, threads));
    guarded.arena =
        mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *self = guarded.cpu->self; /* so that operations find what they expect */
    return guarded.arena != MAP_FAILED ? LS_OK : ls_fail(LS_ENOMEM, "no addresses");
}

static inline void guarded_close(void *self)
{
    (void)self;
    munmap(guarded.arena, ARENA_BYTES);
    ls_device_close(guarded.cpu);
}

static inline void guarded_facts(struct ls_device_facts *out, void *self)
{
    (void)self;
    *out = guarded.cpu->facts;
}

/* ---- memory */

static inline ls_status guarded_alloc(void **out, void *self, ls_tag tag, size_t bytes)
{
    (void)self;
    if (guarded.used + bytes + 64 > ARENA_BYTES) return ls_fail(LS_ENOMEM, "the arena is full");
    *out = guarded.arena + guarded.used;
    guarded.used += (bytes + 64) / 64 * 64;
    guarded.blocks++;
    guarded_enter();
    memset(*out, 0xff, bytes); /* NaN */
    guarded_leave();
    return ls_ledger_enter(&guarded.ledger, *out, tag, bytes);
}

static inline void guarded_free(void *self, void *memory)
{
    (void)self;
    ls_ledger_leave(&guarded.ledger, memory);
    if (--guarded.blocks == 0) guarded.used = 0;
}

static inline void guarded_copy(void *self, void *to, const void *from, size_t bytes)
{
    (void)self;
    guarded_enter();
    if (bytes > 0) memcpy(to, from, bytes);
    guarded_leave();
}

static inline struct ls_ledger *guarded_ledger(void *self)
{
    (void)self;
    return &guarded.ledger;
}

static inline bool guarded_holds(void *self, const void *memory)
{
    (void)self;
    return (const char *)memory >= guarded.arena &&
           (const char *)memory < guarded.arena + ARENA_BYTES;
}

static const struct ls_memory_ops guarded_memory = {.alloc = guarded_alloc,
                                                    .free = guarded_free,
                                                    .write = guarded_copy,
                                                    .read = guarded_copy,
                                                    .ledger = guarded_ledger,
                                                    .holds = guarded_holds};

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
    static const struct ls_row_ops rows = {.copy = guarded_rows_copy,
                                           .zero = guarded_rows_zero,
                                           .add = guarded_rows_add,
                                           .round_sums = guarded_round_sums,
                                           .delta = guarded_delta,
                                           .sinks = guarded_sinks};
    struct ls_device *cpu, *device = NULL;

    if (ls_device_open(&cpu, "cpu", 0, 1) != LS_OK) return NULL;
    ops = *cpu->ops;
    attention = *ops.attention;
    gradient = *ops.gradient;
    ls_device_close(cpu);
    attention.attend = guarded_attend;
    attention.merge = guarded_merge;
    gradient.compute = guarded_gradient;
    ops.name = "guarded";
    ops.ordinals = guarded_ordinals;
    ops.open = guarded_open;
    ops.close = guarded_close;
    ops.facts = guarded_facts;
    ops.memory = &guarded_memory;
    ops.attention = &attention;
    ops.gradient = &gradient;
    ops.rows = &rows;
    ops.transport = guarded_transport;
    return ls_device_open_backend(&device, &ops, 0, threads) == LS_OK ? device : NULL;
}

#endif
