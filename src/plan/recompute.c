#include "plan/recompute.h"

#include "plan/model_size.h"
#include "plan/pieces.h"
#include "plan/saturate.h"

struct ls_recompute_set ls_recompute_set_of(const struct ls_model_shape *model,
                                            const struct ls_model_run *run, unsigned pieces,
                                            const struct ls_rates *rates)
{
    struct ls_model_run with = *run;

    with.pieces = pieces;
    const struct ls_kept_bytes kept = ls_layer_kept_bytes(model, &with);
    const struct ls_layer_work work = ls_layer_again(model, &with);

    return (struct ls_recompute_set){.pieces = pieces,
                                     .kept = plus(kept.paper, kept.own),
                                     .again = ls_layer_again_bytes(model, &with),
                                     .work = work,
                                     .seconds = ls_layer_work_seconds(&work, rates)};
}

static bool is_as_good(const struct ls_recompute_set *a, const struct ls_recompute_set *b)
{
    return a->kept <= b->kept && a->again <= b->again && a->seconds <= b->seconds;
}

/* Whether each of these pieces discards something that the others do not. */
static bool has_no_idle_piece(unsigned pieces)
{
    for (unsigned piece = 1; piece <= pieces; piece <<= 1)
        if (pieces & piece && ls_kept_discarded(pieces) == ls_kept_discarded(pieces & ~piece))
            return false;
    return true;
}

/* Unless one that is there is as good; those that it makes superfluous go. */
static void take_set(struct ls_recompute_problem *problem, const struct ls_recompute_set *set)
{
    int n = 0;

    for (int i = 0; i < problem->n; i++)
        if (is_as_good(&problem->set[i], set)) return;
    for (int i = 0; i < problem->n; i++)
        if (!is_as_good(set, &problem->set[i])) problem->set[n++] = problem->set[i];
    problem->set[n++] = *set;
    problem->n = n;
}

/* All bytes of the rank that pieces do not change. */
static ls_status count_fixed(int64_t *fixed, const struct ls_model_shape *model,
                             const struct ls_model_run *run)
{
    struct ls_model_run least = *run;
    struct ls_rank_bytes bytes;

    least.pieces = LS_PIECE_LAYER;
    LS_TRY(ls_model_bytes(&bytes, model, &least));
    bytes.layers = bytes.recompute = 0;
    *fixed = ls_rank_bytes_total(&bytes);
    return LS_OK;
}

ls_status ls_recompute_problem_init(struct ls_recompute_problem *out,
                                    const struct ls_model_shape *model,
                                    const struct ls_model_run *run, const struct ls_rates *rates,
                                    bool given)
{
    int64_t fixed;

    LS_TRY(count_fixed(&fixed, model, run));
    out->layers = ls_part_layers(model, run);
    out->copies = ls_part_copies(run);
    out->parts = run->m;
    out->fixed = fixed;
    out->n = 0;
    if (out->layers > LS_RECOMPUTE_LAYERS)
        return ls_fail(LS_EVALUE, "pieces are chosen for up to %d layers of a stage, not %lld",
                       LS_RECOMPUTE_LAYERS, (long long)out->layers);
    for (unsigned pieces = 0; pieces < LS_RECOMPUTE_SETS; pieces++) {
        if (given ? pieces != run->pieces : !has_no_idle_piece(pieces)) continue;
        const struct ls_recompute_set set = ls_recompute_set_of(model, run, pieces, rates);

        take_set(out, &set);
    }
    return LS_OK;
}
