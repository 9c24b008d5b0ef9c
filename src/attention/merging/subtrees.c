#include "attention/merging/subtrees.h"

#include <stdlib.h>

#include "attention/leaves.h"
#include "attention/merging/states.h"

/* ---- which results there are */

/* The forest's steps go from rank to rank. */
static ls_status list_results(struct ls_subtrees *out, const struct ls_leaf_list *part,
                              const struct ls_problem *problem)
{
    int64_t count = 0;

    LS_TRY(ls_forest_init_open(&out->forest, part, problem->p, problem->strict,
                               ls_layout_leaves(&problem->k_layout)));
    out->keys = calloc((size_t)out->forest.steps + 1, sizeof *out->keys);
    out->slot = calloc((size_t)out->forest.slots + 1, sizeof *out->slot);
    if (!out->keys || !out->slot) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    for (int64_t i = 0; i < out->forest.steps; i++) {
        const struct ls_forest_step *step = &out->forest.step[i];

        if (step->join == LS_NODE_MERGE) continue;
        out->keys[count++] = (struct ls_leaf_list){.leaf = part[step->part].leaf + step->first,
                                                   .count = step->count};
        out->first[step->part + 1]++;
    }
    for (int r = 0; r < problem->p; r++) out->first[r + 1] += out->first[r];
    return LS_OK;
}

ls_status ls_subtrees_init(struct ls_subtrees *out, const struct ls_problem *problem)
{
    const size_t p = (size_t)problem->p;
    struct ls_leaf_list *part = calloc(p, sizeof *part);
    ls_status status = LS_OK;

    *out = (struct ls_subtrees){
        .first = calloc(p + 1, sizeof *out->first),
        .leaf = calloc((size_t)ls_layout_leaves(&problem->k_layout) + 1, sizeof *out->leaf),
    };
    if (!part || !out->first || !out->leaf) {
        status = ls_fail(LS_ENOMEM, "attention plan: out of memory");
    } else {
        ls_leaves_by_rank(part, out->leaf, &problem->k_layout, NULL);
        status = list_results(out, part, problem);
    }
    free(part);
    return status;
}

ls_status ls_subtrees_count(struct ls_subtrees *out, const struct ls_problem *problem)
{
    if (problem->strict) return ls_subtrees_init(out, problem);
    *out = (struct ls_subtrees){.first = calloc((size_t)problem->p + 1, sizeof *out->first)};
    if (!out->first) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    for (int r = 0; r < problem->p; r++) out->first[r + 1] = r + 1;
    return LS_OK;
}

void ls_subtrees_fini(struct ls_subtrees *subtrees)
{
    ls_problem_free(subtrees->problem, subtrees->memory);
    free(subtrees->states);
    ls_forest_fini(&subtrees->forest);
    free(subtrees->keys);
    free(subtrees->first);
    free(subtrees->slot);
    free(subtrees->leaf);
}

int64_t ls_subtrees_of(const struct ls_subtrees *subtrees, int rank)
{
    return subtrees->first[rank + 1] - subtrees->first[rank];
}

/* ---- one rank's */

ls_status ls_subtrees_make_room(struct ls_subtrees *subtrees, const struct ls_attention_plan *plan,
                                int64_t rows)
{
    subtrees->problem = &plan->problem;
    return ls_states_create(&subtrees->states, &subtrees->memory, &plan->problem,
                            ls_subtrees_of(subtrees, plan->rank), rows);
}

void ls_subtrees_attend(const struct ls_subtrees *subtrees, struct ls_attention_plan *plan,
                        const struct ls_attention_call *call, const struct ls_tensor *q,
                        struct ls_leaf_list q_leaves)
{
    const struct ls_leaf_list *keys = subtrees->keys + subtrees->first[plan->rank];

    for (int64_t i = 0; i < ls_subtrees_of(subtrees, plan->rank); i++)
        ls_plan_attend(plan, (struct ls_kernel_call){.states = &subtrees->states[i],
                                                     .q = q,
                                                     .k = call->k,
                                                     .v = call->v,
                                                     .q_leaves = q_leaves,
                                                     .k_leaves = keys[i]});
}

float *ls_subtrees_take(float *out, const struct ls_subtrees *subtrees,
                        const struct ls_attention_plan *plan, struct ls_row_range rows)
{
    for (int64_t i = 0; i < ls_subtrees_of(subtrees, plan->rank); i++) {
        ls_states_take(out, &subtrees->states[i], &plan->problem, rows);
        out += ls_state_count(&plan->problem.shape, rows.count);
    }
    return out;
}

/* ---- merging */

static void merge(const struct ls_attention_plan *plan, struct ls_row_states into,
                  struct ls_row_states from, int64_t rows)
{
    const struct ls_attention_shape *s = &plan->problem.shape;

    ls_merge(ls_plan_queue(plan), plan->kernel, into, from, s->b * s->h * rows);
}

/* What a step that brings a result makes of it. */
static struct ls_row_states join(struct ls_row_states kept, const struct ls_attention_plan *plan,
                                 ls_node_join how, struct ls_row_states result, int64_t rows)
{
    if (how == LS_NODE_ALONE) return result;
    if (how == LS_NODE_AFTER) {
        merge(plan, kept, result, rows);
        return kept;
    }
    merge(plan, result, kept, rows);
    return result;
}

float *ls_results_merge(struct ls_row_states *slot, const struct ls_attention_plan *plan,
                        const struct ls_forest *forest, int part, float *states, int64_t rows)
{
    const struct ls_attention_shape *s = &plan->problem.shape;

    for (int64_t i = 0; i < forest->steps; i++) {
        const struct ls_forest_step *step = &forest->step[i];

        if (step->part != part) continue;
        if (step->join == LS_NODE_MERGE) {
            merge(plan, slot[step->slot], slot[step->from], rows);
        } else {
            slot[step->slot] =
                join(slot[step->slot], plan, step->join, ls_states_in(states, s, rows), rows);
            states += ls_state_count(s, rows);
        }
    }
    return states;
}

/* A kernel call without keys, so that the last rounding is the kernel's. */
void ls_states_finish(struct ls_attention_plan *plan, const struct ls_attention_call *call,
                      const struct ls_forest *forest, const struct ls_row_states *slot,
                      const struct ls_row_block *rows)
{
    const struct ls_tensor q = ls_range_of(call->q, 1, rows->first, rows->count);
    struct ls_tensor o = ls_range_of(call->o, 1, rows->first, rows->count),
                     lse = ls_range_of(call->lse, 2, rows->first, rows->count);
    struct ls_tensor o_lo = call->o_lo ? ls_range_of(call->o_lo, 1, rows->first, rows->count) : o;
    const struct ls_found found = {.states = forest->kept_count ? &slot[forest->kept[0]] : NULL};

    ls_plan_attend(plan, (struct ls_kernel_call){.o = &o,
                                                 .o_lo = call->o_lo ? &o_lo : NULL,
                                                 .lse = &lse,
                                                 .found = &found,
                                                 .found_count = forest->kept_count,
                                                 .q = &q,
                                                 .k = call->k,
                                                 .v = call->v,
                                                 .q_leaves = rows->leaves});
}

void ls_subtrees_finish(const struct ls_subtrees *subtrees, struct ls_attention_plan *plan,
                        const struct ls_attention_call *call, float *states,
                        const struct ls_row_block *rows)
{
    for (int r = 0; r < plan->problem.p; r++)
        states = ls_results_merge(subtrees->slot, plan, &subtrees->forest, r, states, rows->count);
    ls_states_finish(plan, call, &subtrees->forest, subtrees->slot, rows);
}

void ls_subtrees_attend_alone(const struct ls_subtrees *subtrees, struct ls_attention_plan *plan,
                              const struct ls_attention_call *call)
{
    const struct ls_leaf_list keys = {.leaf = subtrees->leaf,
                                      .count = ls_layout_leaves(&plan->problem.k_layout)};

    ls_plan_attend_all(plan, call, keys);
}
