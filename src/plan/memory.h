/* Activations that a rank keeps between forward and backward: what the paper named in model.h
 * counts (its section 4), and what it leaves out. */
#ifndef LS_PLAN_MEMORY_H
#define LS_PLAN_MEMORY_H

#include "plan/model.h"

/* Something that a layer leaves for its backward. */
struct ls_kept {
    const char *name;
    int64_t bytes;
    bool paper;      /* counted in the paper's formulas; else a term of our own */
    unsigned pieces; /* any of these discards it */
};

enum { LS_MOST_KEPT = 24 };

/* All that there is, whatever is discarded, on the rank with most rows, the first; returns how
 * many. Shape and run are right. */
int ls_layer_keeps(struct ls_kept out[LS_MOST_KEPT], const struct ls_model_shape *model,
                   const struct ls_model_run *run);

/* Bytes of one layer that stay until its backward: those of the paper, and our own. */
struct ls_kept_bytes {
    int64_t paper, own;
};

struct ls_kept_bytes ls_layer_kept_bytes(const struct ls_model_shape *model,
                                         const struct ls_model_run *run);

/* The paper's formula in real numbers, equations 1 to 6: bytes of one layer's activations of a GPT
 * of 16-bit elements with a materialized core and dropout, for none, selective or full. */
double ls_paper_layer_bytes(const struct ls_model_run *run, int64_t a, int64_t h);

/* Outside of the layers, on the first stage: the embedding's dropout for each micro-batch under
 * way, and where there is one stage the last norm, the output layer and the loss (section 4.3). */
struct ls_kept_bytes ls_ends_kept_bytes(const struct ls_model_shape *model,
                                        const struct ls_model_run *run);

#endif
