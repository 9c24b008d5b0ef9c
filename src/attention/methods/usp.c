/* Ulysses and ring at once: ranks stand in a grid, u of them in each of r places. Those of a place
 * swap their positions for heads, as in Ulysses, so that each has all the place's positions of some
 * heads; then the ranks with the same heads, one of each place, make a ring. The ring's messages
 * are shorter than with all ranks in one ring, and more ranks than heads can work.
 * Source: Fang, Zhao 2024, "USP: a unified sequence parallelism approach for long context
 * generative AI". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/gradient.h"
#include "attention/leaves.h"
#include "attention/methods/part_gradients.h"
#include "attention/methods/ring.h"
#include "attention/methods/table.h"
#include "attention/plan.h"
#include "attention/travelling/swap.h"

/* A problem of some of the ranks: which leaves these have is dealt. */
struct usp {
    struct ls_problem place; /* of the ranks that swap */
    struct ls_comm *place_comm;
    struct ls_attention_plan ring; /* of the ranks with these heads */
    struct ls_swap swap;
};

static const char *fits(const struct ls_problem *problem)
{
    static _Thread_local char reason[96];

    if (problem->shape.h_kv % problem->grid_heads == 0) return NULL;
    snprintf(reason, sizeof reason, "%ld key/value heads cannot be dealt evenly to %d ranks",
             (long)problem->shape.h_kv, problem->grid_heads);
    return reason;
}

static int rank_at(const struct ls_problem *problem, int place, int member)
{
    return problem->ring_inside ? member * problem->grid_ring + place
                                : place * problem->grid_heads + member;
}

/* ---- problems of some of the ranks */

/* How many leaves each of the ones has, and who has the last one. */
static void count_leaves(struct ls_dealing *out, const struct ls_layout *from, const int *ranks,
                         int count, int together)
{
    const int64_t last = ls_layout_leaves(from) - 1;
    int64_t leaves = 0;

    out->last = -1;
    for (int i = 0; i < count; i++) {
        const int64_t n = ls_layout_part_leaves(from, ranks[i]);

        leaves += n;
        out->first[i / together + 1] = leaves;
        if (n > 0 && ls_layout_part_leaf(from, ranks[i], n - 1) == last) out->last = i / together;
    }
}

static void list_leaves(struct ls_dealing *out, const struct ls_layout *from, const int *ranks,
                        int count)
{
    int64_t *leaf = out->leaf;

    for (int i = 0; i < count; i++) {
        const int64_t n = ls_layout_part_leaves(from, ranks[i]);

        for (int64_t j = 0; j < n; j++) *leaf++ = ls_layout_part_leaf(from, ranks[i], j);
    }
}

/* layout = that of `ranks` of layout->p, of whom each `together` that follow each other are one.
 * Without a list it says how many rows a rank has, not which. */
static ls_status deal(struct ls_layout *layout, struct ls_dealing **dealing, const int *ranks,
                      int count, int together, bool listed)
{
    const struct ls_layout from = *layout;
    struct ls_dealing *made = calloc(1, sizeof *made);

    if (made) {
        made->first = calloc((size_t)(count / together) + 1, sizeof *made->first);
        made->leaf = calloc(listed ? (size_t)ls_layout_leaves(layout) + 1 : 1, sizeof *made->leaf);
    }
    if (!made || !made->first || !made->leaf) {
        ls_dealing_destroy(made);
        return ls_fail(LS_ENOMEM, "usp attention: out of memory");
    }
    count_leaves(made, &from, ranks, count, together);
    if (listed) list_leaves(made, &from, ranks, count);
    *layout = (struct ls_layout){
        .kind = LS_LAYOUT_BALANCED, .s = from.s, .p = count / together, .dealing = made};
    *dealing = made;
    return LS_OK;
}

static ls_status deal_both(struct ls_problem *out, const struct ls_problem *problem,
                           const int *ranks, int count, int together, bool listed)
{
    *out = *problem;
    out->opened = false;
    out->mask_set = (struct ls_mask_set){.room = 0}; /* those of the whole problem stay */
    out->rules = NULL;
    out->p = count / together;
    out->dealing[0] = out->dealing[1] = NULL;
    LS_TRY(deal(&out->q_layout, &out->dealing[0], ranks, count, together, listed));
    return deal(&out->k_layout, &out->dealing[1], ranks, count, together, listed);
}

/* The ranks of a place. fini accepts what init left when it failed. */
static ls_status place_init(struct ls_problem *out, int *ranks, const struct ls_problem *problem,
                            int place, bool listed)
{
    for (int i = 0; i < problem->grid_heads; i++) ranks[i] = rank_at(problem, place, i);
    return deal_both(out, problem, ranks, problem->grid_heads, 1, listed);
}

/* The places, as the ranks of a ring with one member's heads; ranks: room for all. */
static ls_status ring_init(struct ls_problem *out, int *ranks, const struct ls_problem *problem,
                           int member)
{
    const int u = problem->grid_heads;

    for (int i = 0; i < problem->p; i++) ranks[i] = rank_at(problem, i / u, i % u);
    LS_TRY(deal_both(out, problem, ranks, problem->p, u, true));
    out->shape.h /= u;
    out->shape.h_kv /= u;
    out->scores.first_head += member * out->shape.h;
    return LS_OK;
}

/* ---- cost */

static ls_status add_swaps(struct ls_cost *out, const struct ls_problem *problem, int *ranks)
{
    ls_status status = LS_OK;

    for (int place = 0; place < problem->grid_ring && status == LS_OK; place++) {
        struct ls_problem some = {0};

        status = place_init(&some, ranks, problem, place, false);
        if (status == LS_OK) ls_swap_cost(out, &some);
        ls_problem_fini(&some);
    }
    return status;
}

/* Of the rank that takes most. */
static ls_status gradient_bytes(size_t *out, const struct ls_problem *problem,
                                const struct ls_problem *ring)
{
    *out = 0;
    for (int i = 0; i < problem->p && problem->backward; i++) {
        const int place = i / problem->grid_heads;
        const int rank = rank_at(problem, place, i % problem->grid_heads);
        size_t bytes;

        LS_TRY(ls_part_gradients_bytes(&bytes, ring, (struct ls_part_order){.node = 1}, place));
        bytes += ls_gradients_bytes(problem, rank);
        if (bytes > *out) *out = bytes;
    }
    return LS_OK;
}

/* u rings like this one. */
static ls_status add_ring(struct ls_cost *out, const struct ls_problem *problem,
                          const struct ls_problem *one)
{
    const int u = problem->grid_heads;
    struct ls_cost ring;

    LS_TRY(ls_ring_cost(&ring, one, 1));
    out->flops_most = ring.flops_most;
    out->call_rows = ring.call_rows;
    out->bytes_sent += ring.bytes_sent * u;
    out->messages += ring.messages * u;
    out->backward_bytes_sent += ring.backward_bytes_sent * u;
    out->backward_messages += ring.backward_messages * u;
    out->workspace_bytes = ring.workspace_bytes;
    out->comm_bytes += ring.comm_bytes;
    return gradient_bytes(&out->gradient_bytes, problem, one);
}

static ls_status add_rings(struct ls_cost *out, const struct ls_problem *problem, int *ranks)
{
    struct ls_problem some = {0};
    ls_status status = ring_init(&some, ranks, problem, 0);

    if (status == LS_OK) status = add_ring(out, problem, &some);
    ls_problem_fini(&some);
    return status;
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    int *ranks = calloc((size_t)problem->p, sizeof *ranks);
    ls_status status = ranks ? LS_OK : ls_fail(LS_ENOMEM, "usp attention: out of memory");

    *out = ls_method_work(problem);
    if (status == LS_OK) status = add_swaps(out, problem, ranks);
    if (status == LS_OK) status = add_rings(out, problem, ranks);
    free(ranks);
    return status;
}

/* ---- making */

static void destroy(struct ls_attention_plan *plan)
{
    struct usp *own = plan->own;

    if (own->ring.own) ls_ring_destroy(&own->ring);
    ls_gradients_destroy(&own->ring);
    free(own->ring.q_leaf);
    ls_comm_destroy(own->ring.comm);
    ls_problem_fini(&own->ring.problem);
    ls_swap_fini(&own->swap);
    ls_comm_destroy(own->place_comm);
    ls_problem_fini(&own->place);
    free(own);
}

static ls_status list_queries(struct ls_attention_plan *ring)
{
    const struct ls_layout *queries = &ring->problem.q_layout;
    const int64_t leaves = ls_layout_part_leaves(queries, ring->rank);

    ring->q_leaf = calloc((size_t)leaves + 1, sizeof *ring->q_leaf);
    if (!ring->q_leaf) return ls_fail(LS_ENOMEM, "usp attention: out of memory");
    ls_leaves_append(ring->q_leaf, &ring->q_leaves.count, queries, ring->rank, 0);
    ls_leaves_sort(ring->q_leaf, leaves);
    ring->q_leaves.leaf = ring->q_leaf;
    return LS_OK;
}

/* Collective: the groups that a rank is in, with their problems. ranks: room for all. */
static ls_status join_groups(struct usp *own, struct ls_attention_plan *plan, int *ranks)
{
    const struct ls_problem *problem = &plan->problem;
    const int u = problem->grid_heads, r = problem->grid_ring, rank = plan->rank;
    const int place = problem->ring_inside ? rank % r : rank / u;
    const int member = problem->ring_inside ? rank / r : rank % u;

    LS_TRY(ls_comm_agree(plan->comm, place_init(&own->place, ranks, problem, place, true)));
    LS_TRY(ls_comm_split(&own->place_comm, plan->comm, ranks, u));
    LS_TRY(ls_comm_agree(plan->comm, ring_init(&own->ring.problem, ranks, problem, member)));
    for (int i = 0; i < r; i++) ranks[i] = rank_at(problem, i, member);
    return ls_comm_split(&own->ring.comm, plan->comm, ranks, r);
}

/* The sub-groups' traffic is the plan's, and so is the kernel, as the plan says what it is. */
static ls_status create_parts(struct usp *own, struct ls_attention_plan *plan)
{
    const struct ls_transport place = ls_plan_transport(plan, own->place_comm);

    own->ring.rank = ls_comm_rank(own->ring.comm);
    own->ring.transport = ls_plan_transport(plan, own->ring.comm);
    LS_TRY(ls_swap_init(&own->swap, &own->place, &place));
    LS_TRY(list_queries(&own->ring));
    LS_TRY(ls_gradients_create(&own->ring));
    const ls_status status = ls_ring_create(&own->ring, 1);

    plan->kernel = own->ring.kernel;
    return status;
}

static ls_status create(struct ls_attention_plan *plan)
{
    int *ranks = calloc((size_t)plan->problem.p, sizeof *ranks);
    struct usp *own = calloc(1, sizeof *own);
    ls_status status = ranks && own ? LS_OK : ls_fail(LS_ENOMEM, "usp attention: out of memory");

    plan->own = own;
    status = ls_comm_agree(plan->comm, status);
    if (status == LS_OK) status = join_groups(own, plan, ranks);
    if (status == LS_OK) status = create_parts(own, plan);
    free(ranks);
    return status;
}

/* ---- execution */

static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    struct usp *own = plan->own;
    struct ls_swap_place *place = own->swap.forward;
    const struct ls_tensor lse = ls_travel_transposed(call->lse);
    const struct ls_tensor *const there[LS_TRAVELLERS] = {
        [LS_LIKE_Q] = call->q, [LS_LIKE_K] = call->k, [LS_LIKE_V] = call->v};
    const struct ls_tensor *const back[LS_TRAVELLERS] = {
        [LS_LSE] = &lse, [LS_LIKE_O] = call->o, [LS_O_LO] = call->o_lo};
    struct ls_tensor ring_lse = ls_travel_transposed(&place[LS_LSE].all);

    own->ring.now = plan->now;
    LS_TRY(ls_swap_there(&own->swap, place, there));
    LS_TRY(ls_ring_forward(&own->ring, &(struct ls_attention_call){
                                           .o = &place[LS_LIKE_O].all,
                                           .o_lo = call->o_lo ? &place[LS_O_LO].all : NULL,
                                           .lse = &ring_lse,
                                           .q = &place[LS_LIKE_Q].all,
                                           .k = &place[LS_LIKE_K].all,
                                           .v = &place[LS_LIKE_V].all,
                                       }));
    return ls_swap_back(back, &own->swap, place);
}

/* Gradients are written where q, k and v were. */
static ls_status backward(struct ls_attention_plan *plan, const struct ls_backward_call *call)
{
    struct usp *own = plan->own;
    struct ls_swap_place *place = own->swap.backward;
    const struct ls_gradients *numbers = &own->ring.gradients;
    const struct ls_tensor lse =
        ls_travel_numbers(&plan->problem.shape, call->q->dim[1], call->lse);
    const struct ls_tensor delta =
        ls_travel_numbers(&plan->problem.shape, call->q->dim[1], call->delta);
    const struct ls_tensor *const there[LS_TRAVELLERS] = {
        [LS_LSE] = &lse,       [LS_DELTA] = &delta,   [LS_LIKE_Q] = call->q,
        [LS_LIKE_K] = call->k, [LS_LIKE_V] = call->v, [LS_LIKE_O] = call->d_o};
    const struct ls_tensor *const back[LS_TRAVELLERS] = {
        [LS_LIKE_Q] = call->dq, [LS_LIKE_K] = call->dk, [LS_LIKE_V] = call->dv};

    own->ring.now = plan->now;
    LS_TRY(ls_swap_there(&own->swap, place, there));
    ls_travel_take_numbers(numbers->lse, &plan->problem, &place[LS_LSE].all);
    ls_travel_take_numbers(numbers->delta, &plan->problem, &place[LS_DELTA].all);
    LS_TRY(ls_ring_backward(&own->ring, &(struct ls_backward_call){.dq = &place[LS_LIKE_Q].all,
                                                                   .dk = &place[LS_LIKE_K].all,
                                                                   .dv = &place[LS_LIKE_V].all,
                                                                   .q = &place[LS_LIKE_Q].all,
                                                                   .k = &place[LS_LIKE_K].all,
                                                                   .v = &place[LS_LIKE_V].all,
                                                                   .d_o = &place[LS_LIKE_O].all,
                                                                   .lse = numbers->lse,
                                                                   .delta = numbers->delta}));
    return ls_swap_back(back, &own->swap, place);
}

const struct ls_method ls_method_usp = {
    .name = "usp",
    .summary = "some ranks swap the sequence for heads, and rings go round among the places",
    .fits = fits,
    .merges = true,
    .layout = ls_method_even_layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
    .backward = backward,
};
