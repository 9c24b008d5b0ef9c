/* What a device computes: a table of operations that a backend fills in, and the front that calls
 * it. A partial attention result is a value that can be merged: for each query row m,
 * the maximum of its scores or near it, from which exponents are counted (log2 units), sum l and
 * unnormalised accumulator acc [d], all f32; of an empty one m is -inf, l is 0 and acc anything. */
#ifndef LS_DEVICE_DEVICE_H
#define LS_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cpu.h"
#include "base/profile.h"
#include "base/progress.h"
#include "longspan/attention.h"
#include "tensor/mask.h"
#include "tensor/scores.h"

/* A leaf that is present in a tensor: its number in the whole sequence, its first row there. */
struct ls_leaf {
    int64_t number, row;
};

/* Leaves that are present, in the order of their numbers. */
struct ls_leaf_list {
    const struct ls_leaf *leaf;
    int64_t count;
};

/* Partial results of query rows: m, l [b, h, s_loc], acc [b, h, s_loc, d], contiguous. */
struct ls_row_states {
    float *m, *l, *acc;
};

/* So many queries of the heads that share a key, in the whole problem, are few: a device may have a
 * kernel of its own for them. The shape of a part says nothing, as a group of heads can be split.
 */
#define LS_FEW_ROWS 8

/* What an attention kernel is made for. */
struct ls_kernel_shape {
    struct ls_attention_shape global;
    struct ls_mask mask;
    struct ls_scores scores;
    ls_isa isa;
    int threads;
    int64_t k_leaves; /* the most that one call brings */
    bool few_rows;    /* of the whole problem: at most LS_FEW_ROWS queries meet each key */
    /* Exponents are counted from a row's own maximum in each leaf, which costs time on AMX:
     * rounding leaves the probability of a key that takes nearly all as it is, 1. Backward, whose
     * delta should be that of exact probabilities, wants it. */
    bool own_maximum;
    bool strict; /* a row's bits depend on what it is and sees, not on rows beside it */
};

/* What other calls found, which comes before or after everything so far in the tree. states may be
 * those that are written. */
struct ls_found {
    const struct ls_row_states *states;
    bool after;
};

/* The queries meet some of the keys. Rows of a leaf that reaches beyond the end of its sequence
 * are those before the end. */
struct ls_kernel_call {
    struct ls_tensor *o, *lse;    /* finished here; NULL: stay in states */
    struct ls_tensor *o_lo;       /* what rounding took from o; NULL: not wanted */
    struct ls_row_states *states; /* written, if o and lse are not given */
    const struct ls_found *found; /* merged with the result of these keys, one after the other */
    int found_count;
    const struct ls_tensor *q, *k, *v;
    struct ls_leaf_list q_leaves, k_leaves;
    struct ls_progress progress;
};

/* What one call did; seconds are summed over threads. */
struct ls_kernel_result {
    int64_t tiles;
    struct ls_profile profile;
};

struct ls_attention_kernel;

/* What a gradient kernel is made for. */
struct ls_gradient_shape {
    struct ls_kernel_shape attention;
    int64_t q_leaves; /* the most that one call brings */
};

/* The gradients of one meeting of queries and keys. Sums start from nothing and are written to rows
 * of the call's leaves alone: dq over the call's leaves of keys, dk and dv of each query head over
 * its leaves of queries, by the binary tree over the leaves' places in the lists. Head and row
 * strides are those of contiguous [b, h, s_loc, d]. */
struct ls_gradient_call {
    const struct ls_tensor *q, *d_o, *k, *v;
    const float *lse, *delta; /* [b, h, s_q_loc], lse the natural logarithm */
    struct ls_leaf_list q_leaves, k_leaves;
    bool same_queries; /* q, d_o, lse, delta and q_leaves: as in the kernel's last call, which
                          went well, and unchanged since */
    float *dq;         /* [b, h, s_q_loc, d] */
    float *dk, *dv;    /* [b, h, s_k_loc, d] */
    struct ls_progress progress;
};

struct ls_gradient_kernel;

struct ls_device_ops {
    const char *name;
    void (*library)(char *out, size_t length);
    /* threads that a kernel uses when the caller does not say */
    int (*threads)(void);
    ls_status (*gemm_rate)(double *gflops, ls_isa isa, ls_dtype type, int m, int n, int k,
                           int threads);
    ls_status (*read_rate)(double *gbs, size_t bytes, int threads);
    size_t (*kernel_bytes)(const struct ls_kernel_shape *shape);
    ls_status (*kernel_create)(struct ls_attention_kernel **out,
                               const struct ls_kernel_shape *shape);
    void (*kernel_destroy)(struct ls_attention_kernel *kernel);
    const char *(*kernel_name)(const struct ls_kernel_shape *shape);
    ls_status (*attend)(struct ls_kernel_result *out, struct ls_attention_kernel *kernel,
                        const struct ls_kernel_call *call);
    void (*merge)(struct ls_attention_kernel *kernel, struct ls_row_states into,
                  struct ls_row_states from, int64_t rows);
    bool (*canonical)(const struct ls_attention_kernel *kernel);

    const char *(*gradient_name)(const struct ls_kernel_shape *attention);
    size_t (*gradient_bytes)(const struct ls_gradient_shape *shape);
    ls_status (*gradient_create)(struct ls_gradient_kernel **out,
                                 const struct ls_gradient_shape *shape);
    void (*gradient_destroy)(struct ls_gradient_kernel *kernel);
    ls_status (*gradient)(struct ls_kernel_result *out, struct ls_gradient_kernel *kernel,
                          const struct ls_gradient_call *call);
    void (*delta)(float *delta, const struct ls_tensor *d_o, const struct ls_tensor *o,
                  const struct ls_tensor *o_lo, const struct ls_tensor *dlse, int threads);
    void (*copy)(struct ls_tensor *to, const struct ls_tensor *from, int threads);
    void (*zero)(struct ls_tensor *t, int threads);
    void (*add)(float *into, const float *from, int64_t n, int threads);
    void (*round_sums)(struct ls_tensor *out, const float *a, const float *b, int64_t group,
                       int threads);
};

/* A backend and the instruction set that it is to use. A value; nothing to free. */
struct ls_device {
    const struct ls_device_ops *ops;
    ls_isa isa;
};

/* Errors: LS_EVALUE for an unknown name ("cpu" is the one there is) or a bad LONGSPAN_ISA. */
ls_status ls_device_find(struct ls_device *out, const char *name);

/* Name of the instruction set in use. */
const char *ls_device_isa(const struct ls_device *device);

/* The library that multiplies and its version: "oneDNN 2.6.3". */
void ls_device_library(char *out, size_t length, const struct ls_device *device);

/* Threads that a kernel uses when nobody says how many. */
int ls_device_threads(const struct ls_device *device);

/* GF/s that `threads` independent products [m, k] x [k, n] of this type reach together, operands
 * in cache; the practical ceiling of anything built from such products. Takes about 0.2 s.
 * Errors: LS_ETYPE if the device cannot multiply this type; LS_EINTERNAL. */
ls_status ls_device_gemm_rate(double *gflops, const struct ls_device *device, ls_dtype type, int m,
                              int n, int k, int threads);

/* GB/s at which so many threads together read their shares of `bytes` of memory, the best of
 * several times; the practical ceiling where few queries meet many keys. Errors: LS_ENOMEM. */
ls_status ls_device_read_rate(double *gbs, const struct ls_device *device, size_t bytes,
                              int threads);

/* Bytes of workspace that a kernel of this shape takes from the ledger; exact. shape->isa is
 * filled in by the device. */
size_t ls_device_kernel_bytes(const struct ls_device *device, struct ls_kernel_shape shape);

/* What kernels of this shape multiply with, forward and backward, on this machine; static. */
const char *ls_device_kernel_name(const struct ls_device *device, struct ls_kernel_shape shape);
const char *ls_device_gradient_name(const struct ls_device *device, struct ls_kernel_shape shape);

/* Packs, multiplies and merges on shape.threads threads. The caller destroys the kernel.
 * Errors: LS_ENOMEM, LS_EINTERNAL. */
ls_status ls_attention_kernel_create(struct ls_attention_kernel **out,
                                     const struct ls_device *device, struct ls_kernel_shape shape);
void ls_attention_kernel_destroy(const struct ls_device *device,
                                 struct ls_attention_kernel *kernel);

/* Computes call; adds to *result. Allocates nothing. Errors: LS_EINTERNAL. */
ls_status ls_attention_kernel_attend(struct ls_kernel_result *result,
                                     const struct ls_device *device,
                                     struct ls_attention_kernel *kernel,
                                     const struct ls_kernel_call *call);

/* into = the merge of into and from, which comes after it in the tree; `rows` rows of all heads
 * together. */
void ls_attention_kernel_merge(const struct ls_device *device, struct ls_attention_kernel *kernel,
                               struct ls_row_states into, struct ls_row_states from, int64_t rows);

/* Whether a strict kernel found that its products depend on a row's place, so that every row has
 * to have its own. */
bool ls_attention_kernel_is_canonical(const struct ls_device *device,
                                      const struct ls_attention_kernel *kernel);

/* Bytes of workspace that a gradient kernel of this shape takes from the ledger; exact. */
size_t ls_device_gradient_bytes(const struct ls_device *device, struct ls_gradient_shape shape);

/* The caller destroys the kernel. Errors: LS_ENOMEM, LS_EINTERNAL. */
ls_status ls_gradient_kernel_create(struct ls_gradient_kernel **out, const struct ls_device *device,
                                    struct ls_gradient_shape shape);
void ls_gradient_kernel_destroy(const struct ls_device *device, struct ls_gradient_kernel *kernel);

/* Computes call; adds to *result. Allocates nothing. Errors: LS_EINTERNAL. */
ls_status ls_gradient_kernel_compute(struct ls_kernel_result *result,
                                     const struct ls_device *device,
                                     struct ls_gradient_kernel *kernel,
                                     const struct ls_gradient_call *call);

/* delta [b, h, s] = sum_e d_o (o + o_lo) - dlse; o_lo and dlse may be NULL. */
void ls_device_delta(const struct ls_device *device, float *delta, const struct ls_tensor *d_o,
                     const struct ls_tensor *o, const struct ls_tensor *o_lo,
                     const struct ls_tensor *dlse, int threads);

/* to = from, two tensors of one shape and type that do not overlap, and t = 0. Any strides of all
 * dimensions but the last, whose elements follow each other. */
void ls_device_copy(const struct ls_device *device, struct ls_tensor *to,
                    const struct ls_tensor *from, int threads);
void ls_device_zero(const struct ls_device *device, struct ls_tensor *t, int threads);

/* into [n] += from [n] */
void ls_device_add(const struct ls_device *device, float *into, const float *from, int64_t n,
                   int threads);

/* out [b, s, heads, d], rounded once = a + b, both [b, heads x group, s, d], each group of heads
 * added by the binary tree over its heads; zeroes are positive. b may be NULL. */
void ls_device_round_sums(const struct ls_device *device, struct ls_tensor *out, const float *a,
                          const float *b, int64_t group, int threads);

#endif
