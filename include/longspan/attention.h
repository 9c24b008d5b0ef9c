/* Exact attention over a sequence that is split over ranks. */
#ifndef LONGSPAN_ATTENTION_H
#define LONGSPAN_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>

#include "longspan/comm.h"
#include "longspan/device.h"
#include "longspan/layout.h"
#include "longspan/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LS_MAX_HEAD_DIM 576
#define LS_MOST_THREADS 4096
#define LS_NO_LIMIT INT64_MAX
#define LS_SCALE_BYTES 4 /* behind each row of 8-bit keys or values, an f32 */

/* Global sizes: b batch, s_q queries, s_k keys, h query heads, h_kv key/value heads (divides h),
 * d head dimension of q and k, d_v that of v and o (each 1 to 576; d_v 0: d); type of q, k, v and
 * o: f32, bf16 or f16. */
struct ls_attention_shape {
    int64_t b, h, h_kv, s_q, s_k, d;
    ls_dtype type;
    int64_t d_v;
    /* LS_I8 or LS_E4M3: keys and values of 8 bits, see longspan/quantize.h; 0: they are of that
     * type */
    ls_dtype kv_type;
};

/* What queries [q0, q1) see of keys [k0, k1). */
typedef enum {
    LS_SLICE_FULL,
    LS_SLICE_CAUSAL,         /* j <= i + k1 - q1: the last query sees up to the last key */
    LS_SLICE_INVERSE_CAUSAL, /* j >= i + k0 - q0: the first query sees from the first key on */
    LS_SLICE_BOTH,           /* what is in both */
} ls_slice_type;

struct ls_slice {
    int64_t q0, q1, k0, k1;
    int64_t type; /* an ls_slice_type */
};

/* The same on every rank, but for threads, q_rows and k_rows; values of sinks and of biases are
 * not compared. */
struct ls_attention_options {
    size_t size;           /* of this struct; LS_ATTENTION_OPTIONS sets it */
    const char *method;    /* a name of the table of methods; NULL: choose */
    ls_layout_kind layout; /* LS_LAYOUT_AUTO: the best for method and mask */
    bool causal;           /* key j is visible to query i iff j <= i + s_k - s_q */
    bool has_scale;        /* false: scale is 1/sqrt(d) */
    float scale;
    int threads; /* OpenMP threads of this rank, at most 4096; 0: as many as OpenMP would use, and
                  * as a control group has processor time for; without a device */
    bool strict; /* the same bits for any number of ranks, threads, method and layout */

    /* Which keys a query sees, besides `causal`. Query i stands at i' = i + s_k - s_q among the
     * keys; positions are of the whole sequence. */
    int64_t query_offset;  /* of has_query_offset, at most 2^60 either way */
    bool has_query_offset; /* i' = i + query_offset */
    bool align_start;      /* i' = i; not with an offset */
    /* i' - window_left <= j <= i' + window_right; sides are 0 to 2^60, or LS_NO_LIMIT */
    bool has_window;
    int64_t window_left, window_right;
    int64_t prefix; /* the first keys, which everybody sees whatever else is asked for */
    /* i' and j are in the same document: cumulative lengths [document_count + 1], first 0, last
     * s_k; NULL: one document. Read while the plan is made. */
    const int64_t *documents;
    int64_t document_count;

    /* Tensor parallelism: the plan's heads are heads [first_head, first_head + h) of total_heads,
     * which share total_kv_heads key/value heads. Dropout, slopes, sinks, biases, pairs and the
     * choice of kernels follow a head's number among all, so that strict results of some have the
     * bits of all. Both totals 0: there are no others; total_kv_heads 0: heads share as those of
     * the plan do. */
    int64_t first_head, total_heads, total_kv_heads;

    /* From scale q.k to a logit; arrays [total_heads], of which the plan's heads are read, are
     * borrowed for the plan's life. */
    float soft_cap;     /* c tanh(x / c); 0: none */
    const float *alibi; /* slopes: slope |i' - j| is taken off; NULL: none */
    const float *sinks; /* one more logit of each head in the denominator, which lse includes, read
                         * in every execution; NULL: none */
    float dropout;      /* the part of the probabilities that is dropped, 0 to below 1 */
    uint64_t dropout_seed; /* of executions that bring none */

    bool backward; /* the plan can do ls_attention_backward */

    /* Whether this rank has rows of its own rather than the layouts' parts: so many queries and so
     * many keys, any number, that follow those of the ranks before it; on all ranks or on none. */
    bool has_rows;
    int64_t q_rows, k_rows;

    int node_size; /* so many ranks after each other count as a node; 0: those that share one */

    /* Of the method usp: so many ranks swap the sequence for heads, so many make a ring; their
     * product is the number of ranks. Both 0: the most even that fits. */
    int grid_heads, grid_ring;
    bool ring_inside; /* ranks of a ring follow each other, not those that swap */

    /* What computes, and in whose memory the tensors are; borrowed for the plan's life. NULL: the
     * plan opens the CPU with `threads`. */
    struct ls_device *device;

    /* Of all that is visible by the rest only the pairs that are in one of these are, by positions
     * i and j as they are; no pair may be in two. [slice_count], in any order; NULL: all pairs.
     * Read while the plan is made. */
    const struct ls_slice *slices;
    int64_t slice_count;

    /* So many queries, and keys, of each entry of the batch are there, [b]: the first ones or, with
     * pad_left, the last. What the others are reaches nobody; their o is 0, their lse -inf (also
     * with a sink), their gradients are 0. Places among the keys, documents and the prefix count
     * from the first one that is there, the last query stands at the last key that is. NULL: all
     * are there. Read while the plan is made, as are the next. */
    const int64_t *q_lengths, *k_lengths;
    bool pad_left;
    /* Documents of queries, as many as of keys (`documents`, whose last then may be less than s_k):
     * each sees the one of the same number, and i' is such that its last query stands at its last
     * key or, with align_start or an offset, as that says of its first ones. NULL: those of keys,
     * by i'. */
    const int64_t *q_documents;
    bool documents_per_entry; /* lists of documents are [b][document_count + 1] */

    /* Of all that is visible by the rest only the pairs whose bit is set: that of query i and key j
     * is bit j % 8, lowest first, of byte j / 8 of row i, rows are (s_k + 7) / 8 bytes long;
     * [s_q] rows, for each entry of the batch, [b], and each of all heads, [total_heads], if these
     * have masks of their own. NULL: all pairs. Borrowed for the plan's life. */
    const uint8_t *pair_bits;
    bool pairs_per_entry, pairs_per_head;

    /* A bias by distance, [total_heads][distances], an odd number below 2^24: the logit of query i
     * and key j, after scale and soft cap, gets the one in the middle if j = i', the next for each
     * key further on, and the last one beyond those; before it in the same way. NULL: none.
     * Borrowed for the plan's life, read in every execution. */
    const float *distance_bias;
    int64_t distances;

    /* A bias for each pair, of query i and key j at i s_k + j of [s_q][s_k]; for each entry of the
     * batch, [b], and each of all heads, [total_heads], if these have biases of their own. Added
     * after scale and soft cap; -inf: the key is not seen, though what its v holds should be finite
     * (pair_bits keep anything away). Each rank reads of it the pairs that meet there. NULL: none.
     * Borrowed for the plan's life, read in every execution, of the host or any memory that the
     * device reads. */
    const float *bias;
    bool bias_per_entry, bias_per_head;
};

#define LS_ATTENTION_OPTIONS                                                                       \
    {                                                                                              \
        .size = sizeof(struct ls_attention_options)                                                \
    }

/* What may change from one execution to the next; zeros, and NULL instead of all of it, are the
 * plan's. The same on every rank, and backward gets what forward got. Strict results have the bits
 * of a plan that was made with these values. */
struct ls_attention_execution {
    size_t size; /* of this struct; LS_ATTENTION_EXECUTION sets it */
    bool has_dropout_seed;
    uint64_t dropout_seed;
    /* As in the options; read during the call. Layout and schedule stay the plan's: a plan of
     * method halo, or with layout balanced that LS_LAYOUT_AUTO became, takes no others than its
     * own. */
    const int64_t *documents;
    int64_t document_count;
    /* Sequences of at most the plan's lengths, at the beginning of tensors that stay as long as
     * planned. What q, k, v and d_o have in rows behind the end reaches nobody; there o = 0,
     * lse = -inf (also with a sink) and gradients are 0. Queries stand among the keys as in a plan
     * of these lengths, which a plan of method halo takes only where that is as planned; the plan's
     * documents and prefix end with the keys. A plan with q_lengths or k_lengths takes none. Strict
     * results have the bits of a plan with the same fingerprint: that of a few queries can be
     * another one. */
    bool has_lengths;
    int64_t s_q, s_k;
    /* What was taken out of 8-bit keys before they were rounded, [b, h_kv, d] of the host, and
     * comes back to their logits: lse is that of the whole keys. Read during the call. NULL:
     * nothing. */
    const float *key_mean;
};

#define LS_ATTENTION_EXECUTION                                                                     \
    {                                                                                              \
        .size = sizeof(struct ls_attention_execution)                                              \
    }

struct ls_attention_plan;

/* What an execution did on this rank. */
struct ls_attention_work {
    int64_t tiles_computed; /* with at least one visible pair */
    int64_t bytes_sent;
    double exposed_comm_seconds; /* spent waiting for communication */
    /* where this rank's threads spent their time, summed over them: bringing operands into the
     * kernels' order, tiles, merging partial results across threads, finishing */
    double pack_seconds, tile_seconds, merge_seconds, finish_seconds;
};

/* What a plan is, and what its last executions did; zeros before them. Strings are static, but for
 * the plan's own fingerprint. */
struct ls_attention_report {
    const char *method;
    const char *why; /* why this method: "asked for", or the rule that chose it */
    ls_layout_kind layout;
    const char *isa;    /* instruction set of the kernels */
    const char *kernel; /* name of the kernel that computes the tiles */
    bool strict;
    const char *fingerprint; /* results of strict plans with the same one have the same bits */
    int threads;
    int tile_q, tile_k; /* rows and keys of a tile */
    struct ls_attention_work forward, backward;
};

/* Predicted, exact: the memory ledger and the counters of bytes and messages will show the same. */
struct ls_cost {
    double flops;           /* all ranks: 2 (d + d_v) per visible pair and query head */
    double flops_most;      /* of the rank that has most to compute */
    int64_t call_rows;      /* the most query rows that meet keys which are packed once */
    int64_t bytes_sent;     /* all ranks */
    int64_t messages;       /* all ranks */
    size_t workspace_bytes; /* largest of the ranks */
    size_t comm_bytes;      /* largest of the ranks */
    /* largest of the ranks: callers' own rows in the layouts' parts, and on their way */
    size_t activation_bytes;
    int64_t tiles; /* all ranks; more if a strict kernel keeps rows in place */

    /* of a plan that is for backward as well, whose workspace and buffers are counted above */
    size_t gradient_bytes;       /* largest of the ranks */
    int64_t backward_bytes_sent; /* all ranks */
    int64_t backward_messages;   /* all ranks */
    /* what forward_residual sends besides, all ranks */
    int64_t residual_bytes_sent, residual_messages;
    /* what a backward that gives dbias sends besides, all ranks */
    int64_t bias_bytes_sent, bias_messages;
};

/* What a plan on so many ranks would be and take. */
struct ls_attention_prediction {
    const char *method, *why;            /* static; as in the report */
    struct ls_layout q_layout, k_layout; /* as long as the prediction */
    struct ls_cost cost;
};

/* From the shape alone: without a plan or ranks, nothing is communicated. A node size of 0 means
 * that ranks do not share nodes evenly. What bringing callers' own rows costs is left out: it
 * depends on those of all ranks. The caller destroys the prediction.
 * Errors: as ls_attention_plan_create, but for what takes ranks to see; LS_EFIT of a method that is
 * asked for has the reason as its message. */
LS_API ls_status ls_attention_predict(struct ls_attention_prediction **out,
                                      const struct ls_attention_shape *shape,
                                      const struct ls_attention_options *options, int ranks);

/* Accepts NULL. */
LS_API void ls_attention_prediction_destroy(struct ls_attention_prediction *prediction);

/* Makes everything an execution needs: workspaces, kernels, buffers, an own duplicate of comm.
 * Collective over comm. Errors: LS_ESHAPE, LS_ETYPE, LS_EVALUE, LS_EFIT (the method cannot; the
 * message says why), LS_ENOMEM; the same on every rank. The caller destroys the plan. */
LS_API ls_status ls_attention_plan_create(struct ls_attention_plan **out, struct ls_comm *comm,
                                          const struct ls_attention_shape *shape,
                                          const struct ls_attention_options *options);

/* Collective, but after LS_ECOMM, when it waits for nobody. Accepts NULL. */
LS_API void ls_attention_plan_destroy(struct ls_attention_plan *plan);

/* How the plan cuts queries and keys: rank's part is the rows a call of forward expects, but with
 * options.has_rows, which leaves the layouts to the plan. */
LS_API struct ls_layout ls_attention_plan_query_layout(const struct ls_attention_plan *plan);
LS_API struct ls_layout ls_attention_plan_key_layout(const struct ls_attention_plan *plan);

/* Attention of this rank's queries over the whole sequence; execution may be NULL.
 *   o    [b, s_q_loc, h, d_v]   storage type     lse [b, h, s_q_loc] f32, natural logarithm
 *   q    [b, s_q_loc, h, d]     k [b, s_k_loc, h_kv, d], v [b, s_k_loc, h_kv, d_v], this rank's
 *                               parts of the layouts, or its own options.q_rows and options.k_rows;
 *                               d and d_v + LS_SCALE_BYTES of them where kv_type is 8 bits
 * Own rows are brought to the layouts' parts first, and o and lse back in the end, each by one
 * all-to-all; a rank whose own rows are its parts exchanges nothing for that and copies nothing.
 * A row that sees no key gives o = 0, lse = -inf.
 * Outputs have memory of their own: a byte of theirs that another row or an input has as well is
 * found (LS_EVALUE), however strides interleave them; views of one packed buffer share none. Inputs
 * may overlap, and have strides of 0. The data of a tensor without rows may be NULL.
 * Weighted sums of v are f32 and divided last: |v| times the number of keys, over 1 - dropout, has
 * to stay below 3.4e38. Larger values may make infinity or NaN of o, which is no error.
 * Collective over the plan's ranks. The hot path allocates nothing.
 * Errors: LS_ESHAPE, LS_ETYPE, LS_EVALUE, LS_EFIT (before anything is written, on every rank);
 * LS_EINTERNAL, LS_ECOMM, after which o and lse are undefined. */
LS_API ls_status ls_attention_forward(struct ls_tensor *o, struct ls_tensor *lse,
                                      struct ls_attention_plan *plan, const struct ls_tensor *q,
                                      const struct ls_tensor *k, const struct ls_tensor *v,
                                      const struct ls_attention_execution *execution);

/* The same, and o_lo: what rounding took from o, in o's type and shape, so that o + o_lo has twice
 * the digits; NULL: not wanted. Backward wants it where gradients are to keep the contract for
 * large logits or values that have a mean. Needs a plan made with options.backward (LS_EVALUE). */
LS_API ls_status ls_attention_forward_residual(struct ls_tensor *o, struct ls_tensor *o_lo,
                                               struct ls_tensor *lse,
                                               struct ls_attention_plan *plan,
                                               const struct ls_tensor *q, const struct ls_tensor *k,
                                               const struct ls_tensor *v,
                                               const struct ls_attention_execution *execution);

/* What backward starts from: the inputs and results of forward, this rank's parts, and d_o, the
 * gradient of o, in o's type and shape. */
struct ls_attention_saved {
    const struct ls_tensor *q, *k, *v, *o, *lse, *d_o;
    const struct ls_tensor *o_lo; /* NULL: o is all there is */
    const struct ls_tensor *dlse; /* gradient of lse, f32, lse's shape; NULL: 0 */
};

/* What backward gives: in type and shape of q, k and v; rounded once from sums in f32. */
struct ls_attention_gradients {
    struct ls_tensor *dq, *dk, *dv;
    struct ls_tensor *dsinks; /* f32 [h], the same on every rank; NULL: not wanted */
    /* f32 [h, distances], the same on every rank, and the same bits whatever the method
     * and the number of ranks if strict; NULL: not wanted */
    struct ls_tensor *ddistance_bias;
    /* f32 [b, h, s_q_loc, s_k], b and h 1 where entries or heads share a bias: of this rank's
     * queries, the sum over all who share it; 0 where nobody sees the pair. The same bits whatever
     * the method and the number of ranks if strict. NULL: not wanted */
    struct ls_tensor *dbias;
};

/* Gradients of this rank's parts, or of its own rows. Needs a plan made with options.backward.
 * Outputs have memory of their own, as forward's. Collective over the plan's ranks. The hot path
 * allocates nothing.
 * o_lo, dlse, dsinks, ddistance_bias and dbias are given on all ranks or on none. For dbias, keys
 * and values travel once more, and two of backward's five products are done again.
 * Errors: LS_EVALUE (also a plan for forward alone), LS_ESHAPE, LS_ETYPE, LS_EFIT (before anything
 * is written, on every rank); LS_EINTERNAL, LS_ECOMM, after which the outputs are undefined.
 * Source: Dao 2023 (FlashAttention-2, section 3.1.2). */
LS_API ls_status ls_attention_backward(const struct ls_attention_gradients *out,
                                       struct ls_attention_plan *plan,
                                       const struct ls_attention_saved *saved,
                                       const struct ls_attention_execution *execution);

/* Describes the plan and, after an execution, what that did on this rank. */
LS_API void ls_attention_plan_describe(struct ls_attention_report *out,
                                       const struct ls_attention_plan *plan);

#ifdef __cplusplus
}
#endif
#endif
