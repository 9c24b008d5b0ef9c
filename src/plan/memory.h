/* Activations that a rank keeps between forward and backward: what the paper named in model.h
 * counts (its section 4), and what it leaves out. */
#ifndef LS_PLAN_MEMORY_H
#define LS_PLAN_MEMORY_H

#include "plan/model.h"

/* What a layer leaves for its backward, in the order in which it comes about. */
typedef enum {
    LS_KEPT_INPUT, /* the layer's */
    LS_KEPT_NORM1, /* outputs of norms, and mean and 1 / deviation of their rows */
    LS_KEPT_STATISTICS1,
    LS_KEPT_QKV,
    LS_KEPT_SOFTMAX,      /* of a materialized core: probabilities, */
    LS_KEPT_SOFTMAX_MASK, /* which of them dropout keeps, */
    LS_KEPT_DROPPED,      /* and what they become */
    LS_KEPT_LSE,          /* of a fused core */
    LS_KEPT_ATTENTION,
    LS_KEPT_MASK1, /* of dropout behind attention */
    LS_KEPT_SUM1,  /* what the residual path has behind attention */
    LS_KEPT_NORM2,
    LS_KEPT_STATISTICS2,
    LS_KEPT_UP, /* the MLP's first linear */
    LS_KEPT_ACTIVATION,
    LS_KEPT_MASK2, /* of dropout behind the MLP */
    LS_KEPT_SUM2,  /* where a norm follows */
    LS_KEPT_KINDS,
} ls_kept_kind;

struct ls_kept_about {
    const char *name;
    bool paper;      /* counted in the paper's formulas; else a term of our own */
    unsigned pieces; /* any of these discards it */
};

const struct ls_kept_about *ls_kept_about(ls_kept_kind kind);

/* Whether these pieces discard it; and whether it is then made again before backward, in memory of
 * its own: masks behind the blocks are drawn where they are used. */
bool ls_kept_is_discarded(ls_kept_kind kind, unsigned pieces);
bool ls_kept_is_made_again(ls_kept_kind kind, unsigned pieces);

/* 1 << kind for each that these pieces discard. */
unsigned ls_kept_discarded(unsigned pieces);

struct ls_kept {
    ls_kept_kind kind;
    int64_t bytes;
};

/* All that there is, whatever is discarded; returns how many. Shape and run are right. */
int ls_layer_keeps(struct ls_kept out[LS_KEPT_KINDS], const struct ls_model_shape *model,
                   const struct ls_model_run *run);

/* Bytes of one layer that stay until its backward: those of the paper, and our own. */
struct ls_kept_bytes {
    int64_t paper, own;
};

struct ls_kept_bytes ls_layer_kept_bytes(const struct ls_model_shape *model,
                                         const struct ls_model_run *run);

/* Bytes that one layer at a time needs in backward for what is computed again. */
int64_t ls_layer_again_bytes(const struct ls_model_shape *model, const struct ls_model_run *run);

/* The paper's formula in real numbers, equations 1 to 6: bytes of one layer's activations of a GPT
 * of 16-bit elements with a materialized core and dropout, for none, selective or full. */
double ls_paper_layer_bytes(const struct ls_model_run *run, int64_t a, int64_t h);

/* Outside of the layers, on the first stage: the embedding's dropout for each micro-batch under
 * way, and where there is one stage the last norm, the output layer and the loss (section 4.3). */
struct ls_kept_bytes ls_ends_kept_bytes(const struct ls_model_shape *model,
                                        const struct ls_model_run *run);

#endif
