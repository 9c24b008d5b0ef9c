/* Grids of ranks for a model, the best first. */
#ifndef LS_PLAN_SEARCH_H
#define LS_PLAN_SEARCH_H

#include "plan/recompute.h"

/* Where a micro-batch's time goes on a rank: forward and backward as ls_layer_step has them, output
 * layer included, evenly over the stages; the pieces that are computed again; activations and their
 * gradients from stage to stage. What is outside of layers moves nothing else. */
struct ls_micro_batch {
    struct ls_layer_work step, again;
    double seconds;
};

struct ls_micro_batch ls_micro_batch(const struct ls_model_shape *model,
                                     const struct ls_model_run *run,
                                     const struct ls_layer_work *again,
                                     const struct ls_rates *rates);

struct ls_grid_plan {
    struct ls_model_run run;
    int64_t copies; /* of the model: as often as its grid fits into the ranks */
    struct ls_recompute_problem problem;
    struct ls_recompute_choice choice;
    struct ls_micro_batch time;
    double seconds_per_token; /* of all copies together */
};

/* The `most` grids of at most `ranks` ranks that take least time per token with pieces that fit
 * into `budget` bytes a rank: run's own, or if `choose` is said the cheapest. Time is that of
 * copies which all have a micro-batch in every stage: neither filling and draining a pipeline nor
 * summing gradients over copies is in it. Among equals, the fewest bytes. The caller frees *out.
 * Errors: LS_EFIT where nothing fits, with what is missing; LS_EVALUE where no grid can be;
 * LS_ENOMEM. */
ls_status ls_model_search(struct ls_grid_plan **out, int *count, int most,
                          const struct ls_model_shape *model, const struct ls_model_run *run,
                          int64_t ranks, int64_t budget, const struct ls_rates *rates, bool choose);

#endif
