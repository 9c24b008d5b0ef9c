#include "attention/part_gradients.h"

#include <stdlib.h>
#include <string.h>

#include "attention/route.h"
#include "attention/total.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

struct ls_part_gradients {
    struct ls_attention_plan *plan;
    int *owner, *from;            /* [p] whose keys come in a step; who meets this rank's */
    struct ls_total dq;           /* over parts of the keys */
    struct ls_total dkv;          /* of this rank's keys, over parts of the queries */
    float *dq_slots, *dq_sum;     /* storage of dq, and its next sum */
    float *dkv_slots;             /* storage of dkv */
    float *heads;                 /* dk, dv of every query head, where groups are added */
    float *out[2];                /* dk, dv of a step, node after node: step t's are out[t % 2] */
    float *in;                    /* those of this rank's keys from another rank */
    struct ls_request request[2]; /* of out and in */
    int requests;
    void *memory;
    const struct ls_backward_call *call;
};

/* ---- sizes */

static bool adds_groups(const struct ls_problem *problem)
{
    return !problem->strict && problem->p > 1 && problem->shape.h > problem->shape.h_kv;
}

/* Floats of dk and dv of so many rows as they travel. */
static int64_t pair_count(const struct ls_problem *problem, int64_t rows)
{
    const struct ls_attention_shape *s = &problem->shape;

    return 2 * ls_gradient_count(s, adds_groups(problem) ? s->h_kv : s->h, rows);
}

/* Sums that there are of one rank's keys and queries. */
struct sums {
    int64_t own;                 /* of its queries */
    int64_t most_in;             /* of another rank's queries */
    int64_t dq_slots, dkv_slots; /* that wait */
};

/* Floats of each piece of a rank's memory. */
struct memory {
    int64_t dq_slots, dq_sum, dkv_slots, heads, out, in;
};

static struct memory memory_of(const struct ls_problem *problem, int rank, const struct sums *sums)
{
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t dq = ls_gradient_count(s, s->h, ls_layout_part_rows(&problem->q_layout, rank));
    const int64_t most = ls_layout_most_rows(&problem->k_layout);
    const int64_t own = pair_count(problem, ls_layout_part_rows(&problem->k_layout, rank));

    return (struct memory){
        .dq_slots = sums->dq_slots * dq,
        .dq_sum = dq,
        .dkv_slots = sums->dkv_slots * own,
        .heads = adds_groups(problem) ? 2 * ls_gradient_count(s, s->h, most) : 0,
        .out = sums->own * pair_count(problem, most),
        .in = sums->most_in * own,
    };
}

/* With two ranks, a rank's own sums are added before it computes those that it sends. */
static int out_buffers(const struct ls_problem *problem)
{
    return problem->p > 2 ? 2 : 1;
}

static size_t memory_bytes(const struct ls_problem *problem, const struct memory *m)
{
    return (size_t)(m->dq_slots + m->dq_sum + m->dkv_slots + m->heads + m->in +
                    out_buffers(problem) * m->out) *
           sizeof(float);
}

static struct sums sums_of(const struct ls_total *dq, const struct ls_total *dkv, int p)
{
    return (struct sums){.own = ls_total_sums(dkv, 0),
                         .most_in = ls_total_most_sums(dkv, p),
                         .dq_slots = dq->slots,
                         .dkv_slots = dkv->slots};
}

/* owner and from [p] of a rank. */
static void list_order(int *owner, int *from, const struct ls_problem *problem, int node, int rank)
{
    const struct ls_route route = ls_route_of(problem->p, node, rank);

    for (int step = 0; step < problem->p; step++) {
        owner[step] = ls_route_owner(&route, step);
        from[step] = ls_route_holder(&route, step);
    }
}

/* ---- cost */

/* Fast mode's, of a rank, without lists. */
static struct sums fast_sums(const struct ls_problem *problem, int rank)
{
    const struct ls_layout *queries = &problem->q_layout;
    const int64_t own = ls_layout_part_rows(queries, rank) > 0;
    int64_t others = 0;

    for (int r = 0; r < problem->p; r++) others += ls_layout_part_rows(queries, r) > 0;
    return (struct sums){.own = own,
                         .most_in = others > own,
                         .dq_slots = problem->p > 1,
                         .dkv_slots = problem->p > 1};
}

/* Without memory to find out, a plan cannot be made either. */
static struct sums strict_sums(const struct ls_problem *problem, int node, int rank)
{
    int *owner = calloc(2 * (size_t)problem->p, sizeof *owner), *from = owner + problem->p;
    struct ls_total dq = {0}, dkv = {0};
    struct sums sums = {0};

    if (!owner) return sums;
    list_order(owner, from, problem, node, rank);
    if (ls_total_init(&dq, &problem->k_layout, owner, true) == LS_OK &&
        ls_total_init(&dkv, &problem->q_layout, from, true) == LS_OK)
        sums = sums_of(&dq, &dkv, problem->p);
    ls_total_fini(&dkv);
    ls_total_fini(&dq);
    free(owner);
    return sums;
}

/* Ranks other than this one that have keys. */
static int64_t receivers(const struct ls_problem *problem, int rank)
{
    int64_t count = 0;

    for (int r = 0; r < problem->p; r++)
        count += r != rank && ls_layout_part_rows(&problem->k_layout, r) > 0;
    return count;
}

static struct ls_gradient_shape kernel_shape(const struct ls_problem *problem)
{
    return ls_plan_gradient_shape(problem, ls_layout_most_leaves(&problem->q_layout),
                                  ls_layout_most_leaves(&problem->k_layout));
}

void ls_part_gradients_cost(struct ls_cost *cost, const struct ls_problem *problem, int node)
{
    if (!problem->backward) return;
    cost->workspace_bytes += ls_device_gradient_bytes(&problem->device, kernel_shape(problem));
    for (int r = 0; r < problem->p; r++) {
        const struct sums sums =
            problem->strict ? strict_sums(problem, node, r) : fast_sums(problem, r);
        const struct memory m = memory_of(problem, r, &sums);
        const size_t bytes = memory_bytes(problem, &m) + ls_gradients_bytes(problem, r);
        const int64_t rows = problem->shape.s_k - ls_layout_part_rows(&problem->k_layout, r);

        if (bytes > cost->gradient_bytes) cost->gradient_bytes = bytes;
        cost->backward_bytes_sent += sums.own * pair_count(problem, rows) * (int64_t)sizeof(float);
        if (sums.own > 0) cost->backward_messages += receivers(problem, r);
    }
}

/* ---- making */

static ls_status create_memory(struct ls_part_gradients *g, const struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const struct sums sums = sums_of(&g->dq, &g->dkv, problem->p);
    const struct memory m = memory_of(problem, plan->rank, &sums);

    LS_TRY(ls_alloc(&g->memory, LS_TAG_GRADIENT, memory_bytes(problem, &m)));
    g->dq_slots = g->memory;
    g->dq_sum = g->dq_slots + m.dq_slots;
    g->dkv_slots = g->dq_sum + m.dq_sum;
    g->heads = g->dkv_slots + m.dkv_slots;
    g->in = g->heads + m.heads;
    g->out[0] = g->in + m.in;
    g->out[1] = g->out[0] + (out_buffers(problem) - 1) * m.out;
    return LS_OK;
}

static ls_status create(struct ls_part_gradients *g, struct ls_attention_plan *plan, int node)
{
    const struct ls_problem *problem = &plan->problem;

    g->plan = plan;
    g->owner = calloc(2 * (size_t)problem->p, sizeof *g->owner);
    if (!g->owner) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    g->from = g->owner + problem->p;
    list_order(g->owner, g->from, problem, node, plan->rank);
    LS_TRY(ls_total_init(&g->dq, &problem->k_layout, g->owner, problem->strict));
    LS_TRY(ls_total_init(&g->dkv, &problem->q_layout, g->from, problem->strict));
    LS_TRY(create_memory(g, plan));
    return ls_gradient_kernel_create(&plan->gradients.kernel, &problem->device,
                                     kernel_shape(problem));
}

ls_status ls_part_gradients_create(struct ls_part_gradients **out, struct ls_attention_plan *plan,
                                   int node)
{
    if (!plan->problem.backward) return LS_OK;
    struct ls_part_gradients *g = calloc(1, sizeof *g);

    if (!g) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    const ls_status status = create(g, plan, node);
    if (status == LS_OK)
        *out = g;
    else
        ls_part_gradients_destroy(g);
    return status;
}

void ls_part_gradients_destroy(struct ls_part_gradients *g)
{
    if (!g) return;
    ls_total_fini(&g->dkv);
    ls_total_fini(&g->dq);
    ls_free(g->memory);
    free(g->owner);
    free(g);
}

/* ---- execution */

void ls_part_gradients_begin(struct ls_part_gradients *g, const struct ls_backward_call *call)
{
    const struct ls_problem *problem = &g->plan->problem;

    g->call = call;
    g->requests = 0;
    ls_total_begin(&g->dq, g->dq_slots,
                   ls_gradient_count(&problem->shape, problem->shape.h, call->q->dim[1]));
    ls_total_begin(&g->dkv, g->dkv_slots, pair_count(problem, call->k->dim[1]));
}

/* What is to be moved along while the kernel works. */
struct movement {
    struct ls_part_gradients *g;
    struct ls_progress other;
};

static void move_messages(void *context)
{
    const struct movement *movement = context;
    struct ls_part_gradients *g = movement->g;

    if (movement->other.call) movement->other.call(movement->other.context);
    ls_comm_progress(NULL, g->plan->comm, g->request, g->requests); /* wait reports what fails */
}

/* pair [2][b, h_kv, rows, d] = dk and dv with the heads of each group added. */
static void add_groups(float *pair, const struct ls_part_gradients *g, int64_t rows)
{
    const struct ls_problem *problem = &g->plan->problem;
    const struct ls_attention_shape *s = &problem->shape;

    for (int i = 0; i < 2; i++) {
        struct ls_tensor out = {
            .type = LS_F32,
            .ndim = 4,
            .dim = {s->b, rows, s->h_kv, s->d},
            .stride = {s->h_kv * rows * s->d, s->d, rows * s->d, 1},
            .data = pair + i * ls_gradient_count(s, s->h_kv, rows),
        };

        ls_device_round_sums(&problem->device, &out,
                             g->heads + i * ls_gradient_count(s, s->h, rows), s->h / s->h_kv,
                             problem->threads);
    }
}

/* One node of the queries meets one of the keys. pair: dk and dv over this node of the queries. */
static ls_status meet_nodes(struct ls_part_gradients *g, float *pair, struct ls_leaf_list queries,
                            struct ls_leaf_list keys, const struct ls_tensor *k,
                            const struct ls_tensor *v, struct ls_progress progress)
{
    const struct ls_problem *problem = &g->plan->problem;
    float *dk = adds_groups(problem) ? g->heads : pair;
    const struct ls_gradient_call call = {
        .q = g->call->q,
        .d_o = g->call->d_o,
        .k = k,
        .v = v,
        .lse = g->call->lse,
        .delta = g->call->delta,
        .q_leaves = queries,
        .k_leaves = keys,
        .dq = g->dq_sum,
        .dk = dk,
        .dv = dk + ls_gradient_count(&problem->shape, problem->shape.h, k->dim[1]),
        .progress = progress,
    };

    LS_TRY(ls_plan_gradient(g->plan, &call));
    if (adds_groups(problem)) add_groups(pair, g, k->dim[1]);
    return LS_OK;
}

ls_status ls_part_gradients_meet(struct ls_part_gradients *g, int step, const struct ls_tensor *k,
                                 const struct ls_tensor *v, struct ls_progress progress)
{
    const struct ls_problem *problem = &g->plan->problem;
    struct movement movement = {.g = g, .other = progress};
    const struct ls_progress both = {progress.call || g->requests > 0 ? move_messages : NULL,
                                     &movement};
    const int64_t pair = pair_count(problem, k->dim[1]);

    for (int64_t j = g->dq.first[step]; j < g->dq.first[step + 1]; j++) {
        for (int64_t i = 0; i < ls_total_sums(&g->dkv, 0); i++)
            LS_TRY(meet_nodes(g, g->out[step % 2] + i * pair, g->dkv.node[i], g->dq.node[j], k, v,
                              both));
        if (g->call->q->dim[1] > 0) ls_total_add(&g->dq, problem, g->dq_sum);
    }
    return LS_OK;
}

/* Sums of this rank's keys over the queries that meet them in a step. */
static void add_sums(struct ls_part_gradients *g, int step, const float *pairs)
{
    const struct ls_problem *problem = &g->plan->problem;

    if (g->call->k->dim[1] == 0) return;
    for (int64_t i = 0; i < ls_total_sums(&g->dkv, step); i++)
        ls_total_add(&g->dkv, problem, pairs + i * g->dkv.floats);
}

static ls_status wait_for_messages(struct ls_part_gradients *g)
{
    const int n = g->requests;

    g->requests = 0;
    return ls_comm_wait(g->plan->comm, g->request, n);
}

/* Tags below 2 p are the methods' own. */
static ls_status post(struct ls_part_gradients *g, int step)
{
    const struct ls_problem *problem = &g->plan->problem;
    const int64_t theirs = ls_layout_part_rows(&problem->k_layout, g->owner[step]);
    const int64_t come = ls_total_sums(&g->dkv, step) * g->dkv.floats;
    const int64_t go = ls_total_sums(&g->dkv, 0) * pair_count(problem, theirs);
    const int tag = 2 * problem->p + step;

    if (come > 0)
        LS_TRY(ls_comm_receive(&g->request[g->requests++], g->plan->comm, g->in,
                               (size_t)come * sizeof *g->in, g->from[step], tag));
    if (go > 0)
        LS_TRY(ls_comm_send(&g->request[g->requests++], g->plan->comm, g->out[step % 2],
                            (size_t)go * sizeof *g->in, g->owner[step], tag));
    return LS_OK;
}

ls_status ls_part_gradients_pass(struct ls_part_gradients *g, int step)
{
    LS_TRY(wait_for_messages(g));
    if (step == 0) {
        add_sums(g, 0, g->out[0]);
        return LS_OK;
    }
    if (step > 1) add_sums(g, step - 1, g->in);
    return post(g, step);
}

ls_status ls_part_gradients_end(struct ls_part_gradients *g)
{
    const struct ls_problem *problem = &g->plan->problem;
    const struct ls_backward_call *call = g->call;
    const int64_t group = adds_groups(problem) ? 1 : problem->shape.h / problem->shape.h_kv;

    LS_TRY(wait_for_messages(g));
    if (problem->p > 1) add_sums(g, problem->p - 1, g->in);
    const float *dk = g->dkv.whole;

    ls_plan_round(call->dq, g->plan, g->dq.whole, 1);
    ls_plan_round(call->dk, g->plan, dk, group);
    ls_plan_round(call->dv, g->plan, dk ? dk + g->dkv.floats / 2 : NULL, group);
    return LS_OK;
}
