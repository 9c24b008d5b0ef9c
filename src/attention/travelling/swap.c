#include "attention/travelling/swap.h"

#include <stdlib.h>

#include "attention/leaves.h"
#include "base/ledger.h"

/* ---- cost */

/* Bytes of one rank: of its positions of the other ranks' heads, and of all positions of its own
 * heads. */
struct bytes {
    size_t here, there;
};

struct volume {
    struct bytes forth, back, residual; /* forward */
    struct bytes backward_forth, backward_back;
};

static void add(struct bytes *into, struct bytes more)
{
    into->here += more.here;
    into->there += more.there;
}

static struct ls_head_run heads_in(const struct ls_head_share *share, enum ls_traveller which)
{
    return ls_traveller_is_keys(which) ? share->kv : share->q;
}

/* Of the ranks that swap, who may be some of all. */
static int64_t rows_of_all(const struct ls_layout *layout)
{
    int64_t rows = 0;

    for (int r = 0; r < layout->p; r++) rows += ls_layout_part_rows(layout, r);
    return rows;
}

/* copies: kv heads of all ranks together. */
static struct bytes bytes_of(const struct ls_problem *problem, int rank, int64_t copies,
                             enum ls_traveller which)
{
    const struct ls_attention_shape *s = &problem->shape;
    const struct ls_head_share share = ls_head_share(s, problem->p, rank);
    const bool keys = ls_traveller_is_keys(which);
    const struct ls_layout *layout = keys ? &problem->k_layout : &problem->q_layout;
    const int64_t own = heads_in(&share, which).count, all = keys ? copies : s->h;
    const size_t row = (size_t)s->b * ls_traveller_head_bytes(s, which);

    return (struct bytes){
        .here = row * (size_t)(ls_layout_part_rows(layout, rank) * (all - own)),
        .there = row * (size_t)(rows_of_all(layout) * own),
    };
}

/* With copies dk and dv come back as sums. */
static bool returns_backward(enum ls_traveller which, bool copied)
{
    return ls_returns_backward(which) && !(copied && ls_traveller_is_keys(which));
}

static struct volume volume_of(const struct ls_problem *problem, int rank)
{
    const int64_t copies = ls_head_share_copies(&problem->shape, problem->p);
    const bool copied = copies > problem->shape.h_kv;
    struct volume v = {0};

    for (int which = 0; which < LS_TRAVELLERS; which++) {
        const struct bytes bytes = bytes_of(problem, rank, copies, which);

        if (ls_travels_forward(which)) add(&v.forth, bytes);
        if (ls_returns_forward(which, false)) add(&v.back, bytes);
        if (!problem->backward) continue;
        if (which == LS_O_LO) add(&v.residual, bytes);
        if (ls_travels_backward(which)) add(&v.backward_forth, bytes);
        if (returns_backward(which, copied)) add(&v.backward_back, bytes);
    }
    return v;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t outgoing_bytes(const struct volume *v)
{
    return larger(larger(v->forth.here, v->back.there + v->residual.there), v->backward_forth.here);
}

static size_t incoming_bytes(const struct volume *v)
{
    return larger(larger(v->forth.there, v->back.here + v->residual.here), v->backward_forth.there);
}

static void add_messages(struct ls_cost *cost, const struct ls_problem *problem)
{
    const bool copied = ls_head_share_copies(&problem->shape, problem->p) > problem->shape.h_kv;
    const int64_t pairs = (int64_t)problem->p * (problem->p - 1);

    for (int which = 0; which < LS_TRAVELLERS; which++) {
        cost->messages += pairs * (ls_travels_forward(which) + ls_returns_forward(which, false));
        if (!problem->backward) continue;
        cost->residual_messages += pairs * (which == LS_O_LO);
        cost->backward_messages +=
            pairs * (ls_travels_backward(which) + returns_backward(which, copied));
    }
}

void ls_swap_cost(struct ls_cost *cost, const struct ls_problem *problem)
{
    for (int r = 0; r < problem->p; r++) {
        const struct volume v = volume_of(problem, r);

        cost->bytes_sent += (int64_t)(v.forth.here + v.back.here);
        cost->residual_bytes_sent += (int64_t)v.residual.here;
        cost->backward_bytes_sent += (int64_t)(v.backward_forth.here + v.backward_back.here);
        cost->comm_bytes = larger(cost->comm_bytes, outgoing_bytes(&v) + incoming_bytes(&v));
    }
    add_messages(cost, problem);
}

/* ---- making */

static ls_status list_sequence(struct ls_swap_sequence *out, const struct ls_layout *layout)
{
    out->first_row = calloc((size_t)layout->p + 1, sizeof *out->first_row);
    out->leaf = calloc((size_t)ls_layout_leaves(layout) + 1, sizeof *out->leaf);
    if (!out->first_row || !out->leaf) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    ls_leaves_gather(&out->leaves, out->leaf, out->first_row, layout);
    return LS_OK;
}

/* all and heads: the free bytes of the buffers that a traveller takes its room from; views [2 p].
 */
static void place_traveller(struct ls_swap_place *place, const struct ls_swap *swap,
                            const struct ls_problem *problem, enum ls_traveller which,
                            struct ls_tensor *views, char **all, char **heads)
{
    const int64_t *first =
        ls_traveller_is_keys(which) ? swap->keys.first_row : swap->queries.first_row;
    const int rank = swap->rank;
    const int64_t own_rows = first[rank + 1] - first[rank];

    place->rows = views;
    place->heads = views + swap->p;
    place->all = ls_travel_carve(all, problem, which, first[swap->p],
                                 heads_in(&swap->share[rank], which).count);
    for (int r = 0; r < swap->p; r++) {
        place->rows[r] = ls_range_of(&place->all, 1, first[r], first[r + 1] - first[r]);
        if (r == rank)
            place->heads[r] = place->rows[r];
        else
            place->heads[r] = ls_travel_carve(heads, problem, which, own_rows,
                                              heads_in(&swap->share[r], which).count);
    }
}

/* Which travellers there are room for. */
struct travellers {
    bool has[LS_TRAVELLERS];
};

/* all and heads: the buffers from whose beginnings these take their room. */
static void place_travellers(struct ls_swap_place *place, struct ls_swap *swap,
                             const struct ls_problem *problem, const struct travellers *which,
                             char *all, char *heads)
{
    struct ls_tensor *views =
        swap->views + (place == swap->backward ? 2 * LS_TRAVELLERS * swap->p : 0);

    for (int i = 0; i < LS_TRAVELLERS; i++)
        if (which->has[i])
            place_traveller(&place[i], swap, problem, i, views + 2 * i * swap->p, &all, &heads);
}

static ls_status create_buffers(struct ls_swap *swap, const struct ls_problem *problem)
{
    const struct volume v = volume_of(problem, swap->rank);
    struct travellers forth = {0}, back = {0}, backward = {0};

    LS_TRY(ls_problem_alloc(&swap->outgoing, problem, LS_TAG_COMM, outgoing_bytes(&v)));
    LS_TRY(ls_problem_alloc(&swap->incoming, problem, LS_TAG_COMM, incoming_bytes(&v)));
    for (int which = 0; which < LS_TRAVELLERS; which++) {
        forth.has[which] = ls_travels_forward(which);
        back.has[which] = ls_returns_forward(which, problem->backward);
        backward.has[which] = problem->backward && ls_travels_backward(which);
    }
    place_travellers(swap->forward, swap, problem, &forth, swap->incoming, swap->outgoing);
    place_travellers(swap->forward, swap, problem, &back, swap->outgoing, swap->incoming);
    place_travellers(swap->backward, swap, problem, &backward, swap->incoming, swap->outgoing);
    return LS_OK;
}

ls_status ls_swap_init(struct ls_swap *out, const struct ls_problem *problem,
                       const struct ls_transport *transport)
{
    const size_t p = (size_t)problem->p;

    *out = (struct ls_swap){.problem = problem, .rank = transport->rank, .p = problem->p};
    out->share = calloc(p, sizeof *out->share);
    out->views = calloc(2 * LS_TRAVELLERS * 2 * p, sizeof *out->views);
    if (!out->share || !out->views) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    LS_TRY(ls_batch_init(&out->batch, transport, LS_TRAVELLERS * 2 * problem->p));
    for (int r = 0; r < problem->p; r++)
        out->share[r] = ls_head_share(&problem->shape, problem->p, r);
    LS_TRY(list_sequence(&out->queries, &problem->q_layout));
    LS_TRY(list_sequence(&out->keys, &problem->k_layout));
    return create_buffers(out, problem);
}

void ls_swap_fini(struct ls_swap *swap)
{
    ls_problem_free(swap->problem, swap->incoming);
    ls_problem_free(swap->problem, swap->outgoing);
    ls_batch_fini(&swap->batch);
    free(swap->views);
    free(swap->keys.leaf);
    free(swap->keys.first_row);
    free(swap->queries.leaf);
    free(swap->queries.first_row);
    free(swap->share);
}

/* ---- execution */

static struct ls_tensor heads_of(const struct ls_tensor *t, struct ls_head_run heads)
{
    return ls_range_of(t, 2, heads.first, heads.count);
}

/* [p] each: of every other rank, and for it. */
static void add_exchange(struct ls_swap *swap, const struct ls_tensor *into,
                         const struct ls_tensor *from)
{
    for (int r = 0; r < swap->p; r++) {
        if (r == swap->rank) continue;
        ls_batch_receive(&swap->batch, into[r].data, ls_travel_bytes(&into[r]), r);
        ls_batch_send(&swap->batch, from[r].data, ls_travel_bytes(&from[r]), r);
    }
}

ls_status ls_swap_there(struct ls_swap *swap, struct ls_swap_place *place,
                        const struct ls_tensor *const part[LS_TRAVELLERS])
{
    for (int which = 0; which < LS_TRAVELLERS; which++) {
        if (!part[which]) continue;
        for (int r = 0; r < swap->p; r++) {
            const struct ls_tensor from = heads_of(part[which], heads_in(&swap->share[r], which));
            ls_problem_copy(swap->problem, &place[which].heads[r], &from);
        }
        add_exchange(swap, place[which].rows, place[which].heads);
    }
    return ls_batch_run(&swap->batch);
}

ls_status ls_swap_back(const struct ls_tensor *const part[LS_TRAVELLERS], struct ls_swap *swap,
                       struct ls_swap_place *place)
{
    for (int which = 0; which < LS_TRAVELLERS; which++)
        if (part[which]) add_exchange(swap, place[which].heads, place[which].rows);
    LS_TRY(ls_batch_run(&swap->batch));
    for (int which = 0; which < LS_TRAVELLERS; which++) {
        for (int r = 0; r < swap->p && part[which]; r++) {
            struct ls_tensor to = heads_of(part[which], heads_in(&swap->share[r], which));
            ls_problem_copy(swap->problem, &to, &place[which].heads[r]);
        }
    }
    return LS_OK;
}
