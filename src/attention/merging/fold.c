#include "attention/merging/fold.h"

#include <assert.h>
#include <stdlib.h>

#include "attention/merging/states.h"
#include "plan/attention_size.h"

ls_status ls_fold_bytes(size_t *out, const struct ls_problem *problem, int rank,
                        const struct ls_leaf_list *part, int parts)
{
    struct ls_forest forest = {.slots = parts > 1};

    if (problem->strict) LS_TRY(ls_forest_init(&forest, part, parts, true));
    *out = (size_t)forest.slots *
           ls_row_state_bytes(&problem->shape, ls_layout_part_rows(&problem->q_layout, rank));
    ls_forest_fini(&forest);
    return LS_OK;
}

ls_status ls_fold_init(struct ls_fold *out, const struct ls_attention_plan *plan,
                       const struct ls_leaf_list *part, int parts)
{
    out->problem = &plan->problem;
    out->part = part;
    LS_TRY(ls_forest_init(&out->forest, part, parts, plan->problem.strict));
    return ls_states_create(&out->state, &out->memory, &plan->problem, out->forest.slots,
                            ls_layout_part_rows(&plan->problem.q_layout, plan->rank));
}

void ls_fold_fini(struct ls_fold *fold)
{
    ls_problem_free(fold->problem, fold->memory);
    free(fold->state);
    ls_forest_fini(&fold->forest);
}

/* More than a tree over all the leaves that a problem may have is high. */
#define MOST_FOUND 64

/* One call of the kernel: keys that arrived, and everything that their result is then merged with.
 */
struct arrival {
    const struct ls_forest_step *step;
    struct ls_found found[MOST_FOUND];
    int found_count, slot;
    bool whole;
};

static void add_found(struct arrival *out, const struct ls_fold *fold, int slot, bool after)
{
    assert(out->found_count < MOST_FOUND);
    out->found[out->found_count++] = (struct ls_found){&fold->state[slot], after};
}

/* Forest steps from `at` on that are done by one call; returns the number of the next. */
static int64_t read_arrival(struct arrival *out, const struct ls_fold *fold, int64_t at)
{
    const struct ls_forest *forest = &fold->forest;
    const struct ls_forest_step *step = &forest->step[at];

    *out = (struct arrival){.step = step, .slot = step->slot, .whole = step->whole};
    if (step->join != LS_NODE_ALONE) add_found(out, fold, step->slot, step->join == LS_NODE_BEFORE);
    for (at++; at < forest->steps && !out->whole; at++) {
        const struct ls_forest_step *next = &forest->step[at];

        if (next->join == LS_NODE_MERGE) {
            const bool left = next->slot == out->slot;
            add_found(out, fold, left ? next->from : next->slot, left);
            out->slot = next->slot;
        } else if (next->whole && next->count == 0 && next->part == step->part) {
            out->whole = true;
        } else {
            break;
        }
    }
    return at;
}

void ls_fold_begin(struct ls_fold *fold)
{
    fold->done = 0;
}

void ls_fold_part(struct ls_fold *fold, struct ls_attention_plan *plan,
                  const struct ls_attention_call *call, int part, const struct ls_tensor *k,
                  const struct ls_tensor *v)
{
    const struct ls_leaf_list leaves = fold->part[part];
    const struct ls_forest *forest = &fold->forest;

    while (fold->done < forest->steps && forest->step[fold->done].part == part) {
        struct arrival arrival;

        fold->done = read_arrival(&arrival, fold, fold->done);
        ls_plan_attend(plan, (struct ls_kernel_call){
                                 .o = arrival.whole ? call->o : NULL,
                                 .o_lo = arrival.whole ? call->o_lo : NULL,
                                 .lse = arrival.whole ? call->lse : NULL,
                                 .states = arrival.whole ? NULL : &fold->state[arrival.slot],
                                 .found = arrival.found,
                                 .found_count = arrival.found_count,
                                 .q = call->q,
                                 .k = k,
                                 .v = v,
                                 .k_leaves = {.leaf = leaves.leaf + arrival.step->first,
                                              .count = arrival.step->count},
                             });
    }
}
