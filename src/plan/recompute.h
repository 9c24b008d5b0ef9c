/* Which pieces each layer computes again, so that a rank's bytes stay within a budget at the least
 * cost of time.
 *
 * A rank has `layers` layers to choose for, for which `copies` micro-batches are under way.
 * Layers are alike, so that what matters is how many of them take which set of pieces. Of what was
 * discarded one layer at a time is brought back, into memory that all layers share: the peak is
 *   fixed + copies x (sum over layers of what they keep) + the most that one brings back. */
#ifndef LS_PLAN_RECOMPUTE_H
#define LS_PLAN_RECOMPUTE_H

#include "base/status.h"
#include "plan/layer_work.h"

/* ---- what a set of pieces does to a layer: a row of the table */

struct ls_recompute_set {
    unsigned pieces;
    int64_t kept;  /* bytes, of a micro-batch */
    int64_t again; /* bytes, while what is not kept is there once more */
    struct ls_layer_work work;
    double seconds; /* of work */
};

struct ls_recompute_set ls_recompute_set_of(const struct ls_model_shape *model,
                                            const struct ls_model_run *run, unsigned pieces,
                                            const struct ls_rates *rates);

/* ---- the problem */

enum { LS_RECOMPUTE_SETS = 1 << 8 }; /* as many as there are of pieces */
enum { LS_RECOMPUTE_LAYERS = 4096 };

struct ls_recompute_problem {
    int64_t layers, copies;
    int64_t parts; /* of a stage: so many times these layers */
    int64_t fixed; /* bytes of all else; who knows its workspace and messages adds them */
    int n;
    struct ls_recompute_set set[LS_RECOMPUTE_SETS]; /* each beats any other in something */
};

/* Of all sets that there are, or of run->pieces alone. The first stage of a pipeline has most;
 * interleaved, all its parts take the same sets, since which of them has how many micro-batches
 * under way changes with time. Errors: as ls_model_bytes; LS_EVALUE for more layers than
 * LS_RECOMPUTE_LAYERS. */
ls_status ls_recompute_problem_init(struct ls_recompute_problem *out,
                                    const struct ls_model_shape *model,
                                    const struct ls_model_run *run, const struct ls_rates *rates,
                                    bool given);

/* ---- the answer */

struct ls_recompute_choice {
    int64_t layers[LS_RECOMPUTE_SETS]; /* of all parts, how many take each set of the problem */
    int64_t kept, again;               /* bytes of all micro-batches; of one layer */
    int64_t bytes;                     /* the peak */
    struct ls_layer_work work;         /* of a micro-batch, for all these layers */
    double seconds;
};

/* The fewest bytes that can be. 2^63 - 1: that, or more. */
int64_t ls_recompute_least(const struct ls_recompute_problem *problem);

/* The least seconds with a peak of at most `budget` bytes, and the fewest bytes with so many
 * seconds; exactly, of seconds in whole picoseconds. Errors: LS_EFIT if nothing fits, with what is
 * missing; LS_ENOMEM. */
ls_status ls_recompute_choose(struct ls_recompute_choice *out,
                              const struct ls_recompute_problem *problem, int64_t budget);

/* Answers for `most` budgets that are evenly spread from the fewest bytes to where nothing is
 * computed again that costs time; *count of them differ. Bytes rise, seconds fall. Errors:
 * LS_ENOMEM. */
ls_status ls_recompute_frontier(struct ls_recompute_choice *out, int *count, int most,
                                const struct ls_recompute_problem *problem);

#endif
