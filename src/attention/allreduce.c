/* K and V stay where they are, the queries visit: a step brings the next few leaves of every
 * rank's queries to all ranks, and each attends to its own keys for all of them. Partial results
 * are scaled to the maximum over all ranks, found by all-reduce, and then only need to be added,
 * which the owner of the rows does. While a step computes, the queries of the next one and the
 * sums of the one before are on their way, so memory is O(s/p).
 * Source: Shyam et al. 2024, "Tree attention", for keys and values that stay partitioned and the
 * reductions over ranks; Milakov, Gimelshein 2018, for the running maximum. */
#include <stdlib.h>
#include <string.h>

#include "attention/combine.h"
#include "attention/plan.h"
#include "attention/visits.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

struct allreduce {
    struct ls_leaf_list keys;    /* of this rank */
    struct ls_row_states states; /* of a step's rows against them */
    struct ls_visits visits;
    float *top;                 /* [b, h, rows] maxima of a step over all ranks */
    float *sums_out;            /* of the other ranks' rows, rank after rank */
    float *sums_in;             /* [p] of own rows, from every rank */
    char *queries[2];           /* [b, rows, h, d]: step t's are queries[t % 2] */
    struct ls_request *request; /* of the messages under way */
    int requests;
    void *state_memory, *travel_memory;
    struct ls_leaf k_leaf[]; /* storage of keys */
};

/* ---- sizes */

static size_t query_bytes(const struct ls_attention_shape *s, int64_t rows)
{
    return (size_t)(s->b * rows * s->h * s->d) * (size_t)ls_dtype_size(s->type);
}

static size_t state_bytes(const struct ls_problem *problem)
{
    return problem->p > 1
               ? ls_row_state_bytes(&problem->shape, ls_visit_all_rows(&problem->q_layout, 0))
               : 0;
}

/* How the memory for what travels is divided, in floats; then come the queries, in bytes. */
struct travel_sizes {
    int64_t top, sums_out, sums_in;
    size_t queries; /* of one of the `buffers` */
    int buffers;
};

static struct travel_sizes travel_sizes(const struct ls_problem *problem, int64_t own_rows)
{
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t rows = ls_visit_all_rows(&problem->q_layout, 0);

    if (problem->p == 1) return (struct travel_sizes){0};
    return (struct travel_sizes){
        .top = s->b * s->h * rows,
        .sums_out = ls_sum_count(s, rows - own_rows),
        .sums_in = ls_sum_count(s, problem->p * own_rows),
        .queries = query_bytes(s, rows),
        .buffers = ls_visit_steps(&problem->q_layout) > 1 ? 2 : 1,
    };
}

static size_t travel_bytes(const struct travel_sizes *n)
{
    return (size_t)(n->top + n->sums_out + n->sums_in) * sizeof(float) +
           (size_t)n->buffers * n->queries;
}

static struct ls_kernel_shape kernel_shape(const struct ls_problem *problem)
{
    return ls_plan_kernel_shape(problem, ls_layout_most_leaves(&problem->k_layout));
}

/* ---- cost */

/* What the all-reduce of a step's maxima counts on each rank. */
static int64_t reduction_bytes(const struct ls_problem *problem, int64_t step)
{
    const int64_t n =
        problem->shape.b * problem->shape.h * ls_visit_all_rows(&problem->q_layout, step);

    return 2 * (problem->p - 1) * n * (int64_t)sizeof(float) / problem->p;
}

static int64_t all_reduction_bytes(const struct ls_problem *problem)
{
    const int64_t alike = ls_visit_steps_alike(&problem->q_layout);
    int64_t bytes = alike > 0 ? alike * reduction_bytes(problem, 0) : 0;

    for (int64_t step = alike; step < ls_visit_steps(&problem->q_layout); step++)
        bytes += reduction_bytes(problem, step);
    return bytes;
}

static void cost(struct ls_cost *out, const struct ls_problem *problem)
{
    const struct ls_attention_shape *s = &problem->shape;
    const struct ls_layout *queries = &problem->q_layout;
    const int64_t steps = ls_visit_steps(queries), others = problem->p - 1;
    const int64_t most = ls_layout_most_rows(queries), most_at_once = ls_visit_most_rows(queries);
    const struct travel_sizes travel =
        travel_sizes(problem, most < most_at_once ? most : most_at_once);

    *out = ls_method_work(problem);
    out->flops_most = 4.0 * (double)s->d * (double)(s->b * s->h) *
                      ls_most_pairs_of_keys(&problem->k_layout, s->s_q, problem->causal);
    out->call_rows = problem->p > 1 ? ls_visit_all_rows(queries, 0) : s->s_q;
    out->bytes_sent = others * ((int64_t)query_bytes(s, s->s_q) +
                                ls_sum_count(s, s->s_q) * (int64_t)sizeof(float)) +
                      problem->p * all_reduction_bytes(problem);
    out->messages = others * (ls_visit_count(queries) * (s->b + 1) + 2 * problem->p * steps);
    out->workspace_bytes =
        ls_device_kernel_bytes(&problem->device, kernel_shape(problem)) + state_bytes(problem);
    out->comm_bytes = travel_bytes(&travel);
}

/* Causal: a step's queries see about as many keys of every rank, so no rank waits for another;
 * zigzag would give all ranks the same only over all steps. */
static ls_layout_kind layout(const struct ls_problem *problem)
{
    return problem->causal && problem->p > 1 ? LS_LAYOUT_STRIPED : LS_LAYOUT_CONTIGUOUS;
}

/* ---- making */

static void destroy(struct ls_attention_plan *plan)
{
    struct allreduce *own = plan->own;

    ls_free(own->travel_memory);
    ls_free(own->state_memory);
    free(own->request);
    ls_visits_fini(&own->visits);
    free(own);
}

static ls_status create_states(struct allreduce *own, const struct ls_problem *problem)
{
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t all = s->b * s->h * ls_visit_all_rows(&problem->q_layout, 0);

    LS_TRY(ls_alloc(&own->state_memory, LS_TAG_WORKSPACE, state_bytes(problem)));
    own->states.acc = own->state_memory;
    own->states.m = own->states.acc + all * s->d;
    own->states.l = own->states.m + all;
    return LS_OK;
}

static ls_status create_travel(struct allreduce *own, const struct ls_attention_plan *plan)
{
    const struct travel_sizes n =
        travel_sizes(&plan->problem, ls_visit_rows(&plan->problem.q_layout, plan->rank, 0));

    LS_TRY(ls_alloc(&own->travel_memory, LS_TAG_COMM, travel_bytes(&n)));
    own->top = own->travel_memory;
    own->sums_out = own->top + n.top;
    own->sums_in = own->sums_out + n.sums_out;
    own->queries[0] = (char *)(own->sums_in + n.sums_in);
    own->queries[1] = own->queries[0] + n.queries;
    return LS_OK;
}

/* Sent and received: a step's queries, batch by batch, and the sums of the step before. */
static size_t messages_at_once(const struct ls_problem *problem)
{
    return 2 * (size_t)problem->p * ((size_t)problem->shape.b + 1);
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const struct ls_layout *keys = &problem->k_layout;
    struct allreduce *own = calloc(
        1, sizeof *own + (size_t)ls_layout_part_leaves(keys, plan->rank) * sizeof *own->k_leaf);

    if (!own) return ls_fail(LS_ENOMEM, "all-reduce attention: out of memory");
    plan->own = own;
    own->request = calloc(messages_at_once(problem), sizeof *own->request);
    if (!own->request) return ls_fail(LS_ENOMEM, "all-reduce attention: out of memory");
    ls_leaves_append(own->k_leaf, &own->keys.count, keys, plan->rank, 0);
    own->keys.leaf = own->k_leaf;
    LS_TRY(ls_visits_init(&own->visits, &problem->q_layout));
    LS_TRY(create_states(own, problem));
    LS_TRY(create_travel(own, plan));
    return ls_attention_kernel_create(&plan->kernel, &problem->device, kernel_shape(problem));
}

/* ---- messages; those of one sender and tag arrive in the order of the steps */

static struct ls_tensor query_view(const struct ls_attention_plan *plan, int64_t step)
{
    const struct allreduce *own = plan->own;
    const struct ls_attention_shape *s = &plan->problem.shape;
    const int64_t dim[] = {s->b, own->visits.step[step].first_row[plan->problem.p], s->h, s->d};

    return ls_tensor_view(own->queries[step % 2], s->type, 4, dim);
}

static void *row_at(const struct ls_tensor *t, int64_t batch, int64_t row, int64_t head)
{
    return (char *)t->data + (batch * t->stride[0] + row * t->stride[1] + head * t->stride[2]) *
                                 ls_dtype_size(t->type);
}

/* Rows of one batch. */
static struct ls_tensor rows_of(const struct ls_tensor *t, int64_t batch, int64_t first,
                                int64_t rows)
{
    struct ls_tensor view = *t;

    view.data = row_at(t, batch, first, 0);
    view.dim[0] = 1;
    view.dim[1] = rows;
    return view;
}

/* A request for the next message. */
static struct ls_request *next_request(struct allreduce *own)
{
    return &own->request[own->requests++];
}

/* One batch of a step's queries: this rank's rows, which are in place, go to all others, whose
 * rows come here. */
static ls_status post_batch(struct ls_attention_plan *plan, const struct ls_tensor *all,
                            int64_t batch, const int64_t *first_row)
{
    const size_t row_bytes = query_bytes(&plan->problem.shape, 1) / (size_t)plan->problem.shape.b;
    const int me = plan->rank;
    const size_t mine = (size_t)(first_row[me + 1] - first_row[me]) * row_bytes;

    for (int r = 0; r < plan->problem.p; r++) {
        const size_t theirs = (size_t)(first_row[r + 1] - first_row[r]) * row_bytes;

        if (r == me) continue;
        if (theirs > 0)
            LS_TRY(ls_comm_receive(next_request(plan->own), plan->comm,
                                   row_at(all, batch, first_row[r], 0), theirs, r, (int)batch));
        if (mine > 0)
            LS_TRY(ls_comm_send(next_request(plan->own), plan->comm,
                                row_at(all, batch, first_row[me], 0), mine, r, (int)batch));
    }
    return LS_OK;
}

static ls_status post_queries(struct ls_attention_plan *plan, const struct ls_tensor *q,
                              int64_t step)
{
    const struct allreduce *own = plan->own;
    const int64_t *first_row = own->visits.step[step].first_row;
    const int64_t rows = ls_visit_rows(&plan->problem.q_layout, plan->rank, step);
    const struct ls_tensor all = query_view(plan, step);

    for (int64_t batch = 0; batch < plan->problem.shape.b; batch++) {
        const struct ls_tensor from =
            rows_of(q, batch, step * ls_visit_most_rows(&plan->problem.q_layout), rows);
        struct ls_tensor to = rows_of(&all, batch, first_row[plan->rank], rows);

        ls_tensor_copy(&to, &from);
        LS_TRY(post_batch(plan, &all, batch, first_row));
    }
    return LS_OK;
}

static void move_messages(void *context)
{
    struct ls_attention_plan *plan = context;
    struct allreduce *own = plan->own;

    ls_comm_progress(NULL, plan->comm, own->request, own->requests); /* wait reports what fails */
}

static ls_status wait_for_messages(struct ls_attention_plan *plan)
{
    struct allreduce *own = plan->own;
    const int n = own->requests;

    own->requests = 0;
    return ls_comm_wait(plan->comm, own->request, n);
}

/* ---- combining */

static struct ls_row_range rows_of_rank(const struct ls_attention_plan *plan, int64_t step,
                                        int rank)
{
    const struct allreduce *own = plan->own;
    const int64_t *first_row = own->visits.step[step].first_row;

    return (struct ls_row_range){.first = first_row[rank],
                                 .count = first_row[rank + 1] - first_row[rank],
                                 .of = first_row[plan->problem.p]};
}

static ls_status find_top(struct ls_attention_plan *plan, int64_t rows)
{
    struct allreduce *own = plan->own;
    const int64_t n = plan->problem.shape.b * plan->problem.shape.h * rows;

    memcpy(own->top, own->states.m, (size_t)n * sizeof *own->top);
    return ls_comm_all_reduce(own->top, plan->comm, n, LS_REDUCE_MAX);
}

/* What this rank found goes to the owners of the rows, in one message each; what the others found
 * for its own rows comes here. */
static ls_status post_sums(struct ls_attention_plan *plan, int64_t step)
{
    struct allreduce *own = plan->own;
    const struct ls_attention_shape *s = &plan->problem.shape;
    const struct ls_row_range mine = rows_of_rank(plan, step, plan->rank);
    const int64_t n = ls_sum_count(s, mine.count);
    float *out = own->sums_out;

    LS_TRY(find_top(plan, mine.of));
    ls_sums_scale(own->sums_in + plan->rank * n, &own->states, own->top, s, mine);
    for (int r = 0; r < plan->problem.p; r++) {
        const struct ls_row_range theirs = rows_of_rank(plan, step, r);
        const int64_t m = ls_sum_count(s, theirs.count);

        if (r == plan->rank) continue;
        if (n > 0)
            LS_TRY(ls_comm_receive(next_request(own), plan->comm, own->sums_in + r * n,
                                   (size_t)n * sizeof *out, r, (int)s->b));
        ls_sums_scale(out, &own->states, own->top, s, theirs);
        if (m > 0)
            LS_TRY(ls_comm_send(next_request(own), plan->comm, out, (size_t)m * sizeof *out, r,
                                (int)s->b));
        out += m;
    }
    return LS_OK;
}

/* The sums of this rank's rows are here. */
static void finish_rows(const struct ls_attention_plan *plan, const struct ls_attention_call *call,
                        int64_t step)
{
    const struct allreduce *own = plan->own;

    ls_sums_finish(call->o, call->lse, step * ls_visit_most_rows(&plan->problem.q_layout),
                   own->sums_in, plan->problem.p, own->top, &plan->problem.shape,
                   rows_of_rank(plan, step, plan->rank));
}

/* ---- execution */

static ls_status attend_step(struct ls_attention_plan *plan, const struct ls_attention_call *call,
                             int64_t step)
{
    struct allreduce *own = plan->own;
    const struct ls_tensor q = query_view(plan, step);

    return ls_plan_attend(plan, (struct ls_kernel_call){.states = &own->states,
                                                        .q = &q,
                                                        .k = call->k,
                                                        .v = call->v,
                                                        .q_leaves = own->visits.step[step].leaves,
                                                        .k_leaves = own->keys,
                                                        .progress = {move_messages, plan}});
}

static ls_status attend_alone(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct allreduce *own = plan->own;

    return ls_plan_attend(plan, (struct ls_kernel_call){.o = call->o,
                                                        .lse = call->lse,
                                                        .q = call->q,
                                                        .k = call->k,
                                                        .v = call->v,
                                                        .k_leaves = own->keys});
}

/* A rank whose kernel fails still exchanges what the others wait for. */
static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const int64_t n = ls_visit_steps(&plan->problem.q_layout);
    ls_status status = LS_OK;

    if (plan->problem.p == 1) return attend_alone(plan, call);
    if (n > 0) LS_TRY(post_queries(plan, call->q, 0));
    LS_TRY(wait_for_messages(plan));
    for (int64_t step = 0; step < n; step++) {
        if (step + 1 < n) LS_TRY(post_queries(plan, call->q, step + 1));
        if (status == LS_OK) status = attend_step(plan, call, step);
        LS_TRY(wait_for_messages(plan));
        if (step > 0) finish_rows(plan, call, step - 1);
        LS_TRY(post_sums(plan, step));
    }
    LS_TRY(wait_for_messages(plan));
    if (n > 0) finish_rows(plan, call, n - 1);
    return status;
}

const struct ls_method ls_method_allreduce = {
    .name = "allreduce",
    .summary = "K and V stay, queries visit, sums are combined; memory O(s/p)",
    .fits = ls_method_fits_all,
    .layout = layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
};
