/* Attention that keeps its probabilities: the materialized core of Korthikanti et al. 2022. Of each
 * row of queries of a head, over the keys that it sees,
 *   S = scale q k^T    P = softmax(S)    D = dropout(P)    o = D v
 * P is rounded as it is kept, D is made of P as kept and rounded once more. Tensors are of one
 * type, f32 or bf16, q, d_o, o and dq [b, rows, h, d], k and v [b, s, h_kv, d], of any strides but
 * the last. Keys are all of the sequence, in the order of their positions; queries are the rows
 * that their runs say. Sums over keys or over queries follow the tree over leaves, so that a row's
 * bits depend on that row and on the keys, not on what rows are beside it, nor on threads. */
#ifndef LS_DEVICE_MATERIALIZED_H
#define LS_DEVICE_MATERIALIZED_H

#include <stdbool.h>

#include "device/device.h"
#include "tensor/row_runs.h"

struct ls_materialized_shape {
    ls_dtype type;
    int64_t b, h, h_kv, d; /* h_kv divides h */
    int64_t rows;          /* of queries, of each sequence */
    int64_t s;             /* keys */
    bool causal;           /* a query sees the keys up to its own position; else all */
    bool backward;         /* gradients too */
    float scale;
    float dropout;             /* 0 to below 1 */
    int64_t heads, first_head; /* all there are, and which of them is head 0, for dropout */
};

/* What is kept, [b, h, rows, s] each, contiguous; 0 where a key is not seen. Without dropout there
 * is softmax alone. */
struct ls_probabilities {
    void *softmax;
    uint8_t *mask; /* 1: kept, as ls_dropout_kept (tensor/scores.h) has it */
    void *dropped;
};

struct ls_materialized_forward {
    struct ls_tensor *o; /* NULL: not wanted */
    struct ls_probabilities kept;
    const struct ls_tensor *q, *k, *v;
    const struct ls_row_runs *runs; /* of the queries; each is a leaf. Of the host */
    uint64_t seed;                  /* of dropout */
};

/* With dD = d_o v^T and dP = dropout'(dD):
 *   dS = scale P (dP - sum of P dP)    dq = dS k    dk = dS^T q    dv = D^T d_o
 * dS is rounded to the type. dk and dv are sums over queries, of each query head by itself: number
 * i over those of runs [first[i], first[i + 1]). */
struct ls_materialized_backward {
    struct ls_tensor *dq;
    float *dk, *dv;       /* [sums][b, h, s, d] */
    const int64_t *first; /* [sums + 1], all runs one after the other. Of the host */
    int64_t sums;
    struct ls_probabilities kept;
    const struct ls_tensor *q, *k, *v, *d_o;
    const struct ls_row_runs *runs;
};

struct ls_materialized_kernel;

struct ls_materialized_ops {
    size_t (*bytes)(void *self, const struct ls_materialized_shape *shape);
    ls_status (*create)(struct ls_materialized_kernel **out, void *self,
                        const struct ls_materialized_shape *shape);
    void (*destroy)(struct ls_materialized_kernel *kernel);
    void (*forward)(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                    const struct ls_materialized_forward *call);
    void (*backward)(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                     const struct ls_materialized_backward *call);
};

/* Bytes of workspace that a kernel of this shape takes from the ledger; exact. */
size_t ls_materialized_kernel_bytes(const struct ls_device *device,
                                    const struct ls_materialized_shape *shape);

/* The caller destroys the kernel; destroy accepts NULL. Errors: LS_ENOMEM; LS_ETYPE for a type that
 * is neither bf16 nor f32. */
ls_status ls_materialized_kernel_create(struct ls_materialized_kernel **out,
                                        const struct ls_device *device,
                                        const struct ls_materialized_shape *shape);
void ls_materialized_kernel_destroy(const struct ls_device *device,
                                    struct ls_materialized_kernel *kernel);

/* 4 b h rows s d flop, half if causal; half again without o. Outputs overlap nothing. Allocates
 * nothing. Of finite k and v: a key that is not seen is multiplied by 0. */
void ls_materialized_forward(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                             const struct ls_materialized_forward *call);

/* 8 b h rows s d flop, half if causal. */
void ls_materialized_backward(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                              const struct ls_materialized_backward *call);

#endif
