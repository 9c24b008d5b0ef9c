/* K and V stay where they are, the queries visit: a step brings the next few leaves of every
 * rank's queries to all ranks, and each attends to its own keys for all of them. What they find,
 * one result a rank or in strict mode one for each node of the tree (subtrees.h), goes to the
 * owners of the rows, which merge it. While a step computes, the queries of the next one and the
 * results of the one before are on their way, so memory is O(s/p).
 * Source: Shyam et al. 2024, "Tree attention", for keys and values that stay partitioned and the
 * reductions over ranks; Milakov, Gimelshein 2018, for merging by the running maximum. */
#include <stdlib.h>

#include "attention/merging/states.h"
#include "attention/merging/subtrees.h"
#include "attention/methods/allreduce_gradient.h"
#include "attention/methods/allreduce_size.h"
#include "attention/methods/table.h"
#include "attention/methods/visits.h"
#include "attention/plan.h"
#include "base/ledger.h"

struct allreduce {
    struct ls_visiting_gradients *gradients;
    struct ls_subtrees subtrees;
    struct ls_visits visits;
    float *out;                  /* results of the other ranks' rows, rank after rank */
    float *in;                   /* those of own rows, from every rank */
    char *queries[2];            /* [b, rows, h, d]: step t's are queries[t % 2] */
    struct ls_batch visit, back; /* queries of a step, and results of the one before */
    void *travel_memory;
    struct ls_leaf q_leaf[]; /* of this rank, by their row among its rows of a step */
};

/* ---- making */

static void destroy(struct ls_attention_plan *plan)
{
    struct allreduce *own = plan->own;

    ls_visiting_gradients_destroy(own->gradients);
    ls_problem_free(&plan->problem, own->travel_memory);
    ls_batch_fini(&own->back);
    ls_batch_fini(&own->visit);
    ls_visits_fini(&own->visits);
    ls_subtrees_fini(&own->subtrees);
    free(own);
}

static ls_status create_travel(struct allreduce *own, const struct ls_problem *problem,
                               const struct ls_allreduce_memory *memory)
{
    LS_TRY(ls_problem_alloc(&own->travel_memory, problem, LS_TAG_COMM, memory->travel));
    own->out = own->travel_memory;
    own->in = own->out + memory->out;
    own->queries[0] = (char *)(own->in + memory->in);
    own->queries[1] = own->queries[0] + memory->queries;
    return LS_OK;
}

static void list_own_queries(struct ls_leaf *out, const struct ls_attention_plan *plan)
{
    const int64_t step_rows = ls_visit_most_rows(&plan->problem.q_layout);

    for (int64_t i = 0; i < plan->q_leaves.count; i++)
        out[i] = (struct ls_leaf){.number = plan->q_leaves.leaf[i].number,
                                  .row = plan->q_leaves.leaf[i].row % step_rows};
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    struct allreduce *own =
        calloc(1, sizeof *own + (size_t)plan->q_leaves.count * sizeof *own->q_leaf);

    if (!own) return ls_fail(LS_ENOMEM, "all-reduce attention: out of memory");
    plan->own = own;
    LS_TRY(ls_batch_init(&own->visit, &plan->transport, 2 * problem->shape.b * problem->p));
    LS_TRY(ls_batch_init(&own->back, &plan->transport, 2 * problem->p));
    list_own_queries(own->q_leaf, plan);
    LS_TRY(ls_subtrees_init(&own->subtrees, problem));
    LS_TRY(ls_visits_init(&own->visits, &problem->q_layout));
    const struct ls_allreduce_memory memory =
        ls_allreduce_memory(problem, &own->subtrees, plan->rank);
    LS_TRY(ls_subtrees_make_room(&own->subtrees, plan, memory.rows));
    LS_TRY(create_travel(own, problem, &memory));
    LS_TRY(ls_visiting_gradients_create(&own->gradients, plan));
    return ls_problem_kernel_create(&plan->kernel, problem);
}

/* ---- messages */

static struct ls_tensor query_view(const struct ls_attention_plan *plan, int64_t step)
{
    const struct allreduce *own = plan->own;

    return ls_problem_queries(&plan->problem, own->queries[step % 2],
                              ls_visits_range(&own->visits, step, 0).of);
}

static ls_status start_queries(struct ls_attention_plan *plan, const struct ls_tensor *q,
                               int64_t step)
{
    struct allreduce *own = plan->own;
    const struct ls_tensor view = query_view(plan, step);

    for (int64_t batch = 0; batch < plan->problem.shape.b; batch++) {
        const struct ls_tensor all = ls_range_of(&view, 0, batch, 1);
        const struct ls_tensor part = ls_range_of(q, 0, batch, 1);

        ls_visits_bring(&own->visit, &own->visits, plan, step, &all, &part);
    }
    return ls_batch_start(&own->visit);
}

static ls_status wait_for_messages(struct ls_attention_plan *plan)
{
    struct allreduce *own = plan->own;

    LS_TRY(ls_batch_wait(&own->visit));
    return ls_batch_wait(&own->back);
}

/* ---- results */

/* What this rank found goes to the owners of the rows, in one message each; what the others found
 * for its own rows comes here. */
static ls_status start_results(struct ls_attention_plan *plan, int64_t step)
{
    struct allreduce *own = plan->own;
    const struct ls_row_range mine = ls_visits_range(&own->visits, step, plan->rank);
    const int64_t n = ls_state_count(&plan->problem.shape, mine.count);
    float *in = own->in, *out = own->out;

    for (int r = 0; r < plan->problem.p; r++) {
        const int64_t come = ls_subtrees_of(&own->subtrees, r) * n;
        const struct ls_row_range theirs = ls_visits_range(&own->visits, step, r);
        float *end = ls_subtrees_take(r == plan->rank ? in : out, &own->subtrees, plan, theirs);

        if (r != plan->rank) {
            if (come > 0) ls_batch_receive(&own->back, in, (size_t)come * sizeof *in, r);
            if (end > out) ls_batch_send(&own->back, out, (size_t)(end - out) * sizeof *out, r);
            out = end;
        }
        in += come;
    }
    return ls_batch_start(&own->back);
}

/* The results of this rank's rows are here. */
static void finish_rows(struct ls_attention_plan *plan, const struct ls_attention_call *call,
                        int64_t step)
{
    const struct allreduce *own = plan->own;
    const struct ls_row_range mine = ls_visits_range(&own->visits, step, plan->rank);
    const int64_t first = step * ls_visit_most_rows(&plan->problem.q_layout);
    const struct ls_row_block block = {
        .first = first,
        .count = mine.count,
        .leaves = {.leaf = own->q_leaf + first / LS_LEAF,
                   .count = (mine.count + LS_LEAF - 1) / LS_LEAF},
    };

    if (mine.count > 0) ls_subtrees_finish(&own->subtrees, plan, call, own->in, &block);
}

/* ---- execution */

static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct allreduce *own = plan->own;
    const int64_t n = ls_visit_steps(&plan->problem.q_layout);

    if (plan->problem.p == 1) {
        ls_subtrees_attend_alone(&own->subtrees, plan, call);
        return LS_OK;
    }
    if (n > 0) LS_TRY(start_queries(plan, call->q, 0));
    LS_TRY(wait_for_messages(plan));
    for (int64_t step = 0; step < n; step++) {
        if (step + 1 < n) LS_TRY(start_queries(plan, call->q, step + 1));
        const struct ls_tensor q = query_view(plan, step);

        ls_subtrees_attend(&own->subtrees, plan, call, &q, own->visits.step[step].leaves);
        LS_TRY(wait_for_messages(plan));
        if (step > 0) finish_rows(plan, call, step - 1);
        LS_TRY(start_results(plan, step));
    }
    LS_TRY(wait_for_messages(plan));
    if (n > 0) finish_rows(plan, call, n - 1);
    return LS_OK;
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    LS_TRY(ls_allreduce_cost(out, problem));
    return ls_visiting_gradients_cost(out, problem);
}

static ls_status backward(struct ls_attention_plan *plan, const struct ls_backward_call *call)
{
    return ls_visiting_gradients_run(((struct allreduce *)plan->own)->gradients, call);
}

const struct ls_method ls_method_allreduce = {
    .name = "allreduce",
    .summary = "K and V stay, queries visit, results come back and are merged; memory O(s/p)",
    .fits = ls_method_fits_all,
    .merges = true,
    .layout = ls_method_visit_layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
    .backward = backward,
};
