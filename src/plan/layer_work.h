/* What a layer's forward computes and moves on a rank, operation by operation, and which of it runs
 * again to bring back what was discarded: what src/layer/forward.c does. */
#ifndef LS_PLAN_LAYER_WORK_H
#define LS_PLAN_LAYER_WORK_H

#include "plan/memory.h"

/* Of a rank and a micro-batch. */
struct ls_layer_work {
    double flops;     /* of products, two a multiplication and addition; the mean of all ranks */
    double memory;    /* bytes read and written, if every operation does it once; a number that is
                       * drawn counts as its random word, four */
    double exchanged; /* bytes that come from other ranks */
};

struct ls_layer_work ls_layer_work_sum(const struct ls_layer_work *a,
                                       const struct ls_layer_work *b);

/* n times as much. */
struct ls_layer_work ls_layer_work_times(const struct ls_layer_work *a, double n);

/* What an operation has from other ranks: of its rows, those that tensor-parallel ranks have
 * outside; the sum of what each of these has a part of; keys and values of all context-parallel
 * ranks. */
typedef enum {
    LS_EXCHANGE_NOTHING,
    LS_EXCHANGE_GATHER,
    LS_EXCHANGE_SUM,
    LS_EXCHANGE_KEYS,
    LS_EXCHANGE_KINDS,
} ls_exchange_kind;

struct ls_layer_operation {
    const char *name;
    unsigned makes;  /* 1 << ls_kept_kind each: discarding any of these is reason to run it again */
    unsigned unless; /* but not where one of these is made again as well, which saves it */
    bool only_again; /* forward has it not */
    ls_exchange_kind exchange;
    struct ls_layer_work work;
};

enum { LS_LAYER_OPERATIONS = 20 };

/* In the layer's order; returns how many. Shape and run are right. */
int ls_layer_operations(struct ls_layer_operation out[LS_LAYER_OPERATIONS],
                        const struct ls_model_shape *model, const struct ls_model_run *run);

/* How often each kind is exchanged in forward, in backward, and besides in what run->pieces bring
 * about. Backward has the conjugates, for a gather a sum and for a sum a gather, and gathers the
 * inputs of column-parallel linears, keys and values once more. */
struct ls_layer_exchanges {
    int forward[LS_EXCHANGE_KINDS], backward[LS_EXCHANGE_KINDS], again[LS_EXCHANGE_KINDS];
};

struct ls_layer_exchanges ls_layer_exchanges_of(const struct ls_model_shape *model,
                                                const struct ls_model_run *run);

/* Of the operations, what run->pieces bring about. */
struct ls_layer_work ls_layer_again(const struct ls_model_shape *model,
                                    const struct ls_model_run *run);

/* Forward and backward without that. Backward is taken for two products where forward has one, a
 * fused core's for five where it has two, and for twice the memory. Gradients of K and V are
 * exchanged in f32. */
struct ls_layer_work ls_layer_step(const struct ls_model_shape *model,
                                   const struct ls_model_run *run);

/* ---- time */

/* A second; 0: what it is of takes no time. */
struct ls_rates {
    double flops, memory, exchanged;
};

/* One after the other. */
double ls_layer_work_seconds(const struct ls_layer_work *work, const struct ls_rates *rates);

#endif
