#include "attention/part_gradients.h"

#include <stdlib.h>
#include <string.h>

#include "attention/reach.h"
#include "attention/route.h"
#include "attention/total.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

/* What meets in each step. */
struct steps {
    int *owner, *from;                /* [p] whose keys come; who meets this rank's */
    int64_t *rows, *rows_back;        /* [p] of the keys that come; of this rank's that are met */
    struct ls_leaf_list *keys, *back; /* [p] their leaves, if order.seen; keys by rows that come */
    struct ls_leaf *leaf;             /* storage */
};

struct ls_part_gradients {
    struct ls_attention_plan *plan;
    struct ls_part_order order;
    struct steps steps;
    struct ls_total dq;           /* over parts of the keys */
    struct ls_total dkv;          /* of this rank's keys, over parts of the queries */
    float *dq_slots, *dq_sum;     /* storage of dq, and its next sum */
    float *dkv_slots;             /* storage of dkv */
    float *heads;                 /* dk, dv of every query head, where groups are added */
    float *out[2];                /* dk, dv of a step, node after node: step t's are out[t % 2] */
    float *in;                    /* those of this rank's keys from another rank */
    float *spread;                /* the same, at their places among all of the rank's */
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
    int64_t dq_slots, dq_sum, dkv_slots, heads, out, in, spread;
};

static int64_t most(const int64_t *rows, int p)
{
    int64_t found = 0;

    for (int i = 0; i < p; i++)
        if (rows[i] > found) found = rows[i];
    return found;
}

static struct memory memory_of(const struct ls_problem *problem, int rank, const struct sums *sums,
                               const struct steps *steps, struct ls_part_order order)
{
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t dq = ls_gradient_count(s, s->h, ls_layout_part_rows(&problem->q_layout, rank));
    const int64_t rows = most(steps->rows, problem->p);
    const int64_t back = most(steps->rows_back + 1, problem->p - 1);
    const int64_t own = pair_count(problem, steps->rows[0]);

    return (struct memory){
        .dq_slots = sums->dq_slots * dq,
        .dq_sum = dq,
        .dkv_slots = sums->dkv_slots * own,
        .heads = adds_groups(problem) ? 2 * ls_gradient_count(s, s->h, rows) : 0,
        .out = sums->own * pair_count(problem, rows),
        .in = sums->most_in * pair_count(problem, back),
        .spread = order.seen && problem->p > 1 ? own : 0,
    };
}

/* With two ranks, a rank's own sums are added before it computes those that it sends. */
static int out_buffers(const struct ls_problem *problem)
{
    return problem->p > 2 ? 2 : 1;
}

static size_t memory_bytes(const struct ls_problem *problem, const struct memory *m)
{
    return (size_t)(m->dq_slots + m->dq_sum + m->dkv_slots + m->heads + m->in + m->spread +
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

/* ---- who meets what */

static void free_steps(struct steps *steps)
{
    free(steps->owner);
    free(steps->rows);
    free(steps->keys);
    free(steps->leaf);
}

static bool create_steps(struct steps *out, const struct ls_problem *problem,
                         struct ls_part_order order, int rank)
{
    const size_t p = (size_t)problem->p;
    const size_t leaves = (size_t)ls_layout_leaves(&problem->k_layout);
    const size_t own = (size_t)ls_layout_part_leaves(&problem->k_layout, rank);

    *out = (struct steps){
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
static void list_seen(struct steps *out, bool *seen, const struct ls_problem *problem, int rank)
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
    for (int step = 1; step < problem->p; step++) {
        ls_reach_mark(seen, problem, out->from[step]);
        out->back[step] = list_marked(&out->rows_back[step], &next, problem, rank, seen);
    }
}

/* The caller frees them, also if this failed. */
static ls_status list_steps(struct steps *out, const struct ls_problem *problem,
                            struct ls_part_order order, int rank)
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
    if (enough && seen) list_seen(out, seen, problem, rank);
    free(seen);
    return enough ? LS_OK : ls_fail(LS_ENOMEM, "attention plan: out of memory");
}

static ls_status init_totals(struct ls_total *dq, struct ls_total *dkv, const struct steps *steps,
                             const struct ls_problem *problem)
{
    if (steps->keys)
        LS_TRY(ls_total_init_parts(dq, steps->keys, problem->p, problem->strict));
    else
        LS_TRY(ls_total_init(dq, &problem->k_layout, steps->owner, problem->strict));
    return ls_total_init(dkv, &problem->q_layout, steps->from, problem->strict);
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
static struct sums strict_sums(const struct ls_problem *problem, const struct steps *steps)
{
    struct ls_total dq = {0}, dkv = {0};
    struct sums sums = {0};

    if (init_totals(&dq, &dkv, steps, problem) == LS_OK) sums = sums_of(&dq, &dkv, problem->p);
    ls_total_fini(&dkv);
    ls_total_fini(&dq);
    return sums;
}

static struct ls_gradient_shape kernel_shape(const struct ls_problem *problem)
{
    return ls_plan_gradient_shape(problem, ls_layout_most_leaves(&problem->q_layout),
                                  ls_layout_most_leaves(&problem->k_layout));
}

static struct sums sums_of_rank(const struct ls_problem *problem, int rank,
                                const struct steps *steps)
{
    return problem->strict ? strict_sums(problem, steps) : fast_sums(problem, rank);
}

static size_t bytes_of_rank(const struct ls_problem *problem, struct ls_part_order order, int rank,
                            const struct steps *steps)
{
    const struct sums sums = sums_of_rank(problem, rank, steps);
    const struct memory m = memory_of(problem, rank, &sums, steps, order);

    return memory_bytes(problem, &m) + ls_gradients_bytes(problem, rank);
}

size_t ls_part_gradients_bytes(const struct ls_problem *problem, struct ls_part_order order,
                               int rank)
{
    struct steps steps;
    size_t bytes = 0;

    if (list_steps(&steps, problem, order, rank) == LS_OK)
        bytes = bytes_of_rank(problem, order, rank, &steps);
    free_steps(&steps);
    return bytes;
}

static void add_rank(struct ls_cost *cost, const struct ls_problem *problem,
                     struct ls_part_order order, int rank, const struct steps *steps)
{
    const size_t bytes = bytes_of_rank(problem, order, rank, steps);
    const int64_t own = sums_of_rank(problem, rank, steps).own;

    if (bytes > cost->gradient_bytes) cost->gradient_bytes = bytes;
    for (int step = 1; step < problem->p; step++) {
        const int64_t floats = own * pair_count(problem, steps->rows[step]);

        cost->backward_bytes_sent += floats * (int64_t)sizeof(float);
        cost->backward_messages += floats > 0;
    }
}

void ls_part_gradients_cost(struct ls_cost *cost, const struct ls_problem *problem,
                            struct ls_part_order order)
{
    if (!problem->backward) return;
    cost->workspace_bytes += ls_device_gradient_bytes(&problem->device, kernel_shape(problem));
    for (int r = 0; r < problem->p; r++) {
        struct steps steps;

        if (list_steps(&steps, problem, order, r) == LS_OK)
            add_rank(cost, problem, order, r, &steps);
        free_steps(&steps);
    }
}

/* ---- making */

static ls_status create_memory(struct ls_part_gradients *g, const struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const struct sums sums = sums_of(&g->dq, &g->dkv, problem->p);
    const struct memory m = memory_of(problem, plan->rank, &sums, &g->steps, g->order);

    LS_TRY(ls_alloc(&g->memory, LS_TAG_GRADIENT, memory_bytes(problem, &m)));
    g->dq_slots = g->memory;
    g->dq_sum = g->dq_slots + m.dq_slots;
    g->dkv_slots = g->dq_sum + m.dq_sum;
    g->heads = g->dkv_slots + m.dkv_slots;
    g->in = g->heads + m.heads;
    g->spread = g->in + m.in;
    g->out[0] = g->spread + m.spread;
    g->out[1] = g->out[0] + (out_buffers(problem) - 1) * m.out;
    return LS_OK;
}

static ls_status create(struct ls_part_gradients *g, struct ls_attention_plan *plan,
                        struct ls_part_order order)
{
    const struct ls_problem *problem = &plan->problem;

    g->plan = plan;
    g->order = order;
    LS_TRY(list_steps(&g->steps, problem, order, plan->rank));
    LS_TRY(init_totals(&g->dq, &g->dkv, &g->steps, problem));
    LS_TRY(create_memory(g, plan));
    return ls_gradient_kernel_create(&plan->gradients.kernel, &problem->device,
                                     kernel_shape(problem));
}

ls_status ls_part_gradients_create(struct ls_part_gradients **out, struct ls_attention_plan *plan,
                                   struct ls_part_order order)
{
    if (!plan->problem.backward) return LS_OK;
    struct ls_part_gradients *g = calloc(1, sizeof *g);

    if (!g) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    const ls_status status = create(g, plan, order);
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
    free_steps(&g->steps);
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

/* A sum of some of this rank's keys as one of all, 0 for the others. */
static const float *spread(const struct ls_part_gradients *g, const float *pair, int step)
{
    const struct ls_problem *problem = &g->plan->problem;
    const struct ls_leaf_list back = g->steps.back[step];
    const int64_t d = problem->shape.d, rows = g->steps.rows_back[step], all = g->steps.rows[0];
    const int64_t blocks = rows > 0 ? pair_count(problem, rows) / (rows * d) : 0;

    memset(g->spread, 0, (size_t)g->dkv.floats * sizeof *pair);
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t i = 0; i < back.count; i++)
            memcpy(g->spread + (block * all + back.leaf[i].row) * d,
                   pair + (block * rows + i * LS_LEAF) * d,
                   (size_t)(ls_layout_leaf_rows(&problem->k_layout, back.leaf[i].number) * d) *
                       sizeof *pair);
    return g->spread;
}

/* Sums of this rank's keys over the queries that meet them in a step. */
static void add_sums(struct ls_part_gradients *g, int step, const float *pairs)
{
    const struct ls_problem *problem = &g->plan->problem;
    const int64_t rows = g->steps.rows_back[step];

    if (g->call->k->dim[1] == 0) return;
    for (int64_t i = 0; i < ls_total_sums(&g->dkv, step); i++) {
        const float *pair = pairs + i * pair_count(problem, rows);

        if (g->order.seen && step > 0) pair = rows > 0 ? spread(g, pair, step) : NULL;
        ls_total_add(&g->dkv, problem, pair);
    }
}

static ls_status wait_for_messages(struct ls_part_gradients *g)
{
    const int n = g->requests;

    g->requests = 0;
    return ls_comm_wait(g->plan->comm, g->request, n);
}

/* Messages of a method's own may have the same tags: they are posted before, on both sides. */
static ls_status post(struct ls_part_gradients *g, int step)
{
    const struct ls_problem *problem = &g->plan->problem;
    const int64_t come =
        ls_total_sums(&g->dkv, step) * pair_count(problem, g->steps.rows_back[step]);
    const int64_t go = ls_total_sums(&g->dkv, 0) * pair_count(problem, g->steps.rows[step]);
    const int tag = 2 * problem->p + step;

    if (come > 0)
        LS_TRY(ls_comm_receive(&g->request[g->requests++], g->plan->comm, g->in,
                               (size_t)come * sizeof *g->in, g->steps.from[step], tag));
    if (go > 0)
        LS_TRY(ls_comm_send(&g->request[g->requests++], g->plan->comm, g->out[step % 2],
                            (size_t)go * sizeof *g->in, g->steps.owner[step], tag));
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
