#include "attention/methods/allreduce_gradient.h"

#include <stdlib.h>

#include "attention/gradient.h"
#include "attention/merging/states.h"
#include "attention/merging/total.h"
#include "attention/methods/visits.h"
#include "attention/travelling/travel.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

/* What visits, in the order in which it lies in a buffer. */
static const enum ls_traveller visitors[] = {LS_LSE, LS_DELTA, LS_LIKE_Q, LS_LIKE_O};

#define VISITORS ((int)(sizeof visitors / sizeof *visitors))

struct ls_visiting_gradients {
    struct ls_attention_plan *plan;
    struct ls_visits visits;
    struct ls_total dkv; /* of this rank's keys, over steps */
    struct ls_total dq;  /* of this rank's rows of a step, over ranks */
    char *buffer[2];     /* visitors: step t's are in buffer[t % 2] */
    float *lse, *delta;  /* [b, h, rows] of a step */
    float *dq_sums;      /* of a step, [b, h, rows, d] for each node of this rank's keys */
    float *out, *in;     /* sums of the other ranks' rows, and of own rows from every rank */
    float *dq_slots, *dkv_slots;
    float *dkv_sum;              /* [b, h, s_k_loc, d], then [b, h, s_k_loc, d_v] */
    struct ls_batch visit, back; /* of a step, and sums of the one before */
    void *travel_memory, *memory;
    const struct ls_backward_call *call;
};

/* ---- sizes */

/* Both totals, and the visits that one is over, are the same on every rank. */
static ls_status make_totals(struct ls_visits *visits, struct ls_total *dkv, struct ls_total *dq,
                             const struct ls_problem *problem)
{
    const int64_t steps = ls_visit_steps(&problem->q_layout);
    struct ls_leaf_list *part = calloc((size_t)steps + 1, sizeof *part);
    int *order = calloc((size_t)problem->p, sizeof *order);
    ls_status status = part && order ? ls_visits_init(visits, &problem->q_layout)
                                     : ls_fail(LS_ENOMEM, "attention plan: out of memory");

    for (int64_t i = 0; i < steps && status == LS_OK; i++) part[i] = visits->step[i].leaves;
    for (int r = 0; r < problem->p && status == LS_OK; r++) order[r] = r;
    if (status == LS_OK) status = ls_total_init_parts(dkv, part, (int)steps, problem->strict);
    if (status == LS_OK) status = ls_total_init(dq, &problem->k_layout, order, problem->strict);
    free(order);
    free(part);
    return status;
}

/* Floats of the pieces of a rank's memory, which is made for the first step, the largest. */
struct memory {
    int64_t numbers, dq_sums, out, in, dq_slots, dkv_slots, dkv_sum;
};

static struct memory memory_of(const struct ls_problem *problem, int rank,
                               const struct ls_total *dkv, const struct ls_total *dq)
{
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t rows = ls_visit_all_rows(&problem->q_layout, 0);
    const int64_t own = ls_visit_rows(&problem->q_layout, rank, 0);
    const int64_t keys =
        ls_pair_gradient_count(s, s->h, ls_layout_part_rows(&problem->k_layout, rank));
    const int64_t nodes = ls_total_sums(dq, rank);

    return (struct memory){
        .numbers = s->b * s->h * rows,
        .dq_sums = nodes * ls_gradient_count(s, s->h, rows),
        .out = nodes * ls_gradient_count(s, s->h, rows - own),
        .in = dq->first[problem->p] * ls_gradient_count(s, s->h, own),
        .dq_slots = dq->slots * ls_gradient_count(s, s->h, own),
        .dkv_slots = dkv->slots * keys,
        .dkv_sum = keys,
    };
}

static size_t memory_bytes(const struct memory *m)
{
    return (size_t)(2 * m->numbers + m->dq_sums + m->out + m->in + m->dq_slots + m->dkv_slots +
                    m->dkv_sum) *
           sizeof(float);
}

/* Of all that visits with so many rows. */
static size_t visitor_bytes(const struct ls_attention_shape *s, int64_t rows)
{
    const size_t row =
        2 * sizeof(float) + (size_t)(s->d + ls_value_dim(s)) * (size_t)ls_dtype_size(s->type);

    return (size_t)(s->b * s->h * rows) * row;
}

static size_t travel_bytes(const struct ls_problem *problem)
{
    const struct ls_layout *queries = &problem->q_layout;

    return (ls_visit_steps(queries) > 1 ? 2 : 1) *
           visitor_bytes(&problem->shape, ls_visit_all_rows(queries, 0));
}

static struct ls_gradient_shape kernel_shape(const struct ls_problem *problem)
{
    int64_t leaves = 0;

    for (int r = 0; r < problem->p; r++)
        leaves += (ls_visit_rows(&problem->q_layout, r, 0) + LS_LEAF - 1) / LS_LEAF;
    return ls_plan_gradient_shape(problem, leaves, ls_layout_most_leaves(&problem->k_layout));
}

/* ---- cost */

static void add_ranks(struct ls_cost *cost, const struct ls_problem *problem,
                      const struct ls_total *dkv, const struct ls_total *dq)
{
    for (int r = 0; r < problem->p; r++) {
        const struct memory m = memory_of(problem, r, dkv, dq);
        const size_t bytes = memory_bytes(&m) + ls_gradients_bytes(problem, r);

        if (bytes > cost->gradient_bytes) cost->gradient_bytes = bytes;
    }
    ls_visits_count_back(
        &cost->backward_bytes_sent, &cost->backward_messages, &problem->q_layout, dq->first,
        ls_gradient_count(&problem->shape, problem->shape.h, 1) * (int64_t)sizeof(float));
}

ls_status ls_visiting_gradients_cost(struct ls_cost *cost, const struct ls_problem *problem)
{
    const struct ls_layout *queries = &problem->q_layout;
    struct ls_visits visits = {0};
    struct ls_total dkv = {0}, dq = {0};

    if (!problem->backward) return LS_OK;
    cost->workspace_bytes += ls_gradient_kernel_bytes(problem->device, kernel_shape(problem));
    cost->comm_bytes += travel_bytes(problem);
    cost->backward_bytes_sent =
        (problem->p - 1) * (int64_t)visitor_bytes(&problem->shape, queries->s);
    cost->backward_messages = VISITORS * (problem->p - 1) * ls_visit_count(queries);
    const ls_status status = make_totals(&visits, &dkv, &dq, problem);
    if (status == LS_OK) add_ranks(cost, problem, &dkv, &dq);
    ls_total_fini(&dq);
    ls_total_fini(&dkv);
    ls_visits_fini(&visits);
    return status;
}

/* ---- making */

static ls_status create_memory(struct ls_visiting_gradients *g, const struct ls_problem *problem)
{
    const struct memory m = memory_of(problem, g->plan->rank, &g->dkv, &g->dq);

    LS_TRY(ls_problem_alloc(&g->travel_memory, problem, LS_TAG_COMM, travel_bytes(problem)));
    g->buffer[0] = g->travel_memory;
    g->buffer[1] =
        g->buffer[0] + visitor_bytes(&problem->shape, ls_visit_all_rows(&problem->q_layout, 0));
    LS_TRY(ls_problem_alloc(&g->memory, problem, LS_TAG_GRADIENT, memory_bytes(&m)));
    g->lse = g->memory;
    g->delta = g->lse + m.numbers;
    g->dq_sums = g->delta + m.numbers;
    g->out = g->dq_sums + m.dq_sums;
    g->in = g->out + m.out;
    g->dq_slots = g->in + m.in;
    g->dkv_slots = g->dq_slots + m.dq_slots;
    g->dkv_sum = g->dkv_slots + m.dkv_slots;
    return LS_OK;
}

static ls_status create(struct ls_visiting_gradients *g, struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;

    g->plan = plan;
    LS_TRY(ls_batch_init(&g->visit, &plan->transport, 2 * VISITORS * problem->p));
    LS_TRY(ls_batch_init(&g->back, &plan->transport, 2 * problem->p));
    LS_TRY(make_totals(&g->visits, &g->dkv, &g->dq, problem));
    LS_TRY(create_memory(g, problem));
    return ls_gradient_kernel_create(&plan->gradients.kernel, problem->device,
                                     kernel_shape(problem));
}

ls_status ls_visiting_gradients_create(struct ls_visiting_gradients **out,
                                       struct ls_attention_plan *plan)
{
    if (!plan->problem.backward) return LS_OK;
    struct ls_visiting_gradients *g = calloc(1, sizeof *g);

    if (!g) return ls_fail(LS_ENOMEM, "all-reduce attention: out of memory");
    const ls_status status = create(g, plan);
    if (status == LS_OK)
        *out = g;
    else
        ls_visiting_gradients_destroy(g);
    return status;
}

void ls_visiting_gradients_destroy(struct ls_visiting_gradients *g)
{
    if (!g) return;
    ls_problem_free(&g->plan->problem, g->memory);
    ls_problem_free(&g->plan->problem, g->travel_memory);
    ls_total_fini(&g->dq);
    ls_total_fini(&g->dkv);
    ls_visits_fini(&g->visits);
    ls_batch_fini(&g->back);
    ls_batch_fini(&g->visit);
    free(g);
}

/* ---- messages */

static ls_status wait_for_messages(struct ls_visiting_gradients *g)
{
    LS_TRY(ls_batch_wait(&g->visit));
    return ls_batch_wait(&g->back);
}

/* all [VISITORS] of a step, [b, rows, h, ..] each. */
static void view_visitors(struct ls_tensor all[VISITORS], const struct ls_visiting_gradients *g,
                          int64_t step)
{
    const struct ls_problem *problem = &g->plan->problem;
    char *end = g->buffer[step % 2];

    for (int i = 0; i < VISITORS; i++)
        all[i] = ls_travel_carve(&end, problem, visitors[i],
                                 ls_visits_range(&g->visits, step, 0).of, problem->shape.h);
}

static ls_status start_visitors(struct ls_visiting_gradients *g, int64_t step)
{
    const struct ls_backward_call *call = g->call;
    const struct ls_attention_shape *s = &g->plan->problem.shape;
    const struct ls_tensor from[VISITORS] = {ls_travel_numbers(s, call->q->dim[1], call->lse),
                                             ls_travel_numbers(s, call->q->dim[1], call->delta),
                                             *call->q, *call->d_o};
    struct ls_tensor all[VISITORS];

    view_visitors(all, g, step);
    for (int i = 0; i < VISITORS; i++)
        ls_visits_bring(&g->visit, &g->visits, g->plan, step, &all[i], &from[i]);
    return ls_batch_start(&g->visit);
}

/* Rows of a step, from every node of this rank's keys; returns the end of out. */
static float *take_sums(float *out, const struct ls_visiting_gradients *g, struct ls_row_range rows)
{
    const struct ls_attention_shape *s = &g->plan->problem.shape;
    const int64_t heads = ls_total_sums(&g->dq, g->plan->rank) * s->b * s->h;

    ls_problem_copy_floats(&g->plan->problem, out, rows.count * s->d,
                           g->dq_sums + rows.first * s->d, rows.of * s->d, heads,
                           rows.count * s->d);
    return out + heads * rows.count * s->d;
}

/* What this rank has for the rows of a step goes to their owners, what the others have for its own
 * rows comes here. */
static ls_status start_sums(struct ls_visiting_gradients *g, int64_t step)
{
    const struct ls_attention_shape *s = &g->plan->problem.shape;
    const int64_t own = ls_visits_range(&g->visits, step, g->plan->rank).count;
    float *in = g->in, *out = g->out;

    for (int r = 0; r < g->plan->problem.p; r++) {
        const int64_t come = ls_total_sums(&g->dq, r) * ls_gradient_count(s, s->h, own);
        const bool here = r == g->plan->rank;
        float *end = take_sums(here ? in : out, g, ls_visits_range(&g->visits, step, r));

        if (!here && come > 0) ls_batch_receive(&g->back, in, (size_t)come * sizeof *in, r);
        if (!here && end > out) ls_batch_send(&g->back, out, (size_t)(end - out) * sizeof *out, r);
        if (!here) out = end;
        in += come;
    }
    return ls_batch_start(&g->back);
}

/* ---- execution */

/* One node of a step's queries meets all of this rank's keys, node by node. */
static void meet_node(struct ls_visiting_gradients *g, const struct ls_tensor all[VISITORS],
                      struct ls_leaf_list queries)
{
    const struct ls_problem *problem = &g->plan->problem;
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t first = g->dq.first[g->plan->rank], end = g->dq.first[g->plan->rank + 1];
    const int64_t rows = all[0].dim[1];

    for (int64_t j = first; j < end; j++)
        ls_plan_gradient(g->plan,
                         &(struct ls_gradient_call){
                             .q = &all[2],
                             .d_o = &all[3],
                             .k = g->call->k,
                             .v = g->call->v,
                             .lse = g->lse,
                             .delta = g->delta,
                             .q_leaves = queries,
                             .k_leaves = g->dq.node[j],
                             .same_queries = j > first,
                             .dq = g->dq_sums + (j - first) * ls_gradient_count(s, s->h, rows),
                             .dk = g->dkv_sum,
                             .dv = g->dkv_sum + ls_gradient_count(s, s->h, g->call->k->dim[1])});
    if (end > first) ls_total_add(&g->dkv, problem, g->dkv_sum);
}

static void meet(struct ls_visiting_gradients *g, int64_t step)
{
    struct ls_tensor all[VISITORS];

    view_visitors(all, g, step);
    ls_travel_take_numbers(g->lse, &g->plan->problem, &all[0]);
    ls_travel_take_numbers(g->delta, &g->plan->problem, &all[1]);
    for (int64_t i = g->dkv.first[step]; i < g->dkv.first[step + 1]; i++)
        meet_node(g, all, g->dkv.node[i]);
}

/* The sums of this rank's rows of a step are here. */
static void finish_rows(struct ls_visiting_gradients *g, int64_t step)
{
    const struct ls_problem *problem = &g->plan->problem;
    const int64_t rows = ls_visits_range(&g->visits, step, g->plan->rank).count;
    const int64_t n = ls_gradient_count(&problem->shape, problem->shape.h, rows);
    struct ls_tensor dq =
        ls_range_of(g->call->dq, 1, step * ls_visit_most_rows(&problem->q_layout), rows);

    if (rows == 0) return;
    ls_total_begin(&g->dq, g->dq_slots, n);
    for (int64_t i = 0; i < g->dq.first[problem->p]; i++)
        ls_total_add(&g->dq, problem, g->in + i * n);
    ls_plan_round(&dq, g->plan, g->dq.whole, 1);
}

static void finish_keys(struct ls_visiting_gradients *g)
{
    const struct ls_attention_shape *s = &g->plan->problem.shape;
    const int64_t count = ls_gradient_count(s, s->h, g->call->k->dim[1]);
    const struct ls_terms dk = g->dkv.whole, dv = ls_terms_behind(dk, count);

    ls_plan_round(g->call->dk, g->plan, dk, s->h / s->h_kv);
    ls_plan_round(g->call->dv, g->plan, dv, s->h / s->h_kv);
}

ls_status ls_visiting_gradients_run(struct ls_visiting_gradients *g,
                                    const struct ls_backward_call *call)
{
    const struct ls_attention_shape *s = &g->plan->problem.shape;
    const int64_t n = ls_visit_steps(&g->plan->problem.q_layout);

    g->call = call;
    ls_total_begin(&g->dkv, g->dkv_slots, ls_pair_gradient_count(s, s->h, call->k->dim[1]));
    if (n > 0) LS_TRY(start_visitors(g, 0));
    LS_TRY(wait_for_messages(g));
    for (int64_t step = 0; step < n; step++) {
        if (step + 1 < n) LS_TRY(start_visitors(g, step + 1));
        meet(g, step);
        LS_TRY(wait_for_messages(g));
        if (step > 0) finish_rows(g, step - 1);
        LS_TRY(start_sums(g, step));
    }
    LS_TRY(wait_for_messages(g));
    if (n > 0) finish_rows(g, n - 1);
    finish_keys(g);
    return LS_OK;
}
