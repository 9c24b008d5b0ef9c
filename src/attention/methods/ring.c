/* K and V travel round a ring of ranks, one part a step; each rank folds what passes into the
 * results of its queries. While a step computes, its part is already on its way to the next rank
 * and the part of the next step arrives. A rank's own part is read, and sent, where the caller has
 * it, or from a copy if it is not in one piece there.
 * Source: Liu, Zaharia, Abbeel 2023, "Ring attention with blockwise transformers". */
#include "attention/methods/ring.h"

#include <stdlib.h>

#include "attention/leaves.h"
#include "attention/merging/fold.h"
#include "attention/methods/part_gradients.h"
#include "attention/methods/table.h"
#include "attention/travelling/route.h"
#include "attention/travelling/travel.h"
#include "base/ledger.h"
#include "plan/attention_size.h"
#include "tensor/contiguous.h"

#define HOP_MESSAGES 4

/* The leaves of every rank's keys in the order in which they come to a rank. */
struct parts {
    struct ls_leaf_list *at; /* [p] */
    struct ls_leaf *leaf;    /* storage */
    int *owner;              /* [p] */
};

struct ring {
    struct ls_route route;
    struct parts parts;
    struct ls_fold fold;
    struct ls_part_gradients *gradients;
    struct ls_batch inner, outer; /* messages of the two rings */
    void *travel;                 /* [ls_route_buffers][travel_bytes] K, then V of one part */
};

static void free_parts(struct parts *parts)
{
    free(parts->at);
    free(parts->leaf);
    free(parts->owner);
}

static ls_status list_parts(struct parts *out, const struct ls_layout *keys,
                            const struct ls_route *route)
{
    const size_t p = (size_t)keys->p;

    out->at = calloc(p, sizeof *out->at);
    out->leaf = calloc((size_t)ls_layout_leaves(keys) + 1, sizeof *out->leaf);
    out->owner = calloc(p, sizeof *out->owner);
    if (!out->at || !out->leaf || !out->owner)
        return ls_fail(LS_ENOMEM, "ring attention: out of memory");
    for (int step = 0; step < keys->p; step++) out->owner[step] = ls_route_owner(route, step);
    ls_leaves_by_rank(out->at, out->leaf, keys, out->owner);
    return LS_OK;
}

/* Adds those of the rank that needs most. */
static ls_status add_state_bytes(size_t *out, const struct ls_problem *problem, int node)
{
    ls_status status = LS_OK;
    size_t most = 0;

    if (!problem->strict) {
        if (problem->p > 1)
            *out += ls_row_state_bytes(&problem->shape, ls_layout_most_rows(&problem->q_layout));
        return LS_OK;
    }
    for (int r = 0; r < problem->p && status == LS_OK; r++) {
        const struct ls_route route = ls_route_of(problem->p, node, r);
        struct parts parts;
        size_t bytes = 0;

        status = list_parts(&parts, &problem->k_layout, &route);
        if (status == LS_OK) status = ls_fold_bytes(&bytes, problem, r, parts.at, problem->p);
        if (bytes > most) most = bytes;
        free_parts(&parts);
    }
    *out += most;
    return status;
}

/* Of one of the buffers; a part must fit whosever it is. */
static size_t travel_bytes(const struct ls_problem *problem)
{
    return ls_key_value_bytes(&problem->shape, ls_layout_most_rows(&problem->k_layout));
}

static size_t all_travel_bytes(const struct ls_problem *problem, const struct ls_route *route)
{
    return (size_t)ls_route_buffers(route) * travel_bytes(problem);
}

ls_status ls_ring_cost(struct ls_cost *out, const struct ls_problem *problem, int node)
{
    const struct ls_route route = ls_route_of(problem->p, node, 0);

    *out = ls_method_work(problem);
    out->bytes_sent =
        (int64_t)ls_key_value_bytes(&problem->shape, problem->shape.s_k) * (problem->p - 1);
    out->messages = 2 * (int64_t)problem->p * (problem->p - 1);
    out->workspace_bytes = ls_problem_kernel_bytes(problem);
    LS_TRY(add_state_bytes(&out->workspace_bytes, problem, node));
    out->comm_bytes = all_travel_bytes(problem, &route);
    if (!problem->backward) return LS_OK;
    out->backward_bytes_sent = out->bytes_sent;
    out->backward_messages = out->messages;
    return ls_part_gradients_cost(out, problem, (struct ls_part_order){.node = node});
}

void ls_ring_destroy(struct ls_attention_plan *plan)
{
    struct ring *own = plan->own;

    ls_part_gradients_destroy(own->gradients);
    ls_batch_fini(&own->outer);
    ls_batch_fini(&own->inner);
    ls_problem_free(&plan->problem, own->travel);
    ls_fold_fini(&own->fold);
    free_parts(&own->parts);
    free(own);
}

ls_status ls_ring_create(struct ls_attention_plan *plan, int node)
{
    const struct ls_problem *problem = &plan->problem;
    struct ring *own = calloc(1, sizeof *own);

    if (!own) return ls_fail(LS_ENOMEM, "ring attention: out of memory");
    plan->own = own;
    own->route = ls_route_of(problem->p, node, plan->rank);
    LS_TRY(list_parts(&own->parts, &problem->k_layout, &own->route));
    LS_TRY(ls_fold_init(&own->fold, plan, own->parts.at, problem->p));
    LS_TRY(ls_part_gradients_create(&own->gradients, plan, (struct ls_part_order){.node = node}));
    LS_TRY(ls_batch_init(&own->inner, &plan->transport, HOP_MESSAGES));
    LS_TRY(ls_batch_init(&own->outer, &plan->transport, HOP_MESSAGES));
    LS_TRY(ls_problem_alloc(&own->travel, problem, LS_TAG_COMM,
                            all_travel_bytes(problem, &own->route)));
    return ls_problem_kernel_create(&plan->kernel, problem);
}

/* One part of the keys, wherever it is. */
struct key_part {
    struct ls_tensor k, v;
};

/* The part of a step in its travel buffer. */
static struct key_part travelling_part(const struct ls_attention_plan *plan, int step)
{
    const struct ring *own = plan->own;
    const int owner = ls_route_owner(&own->route, step);
    const struct ls_attention_shape *s = &plan->problem.shape;
    const int64_t rows = ls_layout_part_rows(&plan->problem.k_layout, owner);
    const size_t at = (size_t)ls_route_buffer(&own->route, step) * travel_bytes(&plan->problem);
    char *k = (char *)own->travel + at, *v = k + ls_key_bytes(s, rows);

    return (struct key_part){.k = ls_problem_keys(&plan->problem, k, rows),
                             .v = ls_problem_values(&plan->problem, v, rows)};
}

/* This rank's own part, in one piece if it is to be sent. */
static struct key_part own_part(const struct ls_attention_plan *plan, const struct ls_tensor *k,
                                const struct ls_tensor *v)
{
    if (plan->problem.p == 1 || (ls_tensor_is_contiguous(k) && ls_tensor_is_contiguous(v)))
        return (struct key_part){.k = *k, .v = *v};
    struct key_part part = travelling_part(plan, 0);
    ls_problem_copy(&plan->problem, &part.k, k);
    ls_problem_copy(&plan->problem, &part.v, v);
    return part;
}

/* The part `now` of this step goes on, another comes in. */
static ls_status start_hop(struct ls_batch *batch, const struct ls_attention_plan *plan,
                           const struct key_part *now, const struct ls_hop *hop)
{
    const struct key_part next = travelling_part(plan, hop->next);

    ls_batch_receive(batch, next.k.data, ls_travel_bytes(&next.k), hop->from);
    ls_batch_receive(batch, next.v.data, ls_travel_bytes(&next.v), hop->from);
    ls_batch_send(batch, now->k.data, ls_travel_bytes(&now->k), hop->to);
    ls_batch_send(batch, now->v.data, ls_travel_bytes(&now->v), hop->to);
    return ls_batch_start(batch);
}

static ls_status start_exchange(struct ls_attention_plan *plan, const struct key_part *now,
                                int step)
{
    struct ring *own = plan->own;
    struct ls_hop hop;

    if (ls_route_inner_hop(&hop, &own->route, step))
        LS_TRY(start_hop(&own->inner, plan, now, &hop));
    if (ls_route_outer_hop(&hop, &own->route, step))
        LS_TRY(start_hop(&own->outer, plan, now, &hop));
    return LS_OK;
}

/* For what has to be here, or gone, when this step ends. */
static ls_status wait_for_exchange(struct ring *own, int step)
{
    LS_TRY(ls_batch_wait(&own->inner));
    return ls_route_ends_outer(&own->route, step) ? ls_batch_wait(&own->outer) : LS_OK;
}

ls_status ls_ring_forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    struct ring *own = plan->own;

    ls_fold_begin(&own->fold);
    for (int step = 0; step < plan->problem.p; step++) {
        const struct key_part now =
            step == 0 ? own_part(plan, call->k, call->v) : travelling_part(plan, step);

        LS_TRY(start_exchange(plan, &now, step));
        ls_fold_part(&own->fold, plan, call, step, &now.k, &now.v);
        LS_TRY(wait_for_exchange(own, step));
    }
    return LS_OK;
}

/* The same round; what a step gives goes to the owner of its keys. */
ls_status ls_ring_backward(struct ls_attention_plan *plan, const struct ls_backward_call *call)
{
    struct ring *own = plan->own;

    ls_part_gradients_begin(own->gradients, call);
    for (int step = 0; step < plan->problem.p; step++) {
        const struct key_part now =
            step == 0 ? own_part(plan, call->k, call->v) : travelling_part(plan, step);

        LS_TRY(start_exchange(plan, &now, step));
        ls_part_gradients_meet(own->gradients, step, &now.k, &now.v);
        LS_TRY(ls_part_gradients_pass(own->gradients, step));
        LS_TRY(wait_for_exchange(own, step));
    }
    return ls_part_gradients_end(own->gradients);
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    return ls_ring_cost(out, problem, 1);
}

static ls_status create(struct ls_attention_plan *plan)
{
    return ls_ring_create(plan, 1);
}

const struct ls_method ls_method_ring = {
    .name = "ring",
    .summary = "parts of K and V travel round a ring; memory O(s/p)",
    .fits = ls_method_fits_all,
    .merges = true,
    .layout = ls_method_even_layout,
    .cost = cost,
    .create = create,
    .destroy = ls_ring_destroy,
    .forward = ls_ring_forward,
    .backward = ls_ring_backward,
};
