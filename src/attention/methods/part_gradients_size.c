#include "attention/methods/part_gradients_size.h"

#include <stdlib.h>
#include <string.h>

#include "attention/gradient.h"
#include "attention/methods/reach.h"
#include "attention/travelling/route.h"
#include "plan/attention_size.h"

bool ls_part_adds_groups(const struct ls_problem *problem)
{
    return !problem->strict && problem->p > 1 && problem->shape.h > problem->shape.h_kv;
}

int64_t ls_part_heads(const struct ls_problem *problem)
{
    return ls_part_adds_groups(problem) ? problem->shape.h_kv : problem->shape.h;
}

int64_t ls_part_pair_count(const struct ls_problem *problem, int64_t rows)
{
    const struct ls_attention_shape *s = &problem->shape;

    return ls_pair_gradient_count(s, ls_part_heads(problem), rows);
}

static int64_t most(const int64_t *rows, int p)
{
    int64_t found = 0;

    for (int i = 0; i < p; i++)
        if (rows[i] > found) found = rows[i];
    return found;
}

struct ls_part_memory ls_part_memory_of(const struct ls_problem *problem, int rank,
                                        const struct ls_part_sums *sums,
                                        const struct ls_part_steps *steps,
                                        struct ls_part_order order)
{
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t dq = ls_gradient_count(s, s->h, ls_layout_part_rows(&problem->q_layout, rank));
    const int64_t rows = most(steps->rows, problem->p);
    const int64_t back = most(steps->rows_back + 1, problem->p - 1);
    const int64_t own = ls_part_pair_count(problem, steps->rows[0]);

    return (struct ls_part_memory){
        .dq_slots = sums->dq_slots * dq,
        .dq_sum = dq,
        .dkv_slots = sums->dkv_slots * own,
        .heads = ls_part_adds_groups(problem) ? ls_pair_gradient_count(s, s->h, rows) : 0,
        .out = sums->own * ls_part_pair_count(problem, rows),
        .in = sums->most_in * ls_part_pair_count(problem, back),
        .spread = order.seen && problem->p > 1 ? own : 0,
    };
}

/* With two ranks, a rank's own sums are added before it computes those that it sends. */
int ls_part_out_buffers(const struct ls_problem *problem)
{
    return problem->p > 2 ? 2 : 1;
}

size_t ls_part_memory_bytes(const struct ls_problem *problem, const struct ls_part_memory *m)
{
    return (size_t)(m->dq_slots + m->dq_sum + m->dkv_slots + m->heads + m->in + m->spread +
                    ls_part_out_buffers(problem) * m->out) *
           sizeof(float);
}

struct ls_part_sums ls_part_sums_of(const struct ls_total *dq, const struct ls_total *dkv, int p)
{
    return (struct ls_part_sums){.own = ls_total_sums(dkv, 0),
                                 .most_in = ls_total_most_sums(dkv, p),
                                 .dq_slots = dq->slots,
                                 .dkv_slots = dkv->slots};
}

void ls_part_steps_fini(struct ls_part_steps *steps)
{
    free(steps->owner);
    free(steps->rows);
    free(steps->keys);
    free(steps->leaf);
}

static bool create_steps(struct ls_part_steps *out, const struct ls_problem *problem,
                         struct ls_part_order order, int rank)
{
    const size_t p = (size_t)problem->p;
    const size_t leaves = (size_t)ls_layout_leaves(&problem->k_layout);
    const size_t own = (size_t)ls_layout_part_leaves(&problem->k_layout, rank);

    *out = (struct ls_part_steps){
        .owner = calloc(2 * p, sizeof *out->owner),
        .rows = calloc(2 * p, sizeof *out->rows),
        .keys = order.seen ? calloc(2 * p, sizeof *out->keys) : NULL,
        .leaf = order.seen ? calloc(leaves + p * own + 1, sizeof *out->leaf) : NULL,
    };
    if (!out->owner || !out->rows || (order.seen && (!out->keys || !out->leaf))) return false;
    out->from = out->owner + p;
    out->rows_back = out->rows + p;
    out->back = order.seen ? out->keys + p : NULL;
    return true;
}

/* Leaves that are marked of owner's keys, by their rows there. */
static struct ls_leaf_list list_marked(int64_t *rows, struct ls_leaf **next,
                                       const struct ls_problem *problem, int owner,
                                       const bool *seen)
{
    struct ls_leaf_list list = {.leaf = *next};

    *rows = ls_reach_append(*next, &list.count, problem, owner, seen);
    *next += list.count;
    return list;
}

/* seen: room for a mark of each leaf of keys. */
static void list_seen(struct ls_part_steps *out, bool *seen, const struct ls_problem *problem,
                      int rank, bool back)
{
    struct ls_leaf *next = out->leaf;

    ls_reach_mark(seen, problem, rank);
    for (int step = 0; step < problem->p; step++) {
        struct ls_leaf *first = next;
        const int owner = out->owner[step];

        if (step == 0) memset(seen, true, (size_t)ls_layout_leaves(&problem->k_layout));
        out->keys[step] = list_marked(&out->rows[step], &next, problem, owner, seen);
        if (step == 0) ls_reach_mark(seen, problem, rank);
        for (int64_t i = 0; i < out->keys[step].count; i++) first[i].row = i * LS_LEAF;
    }
    for (int step = 1; step < problem->p && back; step++) {
        ls_reach_mark(seen, problem, out->from[step]);
        out->back[step] = list_marked(&out->rows_back[step], &next, problem, rank, seen);
    }
}

ls_status ls_part_steps_init(struct ls_part_steps *out, const struct ls_problem *problem,
                             struct ls_part_order order, int rank, bool back)
{
    const struct ls_route route = ls_route_of(problem->p, order.node, rank);
    const struct ls_layout *keys = &problem->k_layout;
    bool *seen = order.seen ? calloc((size_t)ls_layout_leaves(keys) + 1, sizeof *seen) : NULL;
    const bool enough = create_steps(out, problem, order, rank) && (seen || !order.seen);

    for (int step = 0; step < problem->p && enough; step++) {
        out->owner[step] = ls_route_owner(&route, step);
        out->from[step] = ls_route_holder(&route, step);
        out->rows[step] = ls_layout_part_rows(keys, out->owner[step]);
        out->rows_back[step] = ls_layout_part_rows(keys, rank);
    }
    if (enough && seen) list_seen(out, seen, problem, rank, back);
    free(seen);
    return enough ? LS_OK : ls_fail(LS_ENOMEM, "attention plan: out of memory");
}

ls_status ls_part_totals_init(struct ls_total *dq, struct ls_total *dkv,
                              const struct ls_part_steps *steps, const struct ls_problem *problem)
{
    if (steps->keys)
        LS_TRY(ls_total_init_parts(dq, steps->keys, problem->p, problem->strict));
    else
        LS_TRY(ls_total_init(dq, &problem->k_layout, steps->owner, problem->strict));
    return ls_total_init(dkv, &problem->q_layout, steps->from, problem->strict);
}

/* Fast mode's, of a rank, without lists. */
static struct ls_part_sums fast_sums(const struct ls_problem *problem, int rank)
{
    const struct ls_layout *queries = &problem->q_layout;
    const int64_t own = ls_layout_part_rows(queries, rank) > 0;
    int64_t others = 0;

    for (int r = 0; r < problem->p; r++) others += ls_layout_part_rows(queries, r) > 0;
    return (struct ls_part_sums){.own = own,
                                 .most_in = others > own,
                                 .dq_slots = problem->p > 1,
                                 .dkv_slots = problem->p > 1};
}

static ls_status strict_sums(struct ls_part_sums *out, const struct ls_problem *problem,
                             const struct ls_part_steps *steps)
{
    struct ls_total dq = {0}, dkv = {0};
    const ls_status status = ls_part_totals_init(&dq, &dkv, steps, problem);

    if (status == LS_OK) *out = ls_part_sums_of(&dq, &dkv, problem->p);
    ls_total_fini(&dkv);
    ls_total_fini(&dq);
    return status;
}

struct ls_gradient_shape ls_part_kernel_shape(const struct ls_problem *problem)
{
    return ls_plan_gradient_shape(problem, ls_layout_most_leaves(&problem->q_layout),
                                  ls_layout_most_leaves(&problem->k_layout));
}

/* What one rank takes, and sends. */
struct rank_cost {
    size_t memory;
    int64_t bytes_sent, messages;
};

static ls_status count_rank(struct rank_cost *out, const struct ls_problem *problem,
                            struct ls_part_order order, int rank, const struct ls_part_steps *steps)
{
    struct ls_part_sums sums = fast_sums(problem, rank);

    if (problem->strict) LS_TRY(strict_sums(&sums, problem, steps));
    const struct ls_part_memory m = ls_part_memory_of(problem, rank, &sums, steps, order);

    *out = (struct rank_cost){.memory = ls_part_memory_bytes(problem, &m) +
                                        ls_gradients_bytes(problem, rank)};
    for (int step = 1; step < problem->p; step++) {
        const int64_t floats = sums.own * ls_part_pair_count(problem, steps->rows[step]);

        out->bytes_sent += floats * (int64_t)sizeof(float);
        out->messages += floats > 0;
    }
    return LS_OK;
}

static ls_status cost_of_rank(struct rank_cost *out, const struct ls_problem *problem,
                              struct ls_part_order order, int rank)
{
    struct ls_part_steps steps;
    ls_status status = ls_part_steps_init(&steps, problem, order, rank, true);

    if (status == LS_OK) status = count_rank(out, problem, order, rank, &steps);
    ls_part_steps_fini(&steps);
    return status;
}

ls_status ls_part_gradients_bytes(size_t *out, const struct ls_problem *problem,
                                  struct ls_part_order order, int rank)
{
    struct rank_cost cost;

    LS_TRY(cost_of_rank(&cost, problem, order, rank));
    *out = cost.memory;
    return LS_OK;
}

ls_status ls_part_gradients_cost(struct ls_cost *cost, const struct ls_problem *problem,
                                 struct ls_part_order order)
{
    if (!problem->backward) return LS_OK;
    cost->workspace_bytes +=
        ls_gradient_kernel_bytes(problem->device, ls_part_kernel_shape(problem));
    for (int r = 0; r < problem->p; r++) {
        struct rank_cost own;

        LS_TRY(cost_of_rank(&own, problem, order, r));
        if (own.memory > cost->gradient_bytes) cost->gradient_bytes = own.memory;
        cost->backward_bytes_sent += own.bytes_sent;
        cost->backward_messages += own.messages;
    }
    return LS_OK;
}
