/* Parameters, work and all the bytes of a model on a rank, from shapes alone. */
#ifndef LS_PLAN_MODEL_SIZE_H
#define LS_PLAN_MODEL_SIZE_H

#include "base/status.h"
#include "plan/model.h"

/* ---- parameters and work */

/* In all; and on a rank of the first stage, which has most to keep. The vocabulary is shared by t
 * ranks, rounded up; norms, learned positions and biases behind row-parallel linears are each
 * rank's. */
int64_t ls_model_parameters(const struct ls_model_shape *model);
int64_t ls_rank_parameters(const struct ls_model_shape *model, const struct ls_model_run *run);

/* Bytes a parameter: weights in the storage type, gradients in f32, AdamW's two moments and the f32
 * weights that it changes. */
enum { LS_GRADIENT_BYTES = 4, LS_OPTIMIZER_BYTES = 12 };

/* Floating-point operations of one micro-batch on all ranks, two a multiplication and addition:
 * products of linears and of attention. */
struct ls_step_flops {
    double forward, backward, again; /* again: what recomputation adds */
};

struct ls_step_flops ls_model_flops(const struct ls_model_shape *model,
                                    const struct ls_model_run *run);

/* Layers of one of the parts of a stage; and for how many micro-batches, on the first, all parts
 * together have them under way: 1F1B those of all L layers whatever p, interleaved stages
 * 1 + (p - 1) / (p m) times as many. */
int64_t ls_part_layers(const struct ls_model_shape *model, const struct ls_model_run *run);
int64_t ls_part_copies(const struct ls_model_run *run);

/* ---- all of it */

struct ls_rank_bytes {
    int64_t parameters, gradients, optimizer;
    int64_t layers;    /* activations of the layers under way */
    int64_t ends;      /* and outside of them */
    int64_t recompute; /* what one layer brings back */
};

/* 2^63 - 1: that, or more. */
int64_t ls_rank_bytes_total(const struct ls_rank_bytes *bytes);

/* Whether the run can be, and its bytes on the first rank. Errors: LS_EVALUE where ranks do not
 * divide what they share, or a number of bytes is beyond 2^63. */
ls_status ls_model_bytes(struct ls_rank_bytes *out, const struct ls_model_shape *model,
                         const struct ls_model_run *run);

#endif
