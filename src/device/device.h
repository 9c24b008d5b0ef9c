/* A device: memory, a queue and operations in families, each a table of its own that a backend
 * fills in. What a backend has no table for, it cannot do. */
#ifndef LS_DEVICE_DEVICE_H
#define LS_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ledger.h"
#include "base/profile.h"
#include "base/progress.h"
#include "longspan/device.h"
#include "longspan/tensor.h"

struct ls_comm;
struct ls_queue;
struct ls_traffic;
struct ls_transport;

/* What a backend says of an opened device. */
struct ls_device_facts {
    int threads;      /* that its kernels use */
    const char *isa;  /* the instruction set of its kernels; static */
    char library[64]; /* what multiplies, and its version: "oneDNN 2.6.3" */
};

struct ls_memory_ops {
    ls_status (*alloc)(void **out, void *self, ls_tag tag, size_t bytes);
    void (*free)(void *self, void *memory);
    void (*write)(void *self, void *to, const void *host, size_t bytes);
    void (*read)(void *self, void *host, const void *from, size_t bytes);
    struct ls_ledger *(*ledger)(void *self);
    /* whether this is memory of the device; NULL: of any memory that the host has */
    bool (*holds)(void *self, const void *memory);
};

struct ls_queue_ops {
    /* waits for what was put into the queue, and adds to its work */
    ls_status (*finish)(struct ls_queue *queue);
};

struct ls_device_ops {
    const char *name;
    int (*ordinals)(void); /* how many there are */
    ls_status (*open)(void **self, int ordinal, int threads);
    void (*close)(void *self);
    void (*facts)(struct ls_device_facts *out, void *self);
    const struct ls_memory_ops *memory;
    const struct ls_queue_ops *queue;
    const struct ls_attention_ops *attention;
    const struct ls_gradient_ops *gradient;
    const struct ls_bias_gradient_ops *bias_gradient;
    const struct ls_linear_ops *linear;
    const struct ls_materialized_ops *materialized;
    const struct ls_row_ops *rows;
    const struct ls_norm_ops *norm;
    const struct ls_pointwise_ops *pointwise;
    const struct ls_quantize_ops *quantize;
    const struct ls_rate_ops *rates;
    /* bulk data between the memories of these devices, ordered by the queue (transport.h); NULL:
     * they are the host's own */
    struct ls_transport (*transport)(void *self, const struct ls_comm *comm,
                                     struct ls_traffic *traffic);
};

/* What operations did. */
struct ls_work {
    int64_t tiles;
    struct ls_profile profile; /* seconds are summed over threads */
};

/* Operations go into a queue and are done in their order. Those behind one that failed are left
 * out. */
struct ls_queue {
    struct ls_device *device;
    struct ls_progress progress; /* what operations call while they work */
    struct ls_work work;         /* since the last finish */
    ls_status status;            /* the first failure since then */
    char message[256];
};

struct ls_device {
    const struct ls_device_ops *ops;
    void *self; /* the backend's */
    struct ls_device_facts facts;
    struct ls_queue queue;
};

/* For tests: a device of a backend that src/backends.c does not list. */
ls_status ls_device_open_backend(struct ls_device **out, const struct ls_device_ops *ops,
                                 int ordinal, int threads);

/* ---- memory, counted on the device's ledger */

/* *out: uninitialised, aligned to 64 bytes; freed by ls_device_free, which accepts NULL.
 * Errors: LS_ENOMEM. */
ls_status ls_device_alloc(void **out, struct ls_device *device, ls_tag tag, size_t bytes);
void ls_device_free(struct ls_device *device, void *memory);

/* Between memory of the device and of the host, when the queue is empty. */
void ls_device_write(struct ls_device *device, void *to, const void *host, size_t bytes);
void ls_device_read(struct ls_device *device, void *host, const void *from, size_t bytes);

struct ls_ledger *ls_device_ledger(struct ls_device *device);

/* Whether operations of the device may work on this memory, as far as can be told. */
bool ls_device_holds(const struct ls_device *device, const void *memory);

/* ---- queue */

/* Waits until all that was put in is done; adds to *out (may be NULL) what was done since the last
 * time. Errors: the first failure of an operation since then. */
ls_status ls_queue_finish(struct ls_work *out, struct ls_queue *queue);

/* For the fronts of families: whether operations are still done, and what became of one. */
bool ls_queue_is_open(const struct ls_queue *queue);
void ls_queue_note(struct ls_queue *queue, ls_status status);

/* ---- rates */

struct ls_rate_ops {
    ls_status (*gemm)(double *gflops, void *self, ls_dtype type, int m, int n, int k);
    ls_status (*read)(double *gbs, void *self, size_t bytes);
};

/* GF/s that independent products [m, k] x [k, n] of this type, one a thread, reach together,
 * operands in cache; the practical ceiling of anything built from such products. Takes about 0.2 s.
 * Errors: LS_ETYPE if the device cannot multiply this type; LS_EINTERNAL. */
ls_status ls_device_gemm_rate(double *gflops, struct ls_device *device, ls_dtype type, int m, int n,
                              int k);

/* GB/s at which all threads together read their shares of `bytes` of memory, the best of several
 * times; the practical ceiling where few queries meet many keys. Errors: LS_ENOMEM. */
ls_status ls_device_read_rate(double *gbs, struct ls_device *device, size_t bytes);

#endif
