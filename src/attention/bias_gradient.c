#include "attention/bias_gradient.h"

#include <stdlib.h>

#include "attention/leaves.h"
#include "attention/plan.h"
#include "attention/travelling/redistribute.h"
#include "device/bias_gradient.h"
#include "plan/attention_size.h"
#include "tensor/layout.h"

struct ls_bias_gradient {
    struct ls_bias_gradient_kernel *kernel;
    struct ls_row_run *run; /* of this rank's queries */
    int64_t run_count;
    struct ls_leaf_list *keys; /* [p] of the part that comes in each step */
    struct ls_leaf *leaf;      /* storage */
    char *travel;              /* [2][part_bytes] K, then V of one part */
    struct ls_batch batch;     /* of one hop */
};

static bool is_used(const struct ls_problem *problem)
{
    return problem->backward && problem->scores.bias;
}

/* Whose part a rank has in a step. */
static int owner(int rank, int p, int step)
{
    return (rank - step + p) % p;
}

/* Of the longest part; a part must fit whosever it is. */
static size_t part_bytes(const struct ls_problem *problem)
{
    return ls_key_value_bytes(&problem->shape, ls_layout_most_rows(&problem->k_layout));
}

static size_t travel_bytes(const struct ls_problem *problem)
{
    return problem->p > 1 ? 2 * part_bytes(problem) : 0;
}

void ls_bias_gradient_cost(struct ls_cost *cost, const struct ls_problem *problem)
{
    const int64_t hops = problem->p - 1;

    if (!is_used(problem)) return;
    cost->workspace_bytes +=
        ls_bias_gradient_kernel_bytes(problem->device, ls_problem_kernel_shape(problem, 0));
    cost->comm_bytes += travel_bytes(problem);
    cost->bias_bytes_sent = hops * (int64_t)ls_key_value_bytes(&problem->shape, problem->shape.s_k);
    cost->bias_messages = hops * problem->p;
}

/* ---- making */

/* Positions [first, end), which are rows from `row` on, cut where leaves end. */
static void add_runs(struct ls_bias_gradient *own, int64_t row, int64_t first, int64_t end)
{
    for (int64_t at = first, n; at < end; at += n, row += n) {
        const int64_t to_leaf_end = LS_LEAF - at % LS_LEAF;

        n = to_leaf_end < end - at ? to_leaf_end : end - at;
        own->run[own->run_count++] = (struct ls_row_run){.row = row, .count = n, .position = at};
    }
}

static ls_status list_queries(struct ls_bias_gradient *own, const struct ls_attention_plan *plan)
{
    const struct ls_layout *layout = &plan->problem.q_layout;

    own->run = malloc((size_t)(plan->q_rows / LS_LEAF + 2) * sizeof *own->run);
    if (!own->run) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    if (plan->redistribution) {
        const int64_t *piece = ls_redistribution_pieces(plan->redistribution).q_first + plan->rank;

        add_runs(own, 0, piece[0], piece[1]);
        return LS_OK;
    }
    for (int64_t i = 0; i < plan->q_leaves.count; i++) {
        const struct ls_leaf *leaf = &plan->q_leaves.leaf[i];
        const int64_t first = leaf->number * LS_LEAF;

        add_runs(own, leaf->row, first, first + ls_layout_leaf_rows(layout, leaf->number));
    }
    return LS_OK;
}

static ls_status list_keys(struct ls_bias_gradient *own, const struct ls_attention_plan *plan)
{
    const struct ls_layout *layout = &plan->problem.k_layout;
    const size_t p = (size_t)layout->p;
    int *order = malloc(p * sizeof *order);

    own->keys = calloc(p, sizeof *own->keys);
    own->leaf = calloc((size_t)ls_layout_leaves(layout) + 1, sizeof *own->leaf);
    if (!order || !own->keys || !own->leaf) {
        free(order);
        return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    }
    for (int step = 0; step < layout->p; step++) order[step] = owner(plan->rank, layout->p, step);
    ls_leaves_by_rank(own->keys, own->leaf, layout, order);
    free(order);
    return LS_OK;
}

ls_status ls_bias_gradient_create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    struct ls_bias_gradient *own;
    void *memory;

    if (!is_used(problem)) return LS_OK;
    plan->bias_gradient = own = calloc(1, sizeof *own);
    if (!own) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    LS_TRY(list_queries(own, plan));
    LS_TRY(list_keys(own, plan));
    LS_TRY(ls_batch_init(&own->batch, &plan->transport, 2));
    LS_TRY(ls_problem_alloc(&memory, problem, LS_TAG_COMM, travel_bytes(problem)));
    own->travel = memory;
    return ls_bias_gradient_kernel_create(&own->kernel, problem->device,
                                          ls_problem_kernel_shape(problem, 0));
}

void ls_bias_gradient_destroy(struct ls_attention_plan *plan)
{
    struct ls_bias_gradient *own = plan->bias_gradient;

    if (!own) return;
    ls_bias_gradient_kernel_destroy(plan->problem.device, own->kernel);
    ls_problem_free(&plan->problem, own->travel);
    ls_batch_fini(&own->batch);
    free(own->leaf);
    free(own->keys);
    free(own->run);
    free(own);
}

/* ---- execution */

/* One part of the keys, wherever it is. */
struct key_part {
    struct ls_tensor k, v;
    size_t bytes;
};

/* The part of a step in its buffer. */
static struct key_part travelling_part(const struct ls_attention_plan *plan, int step)
{
    const struct ls_problem *problem = &plan->problem;
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t rows =
        ls_layout_part_rows(&problem->k_layout, owner(plan->rank, problem->p, step));
    char *k = plan->bias_gradient->travel + (size_t)(step % 2) * part_bytes(problem);

    return (struct key_part){.k = ls_problem_keys(problem, k, rows),
                             .v = ls_problem_values(problem, k + ls_key_bytes(s, rows), rows),
                             .bytes = ls_key_value_bytes(s, rows)};
}

/* This rank's own part, in one piece if it is to be sent. */
static struct key_part own_part(const struct ls_attention_plan *plan,
                                const struct ls_bias_operands *operands)
{
    if (plan->problem.p == 1) return (struct key_part){.k = *operands->k, .v = *operands->v};
    struct key_part part = travelling_part(plan, 0);

    ls_problem_copy(&plan->problem, &part.k, operands->k);
    ls_problem_copy(&plan->problem, &part.v, operands->v);
    return part;
}

/* The part goes on, that of the next step comes in. */
static ls_status start_hop(struct ls_attention_plan *plan, const struct key_part *now, int step)
{
    struct ls_batch *batch = &plan->bias_gradient->batch;
    const int p = plan->problem.p;

    if (step == p - 1) return LS_OK;
    const struct key_part next = travelling_part(plan, step + 1);

    ls_batch_receive(batch, next.k.data, next.bytes, owner(plan->rank, p, 1));
    ls_batch_send(batch, now->k.data, now->bytes, (plan->rank + 1) % p);
    return ls_batch_start(batch);
}

static void meet(struct ls_tensor *dbias, struct ls_attention_plan *plan,
                 const struct ls_bias_operands *operands, const struct key_part *part, int step)
{
    const struct ls_bias_gradient *own = plan->bias_gradient;
    const struct ls_bias_gradient_call call = {.dbias = dbias,
                                               .q = operands->q,
                                               .d_o = operands->d_o,
                                               .k = &part->k,
                                               .v = &part->v,
                                               .lse = operands->lse,
                                               .delta = operands->delta,
                                               .runs = own->run,
                                               .run_count = own->run_count,
                                               .k_leaves = own->keys[step],
                                               .change = &plan->now};

    ls_bias_gradient(ls_plan_queue(plan), own->kernel, &call);
}

ls_status ls_bias_gradient_find(struct ls_tensor *dbias, struct ls_attention_plan *plan,
                                const struct ls_bias_operands *operands)
{
    for (int step = 0; step < plan->problem.p; step++) {
        const struct key_part part =
            step == 0 ? own_part(plan, operands) : travelling_part(plan, step);

        LS_TRY(start_hop(plan, &part, step));
        meet(dbias, plan, operands, &part, step);
        LS_TRY(ls_batch_wait(&plan->bias_gradient->batch));
    }
    return LS_OK;
}
