/* A transformer layer, forward and backward, over a grid of ranks. */
#ifndef LONGSPAN_LAYER_H
#define LONGSPAN_LAYER_H

#include "longspan/activation.h"
#include "longspan/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { LS_NORM_LAYER, LS_NORM_RMS } ls_norm_kind;

/* How attention between the projections is computed: by tiles, of which o and lse are kept, or with
 * all its probabilities in memory, where backward finds them. */
typedef enum { LS_CORE_FUSED, LS_CORE_MATERIALIZED } ls_core_kind;

/* Global sizes: b sequences of s tokens, e width, h query heads of d numbers, h_kv key/value heads
 * (divides h), f width of the MLP; type of weights and activations: f32 or bf16. */
struct ls_layer_shape {
    int64_t b, s, e, h, h_kv, d, f;
    ls_dtype type;
};

/* The same on every rank, but for the device's threads. */
struct ls_layer_options {
    size_t size; /* of this struct; LS_LAYER_OPTIONS sets it */

    /* What is computed. With norms before the blocks
     *   x2 = x + dropout(attention(norm1(x)))    y = x2 + dropout(mlp(norm2(x2)))
     * and with norms behind them
     *   x1 = norm1(x + dropout(attention(x)))    y = norm2(x1 + dropout(mlp(x1)))
     * and in parallel, of one norm before both,
     *   n = norm1(x)    y = x + dropout(attention(n)) + dropout(mlp(n)). */
    ls_norm_kind norm;
    ls_activation activation;
    bool post_norm;
    bool parallel; /* not with post_norm */
    bool no_bias;  /* of linears; a LayerNorm has one */
    bool causal;
    float epsilon;    /* of norms; 0: 1e-5 */
    float rope_theta; /* base of rotary positions over all of d; 0: there are none */
    float dropout;    /* behind both blocks and of attention's probabilities, 0 to below 1 */

    /* How. t x c ranks: rank i is number i % t of the i / t-th group of tensor-parallel ranks. */
    int tp, cp; /* 0: 1 */
    bool sp;    /* sequence parallelism */
    ls_core_kind core;
    const char *method;       /* of a fused core; NULL: choose */
    ls_layout_kind layout;    /* how the sequence is dealt to context-parallel ranks; balanced is of
                               * a fused core */
    bool strict;              /* for one tp: the same bits for any cp, method, layout, threads and
                               * recomputation, with sequence parallelism and without */
    const char *recompute;    /* of states that do not say otherwise: none, selective, full, or some
                               * of core, norm, activation, mlp, qkv, dropout, with commas; NULL:
                               * none */
    struct ls_device *device; /* in whose memory all tensors are; borrowed */
};

#define LS_LAYER_OPTIONS                                                                           \
    {                                                                                              \
        .size = sizeof(struct ls_layer_options)                                                    \
    }

/* This rank's share. Linears are [out, in]. Tensor-parallel ranks have runs of h / t query heads,
 * of h_kv / t key/value heads and of f / t columns: t divides all three. Or t is a multiple of
 * h_kv: then t / h_kv ranks that follow each other have the same key/value head, and to gradients
 * of its parameters the same is added on all of them. NULL where there are none. */
struct ls_layer_parameters {
    struct ls_tensor *norm1, *norm1_bias; /* [e] */
    /* [(h / t + 2 max(h_kv / t, 1)) d, e]: q heads, k heads, v heads */
    struct ls_tensor *qkv;
    struct ls_tensor *qkv_bias;
    struct ls_tensor *out;                /* [e, h d / t] */
    struct ls_tensor *out_bias;           /* [e], the same on all of a group's ranks */
    struct ls_tensor *norm2, *norm2_bias; /* not in parallel */
    struct ls_tensor *up; /* [f / t, e]; SwiGLU: [2 f / t, e], gate and then value */
    struct ls_tensor *up_bias;
    struct ls_tensor *down;      /* [e, f / t] */
    struct ls_tensor *down_bias; /* [e], as out_bias */
};

struct ls_layer_plan;
struct ls_layer_state;

/* A plan serves all layers of one shape. Collective over comm. The caller destroys it, after its
 * states. Errors: LS_EVALUE, LS_ESHAPE, LS_ETYPE, LS_EFIT, LS_ENOMEM, LS_ECOMM; the same on every
 * rank. */
LS_API ls_status ls_layer_plan_create(struct ls_layer_plan **out, struct ls_comm *comm,
                                      const struct ls_layer_shape *shape,
                                      const struct ls_layer_options *options);

/* Collective, but after LS_ECOMM. Accepts NULL. */
LS_API void ls_layer_plan_destroy(struct ls_layer_plan *plan);

/* Rows of each sequence that this rank has of x and y, [b, rows, e], and where in the sequence row
 * i stands. */
LS_API int64_t ls_layer_rows(const struct ls_layer_plan *plan);
LS_API int64_t ls_layer_position(const struct ls_layer_plan *plan, int64_t row);

/* What one layer keeps between forward and backward, but for the pieces that are computed again, on
 * the device's ledger as activations. `recompute`, as in options, is this layer's, the same on
 * every rank; NULL: the plan's. All layers bring back what they did not keep in one memory of the
 * plan, which grows when a state wants more. The caller destroys it. Errors: LS_EVALUE, LS_ENOMEM.
 */
LS_API ls_status ls_layer_state_create(struct ls_layer_state **out, struct ls_layer_plan *plan,
                                       const char *recompute);
LS_API void ls_layer_state_destroy(struct ls_layer_state *state);

/* y = the layer of x, both [b, rows, e], contiguous; y is written, x is copied. `seed` is that of
 * dropout, the same on every rank: another one for each layer and step. Collective. Errors:
 * LS_ESHAPE, LS_ETYPE, LS_EVALUE (before anything is written, on every rank), LS_EINTERNAL,
 * LS_ECOMM. Source: Korthikanti et al. 2022, section 4. */
LS_API ls_status ls_layer_forward(struct ls_tensor *y, struct ls_layer_plan *plan,
                                  struct ls_layer_state *state,
                                  const struct ls_layer_parameters *parameters,
                                  const struct ls_tensor *x, uint64_t seed);

/* dx, like x, is written. Gradients are f32 tensors of the parameters' shapes, to which what this
 * step gives is added, summed over all ranks that have the same parameter. The state is of the
 * forward that came last. Errors: as forward's. */
LS_API ls_status ls_layer_backward(struct ls_tensor *dx,
                                   const struct ls_layer_parameters *gradients,
                                   struct ls_layer_plan *plan, struct ls_layer_state *state,
                                   const struct ls_layer_parameters *parameters,
                                   const struct ls_tensor *dy);

/* Bytes that this rank has sent since the plan was made. */
LS_API int64_t ls_layer_bytes_sent(const struct ls_layer_plan *plan);

#ifdef __cplusplus
}
#endif
#endif
