#include "attention/merging/total.h"

#include <stdlib.h>

#include "attention/gradient.h"
#include "attention/leaves.h"
#include "device/rows.h"

static bool brings_sum(const struct ls_forest_step *step)
{
    return step->join != LS_NODE_MERGE && step->count > 0;
}

/* Fast mode: one of each part that is not empty. */
static void list_parts(struct ls_total *out, const struct ls_leaf_list *part, int p)
{
    int64_t count = 0;

    for (int i = 0; i < p; i++) {
        if (part[i].count > 0) out->node[count++] = part[i];
        out->first[i + 1] = count;
    }
    out->slots = p > 1;
}

/* The forest's steps go from part to part. A sum is kept in a slot even if it is the only one. */
static ls_status list_nodes(struct ls_total *out, const struct ls_leaf_list *part, int p)
{
    int64_t count = 0;

    LS_TRY(ls_forest_init(&out->forest, part, p, true));
    for (int64_t i = 0; i < out->forest.steps; i++) {
        const struct ls_forest_step *step = &out->forest.step[i];

        if (!brings_sum(step)) continue;
        out->node[count++] = (struct ls_leaf_list){.leaf = part[step->part].leaf + step->first,
                                                   .count = step->count};
        out->first[step->part + 1]++;
    }
    for (int i = 0; i < p; i++) out->first[i + 1] += out->first[i];
    out->slots = p > 1 && out->forest.slots == 0 ? 1 : out->forest.slots;
    return LS_OK;
}

ls_status ls_total_init_parts(struct ls_total *out, const struct ls_leaf_list *part, int parts,
                              bool strict)
{
    int64_t leaves = 0;

    for (int i = 0; i < parts; i++) leaves += part[i].count;
    *out = (struct ls_total){.first = calloc((size_t)parts + 1, sizeof *out->first),
                             .node = calloc((size_t)leaves + 1, sizeof *out->node),
                             .parts = parts};
    if (!out->first || !out->node) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    if (strict) return list_nodes(out, part, parts);
    list_parts(out, part, parts);
    return LS_OK;
}

ls_status ls_total_init(struct ls_total *out, const struct ls_layout *layout, const int *order,
                        bool strict)
{
    struct ls_leaf *leaf = calloc((size_t)ls_layout_leaves(layout) + 1, sizeof *leaf);
    struct ls_leaf_list *part = calloc((size_t)layout->p, sizeof *part);
    ls_status status;

    *out = (struct ls_total){0};
    if (!leaf || !part) {
        free(leaf);
        free(part);
        return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    }
    ls_leaves_by_rank(part, leaf, layout, order);
    status = ls_total_init_parts(out, part, layout->p, strict);
    out->leaf = leaf;
    free(part);
    return status;
}

void ls_total_fini(struct ls_total *total)
{
    ls_forest_fini(&total->forest);
    free(total->leaf);
    free(total->node);
    free(total->first);
}

int64_t ls_total_sums(const struct ls_total *total, int i)
{
    return total->first[i + 1] - total->first[i];
}

int64_t ls_total_most_sums(const struct ls_total *total, int p)
{
    int64_t most = 0;

    for (int i = 1; i < p; i++)
        if (ls_total_sums(total, i) > most) most = ls_total_sums(total, i);
    return most;
}

void ls_total_begin(struct ls_total *total, float *memory, int64_t floats)
{
    total->slot = memory;
    total->floats = floats;
    total->added = total->step = 0;
    total->whole = (struct ls_terms){NULL, NULL};
}

static float *slot_at(const struct ls_total *total, int64_t slot)
{
    return total->slot + slot * total->floats;
}

/* A step that needs no slot uses the first one. */
static int64_t slot_of(const struct ls_forest_step *step)
{
    return step->slot < 0 ? 0 : step->slot;
}

/* Whether what is put now is all that was missing, and of the last part. */
static bool is_last(const struct ls_total *total)
{
    const int64_t sums = total->first[total->parts];

    return total->added == sums && total->first[total->parts - 1] < sums &&
           total->step == total->forest.steps;
}

static void put(struct ls_total *total, const struct ls_problem *problem, int64_t slot, bool first,
                const float *sum)
{
    const int64_t n = total->floats;
    float *to = slot_at(total, slot);

    total->whole = (struct ls_terms){to, NULL};
    if (!first && sum && is_last(total))
        total->whole.b = sum;
    else if (!first && sum)
        ls_add(&problem->device->queue, to, sum, n);
    else if (first && sum && sum != to)
        ls_problem_copy_floats(problem, to, n, sum, n, 1, n);
    else if (first && !sum) {
        struct ls_tensor nothing = ls_tensor_view(to, LS_F32, 1, &n);

        ls_zero(&problem->device->queue, &nothing);
    }
}

float *ls_total_room(const struct ls_total *total, const struct ls_problem *problem, float *spare)
{
    if (total->slots == 0) return spare;
    if (!problem->strict) return total->added == 0 ? total->slot : spare;
    const struct ls_forest_step *step = &total->forest.step[total->step];

    return step->join == LS_NODE_ALONE ? slot_at(total, slot_of(step)) : spare;
}

/* Strict mode: the next sum, and everything that is complete with it. */
static void climb(struct ls_total *total, const struct ls_problem *problem, const float *sum)
{
    const struct ls_forest *forest = &total->forest;
    const struct ls_forest_step *step = &forest->step[total->step++];

    put(total, problem, slot_of(step), step->join == LS_NODE_ALONE, sum);
    while (total->step < forest->steps && !brings_sum(&forest->step[total->step])) {
        step = &forest->step[total->step++];
        if (step->join == LS_NODE_MERGE)
            put(total, problem, step->slot, false, slot_at(total, step->from));
    }
}

void ls_total_add(struct ls_total *total, const struct ls_problem *problem, const float *sum)
{
    total->added++;
    if (total->slots == 0) {
        total->whole = (struct ls_terms){sum, NULL};
    } else if (problem->strict) {
        climb(total, problem, sum);
    } else {
        put(total, problem, 0, total->added == 1, sum);
    }
}
