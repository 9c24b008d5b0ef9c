/* What a layer's plan and states hold. */
#ifndef LS_LAYER_PLAN_H
#define LS_LAYER_PLAN_H

#include "attention/fingerprint.h"
#include "device/linear.h"
#include "device/pointwise.h"
#include "layer/exchange.h"
#include "layer/vectors.h"
#include "layer/weights.h"
#include "longspan/layer.h"
#include "plan/memory.h"

/* Tensors of the storage type that live within one call. Those of rows inside are [b, rows, ..], of
 * rows outside [b, outer rows, e]. */
typedef enum {
    LS_WORK_GATHERED, /* [e] inputs of column-parallel linears, inside; forward, also of the parts
                       * that row-parallel ones give, those that others send */
    LS_WORK_PARTIAL,  /* [e] a rank's part of what row-parallel linears give, inside */
    LS_WORK_SUM,      /* [e] the same of all ranks, outside */
    LS_WORK_DROPPED,  /* [e] the gradient behind dropout, outside */
    LS_WORK_BRANCH,   /* [e] the same, inside; in parallel then what attention's linear was given */
    LS_WORK_D_INNER,  /* gradient of attention or of the MLP's activation, inside */
    LS_WORK_D_OUTER,  /* of q, k and v or of what the activation is of, inside */
    LS_WORK_D_SUM,    /* [e] of the residual path between attention and MLP, outside */
    LS_WORKS,
} ls_work_kind;

/* Vectors to whose gradients all rows add, of rows outside and inside. */
enum {
    LS_OUTER_NORM1,
    LS_OUTER_NORM1_BIAS,
    LS_OUTER_NORM2,
    LS_OUTER_NORM2_BIAS,
    LS_OUTER_OUT_BIAS,
    LS_OUTER_DOWN_BIAS,
    LS_OUTER_VECTORS,
};
enum { LS_INNER_QKV_BIAS, LS_INNER_UP_BIAS, LS_INNER_VECTORS };

struct ls_layer_core;

struct ls_layer_plan {
    struct ls_layer_shape shape;
    struct ls_layer_options options;
    unsigned pieces;
    struct ls_device *device;
    struct ls_grid grid;
    struct ls_traffic traffic;
    int64_t attention_bytes; /* that all of attention's executions have sent */
    struct ls_exchange exchange;
    struct ls_comm *kv_ranks; /* tensor-parallel, of the same kv heads; NULL: this one alone */
    struct ls_batch kv_sums;  /* of gradients, between these */
    const struct ls_layer_core *core;
    struct ls_layout layout;                    /* of the sequence, on context-parallel ranks */
    struct ls_attention_plan *attention;        /* of a fused core, else NULL */
    struct ls_layer_materialized *materialized; /* of a materialized one, else NULL */
    int64_t key_sums; /* of a materialized one: how many sums [d] of a key's gradient, and of its
                       * value's, go from each rank to the one that has the key */
    char fingerprint[LS_FINGERPRINT_LENGTH]; /* of the core */
    int64_t heads, kv_heads, columns;        /* of this rank: of attention, and of the MLP */
    int64_t rows, outer_rows;                /* of a sequence, on this rank */
    struct ls_row_run *run;                  /* storage of both */
    struct ls_row_runs inner_runs, outer_runs;
    struct ls_leaf *leaf; /* storage of leaves: those of the rows inside, of every sequence */
    struct ls_leaf_list leaves;
    struct ls_rotary rotary; /* dims 0: none */
    double *frequency;       /* storage of it */
    struct ls_linear_kernel *qkv, *out, *up, *down;
    struct ls_vectors inner, outer;
    struct ls_weight_sums weights;
    struct ls_tensor work[LS_WORKS];
    void *again;        /* of what a state does not keep, of one layer at a time */
    size_t again_bytes; /* as much as any state wants */
    void *memory;       /* of work */
    float *kv_gradient; /* of the weights of k and v, where these have other ranks */
};

/* Streams of random numbers for dropout (tensor/dropout.h). */
enum { LS_BEHIND_ATTENTION = 1, LS_BEHIND_MLP = 2 };

struct ls_layer_state {
    struct ls_layer_plan *plan;
    unsigned pieces; /* that are made again */
    void *kept[LS_KEPT_KINDS];
    size_t again[LS_KEPT_KINDS]; /* of what is not kept, where in the plan's memory */
    uint64_t seed;               /* of the last forward */
};

/* For plan.c: ls_comm_agree and, if all ranks are well, whether they ask for the same layer, as
 * ls_agree_about has it. Collective. */
ls_status ls_layer_agree(struct ls_comm *comm, ls_status status, const struct ls_layer_shape *shape,
                         const struct ls_layer_options *options, unsigned pieces);

/* For plan.c: rows, runs and leaves, as the layout deals them. Errors: LS_ENOMEM.
 */
ls_status ls_layer_list_rows(struct ls_layer_plan *plan);

/* Widths of this rank's q, k and v, of its k and v, and of what its MLP's first linear gives. */
int64_t ls_layer_qkv_width(const struct ls_layer_plan *plan);
int64_t ls_layer_kv_width(const struct ls_layer_plan *plan);
int64_t ls_layer_up_width(const struct ls_layer_plan *plan);

/* What is kept of a kind, without data: [b, rows, width], of statistics [1 or 2, b, rows], of LSE
 * [b, heads, rows], of probabilities [b, heads, rows, s]; ndim 0: there is none, or it is a mask,
 * of bytes, [b, outer rows, e] or as probabilities. */
struct ls_tensor ls_layer_tensor(const struct ls_layer_plan *plan, ls_kept_kind kind);

/* Its bytes; 0: there is none. */
size_t ls_layer_kind_bytes(const struct ls_layer_plan *plan, ls_kept_kind kind);

/* Memory for what these pieces make again, if there is less. Errors: LS_ENOMEM. */
ls_status ls_layer_reserve(struct ls_layer_plan *plan, unsigned pieces);

/* Whether it is not kept, and then made again in memory of the plan's; masks behind blocks are
 * nowhere. */
bool ls_layer_makes_again(const struct ls_layer_state *state, ls_kept_kind kind);

/* The tensor with data: the state's own or the plan's. */
struct ls_tensor ls_layer_kept(const struct ls_layer_state *state, ls_kept_kind kind);

#endif
