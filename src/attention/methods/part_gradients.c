#include "attention/methods/part_gradients.h"

#include <stdlib.h>

#include "attention/gradient.h"
#include "attention/methods/part_gradients_size.h"
#include "device/rows.h"
#include "plan/attention_size.h"

struct ls_part_gradients {
    struct ls_attention_plan *plan;
    struct ls_part_order order;
    struct ls_part_steps steps;
    struct ls_total dq;       /* over parts of the keys */
    struct ls_total dkv;      /* of this rank's keys, over parts of the queries */
    float *dq_slots, *dq_sum; /* storage of dq, and its next sum */
    float *dkv_slots;         /* storage of dkv */
    float *heads;             /* dk, dv of every query head, where groups are added */
    float *out[2];            /* dk, dv of a step, node after node: step t's are out[t % 2] */
    float *in;                /* those of this rank's keys from another rank */
    float *spread;            /* the same, at their places among all of the rank's */
    struct ls_batch batch;    /* of out and in */
    void *memory;
    const struct ls_backward_call *call;
    int64_t last_met; /* the node of the queries that met keys last; -1: none in this execution */
};

/* ---- making */

static ls_status create_memory(struct ls_part_gradients *g, const struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const struct ls_part_sums sums = ls_part_sums_of(&g->dq, &g->dkv, problem->p);
    const struct ls_part_memory m =
        ls_part_memory_of(problem, plan->rank, &sums, &g->steps, g->order);

    LS_TRY(
        ls_problem_alloc(&g->memory, problem, LS_TAG_GRADIENT, ls_part_memory_bytes(problem, &m)));
    g->dq_slots = g->memory;
    g->dq_sum = g->dq_slots + m.dq_slots;
    g->dkv_slots = g->dq_sum + m.dq_sum;
    g->heads = g->dkv_slots + m.dkv_slots;
    g->in = g->heads + m.heads;
    g->spread = g->in + m.in;
    g->out[0] = g->spread + m.spread;
    g->out[1] = g->out[0] + (ls_part_out_buffers(problem) - 1) * m.out;
    return LS_OK;
}

static ls_status create(struct ls_part_gradients *g, struct ls_attention_plan *plan,
                        struct ls_part_order order)
{
    const struct ls_problem *problem = &plan->problem;

    g->plan = plan;
    g->order = order;
    LS_TRY(ls_part_steps_init(&g->steps, problem, order, plan->rank, true));
    LS_TRY(ls_part_totals_init(&g->dq, &g->dkv, &g->steps, problem));
    LS_TRY(create_memory(g, plan));
    LS_TRY(ls_batch_init(&g->batch, &plan->transport, 2));
    return ls_gradient_kernel_create(&plan->gradients.kernel, problem->device,
                                     ls_part_kernel_shape(problem));
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
    ls_batch_fini(&g->batch);
    ls_total_fini(&g->dkv);
    ls_total_fini(&g->dq);
    ls_problem_free(&g->plan->problem, g->memory);
    ls_part_steps_fini(&g->steps);
    free(g);
}

/* ---- execution */

void ls_part_gradients_begin(struct ls_part_gradients *g, const struct ls_backward_call *call)
{
    const struct ls_problem *problem = &g->plan->problem;

    g->call = call;
    g->last_met = -1;
    ls_total_begin(&g->dq, g->dq_slots,
                   ls_gradient_count(&problem->shape, problem->shape.h, call->q->dim[1]));
    ls_total_begin(&g->dkv, g->dkv_slots, ls_part_pair_count(problem, call->k->dim[1]));
}

/* out [b, h_kv, rows, d] = from [b, h, rows, d] with the heads of each group added. */
static void add_heads(float *out, const struct ls_problem *problem, const float *from, int64_t rows,
                      int64_t d)
{
    const struct ls_attention_shape *s = &problem->shape;
    struct ls_tensor view = {.type = LS_F32,
                             .ndim = 4,
                             .dim = {s->b, rows, s->h_kv, d},
                             .stride = {s->h_kv * rows * d, d, rows * d, 1},
                             .data = out};

    ls_round_sums(&problem->device->queue, &view, from, NULL, s->h / s->h_kv);
}

/* pair: dk, then dv. */
static void add_groups(float *pair, const struct ls_part_gradients *g, int64_t rows)
{
    const struct ls_problem *problem = &g->plan->problem;
    const struct ls_attention_shape *s = &problem->shape;

    add_heads(pair, problem, g->heads, rows, s->d);
    add_heads(pair + ls_gradient_count(s, s->h_kv, rows), problem,
              g->heads + ls_gradient_count(s, s->h, rows), rows, ls_value_dim(s));
}

/* Whether one meeting gives all sums. */
static bool meets_once(const struct ls_part_gradients *g)
{
    return g->plan->problem.p == 1 && ls_total_sums(&g->dq, 0) == 1 &&
           ls_total_sums(&g->dkv, 0) == 1;
}

/* What it has rounded at once. */
static struct ls_gradient_rounded rounded_at_once(const struct ls_part_gradients *g)
{
    const struct ls_attention_shape *s = &g->plan->problem.shape;
    const struct ls_backward_call *call = g->call;

    if (!meets_once(g)) return (struct ls_gradient_rounded){0};
    if (s->h > s->h_kv) return (struct ls_gradient_rounded){.dq = call->dq};
    return (struct ls_gradient_rounded){call->dq, call->dk, call->dv};
}

/* The i-th node of the queries meets one of the keys. dq: over this node of the keys; pair: dk and
 * dv over this node of the queries. */
static void meet_nodes(struct ls_part_gradients *g, float *dq, float *pair, int64_t i,
                       struct ls_leaf_list keys, const struct ls_tensor *k,
                       const struct ls_tensor *v)
{
    const struct ls_problem *problem = &g->plan->problem;
    float *dk = ls_part_adds_groups(problem) ? g->heads : pair;
    const struct ls_gradient_call call = {
        .q = g->call->q,
        .d_o = g->call->d_o,
        .k = k,
        .v = v,
        .lse = g->call->lse,
        .delta = g->call->delta,
        .q_leaves = g->dkv.node[i],
        .k_leaves = keys,
        .same_queries = i == g->last_met,
        .dq = dq,
        .dk = dk,
        .dv = dk + ls_gradient_count(&problem->shape, problem->shape.h, k->dim[1]),
        .rounded = rounded_at_once(g),
    };

    ls_plan_gradient(g->plan, &call);
    g->last_met = i;
    if (ls_part_adds_groups(problem)) add_groups(pair, g, k->dim[1]);
}

/* dk and dv of a step over the i-th node of the queries. */
static float *pair_of(const struct ls_part_gradients *g, int step, int64_t i, int64_t rows)
{
    const struct ls_problem *problem = &g->plan->problem;
    float *pair = g->out[step % 2] + i * ls_part_pair_count(problem, rows);

    return step == 0 && i == 0 ? ls_total_room(&g->dkv, problem, pair) : pair;
}

void ls_part_gradients_meet(struct ls_part_gradients *g, int step, const struct ls_tensor *k,
                            const struct ls_tensor *v)
{
    const struct ls_problem *problem = &g->plan->problem;

    for (int64_t j = g->dq.first[step]; j < g->dq.first[step + 1]; j++) {
        float *dq = ls_total_room(&g->dq, problem, g->dq_sum);

        for (int64_t i = 0; i < ls_total_sums(&g->dkv, 0); i++)
            meet_nodes(g, dq, pair_of(g, step, i, k->dim[1]), i, g->dq.node[j], k, v);
        if (g->call->q->dim[1] > 0) ls_total_add(&g->dq, problem, dq);
    }
}

/* The leaves of a step of dk or dv to their places among all of the rank's. */
static void spread_leaves(float *out, const struct ls_part_gradients *g, const float *from,
                          int step, int64_t d)
{
    const struct ls_problem *problem = &g->plan->problem;
    const struct ls_leaf_list back = g->steps.back[step];
    const int64_t rows = g->steps.rows_back[step], all = g->steps.rows[0];
    const int64_t heads = problem->shape.b * ls_part_heads(problem);

    for (int64_t i = 0; i < back.count; i++)
        ls_problem_copy_floats(problem, out + back.leaf[i].row * d, all * d, from + i * LS_LEAF * d,
                               rows * d, heads,
                               ls_layout_leaf_rows(&problem->k_layout, back.leaf[i].number) * d);
}

/* A sum of some of this rank's keys as one of all, 0 for the others. */
static const float *spread(const struct ls_part_gradients *g, const float *pair, int step)
{
    const struct ls_problem *problem = &g->plan->problem;
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t heads = ls_part_heads(problem);
    struct ls_tensor whole = ls_tensor_view(g->spread, LS_F32, 1, &g->dkv.floats);

    ls_zero(&problem->device->queue, &whole);
    spread_leaves(g->spread, g, pair, step, s->d);
    spread_leaves(g->spread + ls_gradient_count(s, heads, g->steps.rows[0]), g,
                  pair + ls_gradient_count(s, heads, g->steps.rows_back[step]), step,
                  ls_value_dim(s));
    return g->spread;
}

/* Sums of this rank's keys over the queries that meet them in a step. */
static void add_sums(struct ls_part_gradients *g, int step)
{
    const struct ls_problem *problem = &g->plan->problem;
    const int64_t rows = g->steps.rows_back[step];

    if (g->call->k->dim[1] == 0) return;
    for (int64_t i = 0; i < ls_total_sums(&g->dkv, step); i++) {
        const float *pair =
            step == 0 ? pair_of(g, 0, i, rows) : g->in + i * ls_part_pair_count(problem, rows);

        if (g->order.seen && step > 0) pair = rows > 0 ? spread(g, pair, step) : NULL;
        ls_total_add(&g->dkv, problem, pair);
    }
}

static ls_status start_messages(struct ls_part_gradients *g, int step)
{
    const struct ls_problem *problem = &g->plan->problem;
    const int64_t come =
        ls_total_sums(&g->dkv, step) * ls_part_pair_count(problem, g->steps.rows_back[step]);
    const int64_t go = ls_total_sums(&g->dkv, 0) * ls_part_pair_count(problem, g->steps.rows[step]);

    if (come > 0)
        ls_batch_receive(&g->batch, g->in, (size_t)come * sizeof *g->in, g->steps.from[step]);
    if (go > 0)
        ls_batch_send(&g->batch, g->out[step % 2], (size_t)go * sizeof *g->in,
                      g->steps.owner[step]);
    return ls_batch_start(&g->batch);
}

ls_status ls_part_gradients_pass(struct ls_part_gradients *g, int step)
{
    LS_TRY(ls_batch_wait(&g->batch));
    if (step == 0) {
        add_sums(g, 0);
        return LS_OK;
    }
    if (step > 1) add_sums(g, step - 1);
    return start_messages(g, step);
}

ls_status ls_part_gradients_end(struct ls_part_gradients *g)
{
    const struct ls_problem *problem = &g->plan->problem;
    const struct ls_backward_call *call = g->call;
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t heads = ls_part_heads(problem), group = heads / s->h_kv;
    const int64_t dk = ls_gradient_count(s, heads, call->k->dim[1]);
    const struct ls_gradient_rounded done = rounded_at_once(g);

    LS_TRY(ls_batch_wait(&g->batch));
    if (problem->p > 1) add_sums(g, problem->p - 1);

    if (!done.dq) ls_plan_round(call->dq, g->plan, g->dq.whole, 1);
    if (!done.dk) ls_plan_round(call->dk, g->plan, g->dkv.whole, group);
    if (!done.dv) ls_plan_round(call->dv, g->plan, ls_terms_behind(g->dkv.whole, dk), group);
    return LS_OK;
}
