/* Sequence is swapped for heads: an all-to-all brings each rank the whole sequence of some heads,
 * it computes these as one rank would, and a second all-to-all brings the results back to where
 * the queries came from. Of however many ranks, nothing is sent twice but kv heads that several
 * ranks need.
 * Source: Jacobs et al. 2023, "DeepSpeed Ulysses". */
#include <assert.h>
#include <stdlib.h>

#include "attention/plan.h"
#include "attention/travel.h"
#include "base/ledger.h"
#include "plan/attention_size.h"
#include "plan/head_share.h"

/* Where a traveller lies in the buffers, row after row: [rows][b][heads][d]. */
struct place {
    struct ls_tensor all;    /* [b, s, heads of this rank, d] */
    struct ls_tensor *rows;  /* [p] views of all: rank r's part of the sequence */
    struct ls_tensor *heads; /* [p] rank r's heads of this rank's part; its own are its own rows */
};

/* All leaves of queries or keys as the buffers hold them: part after part. */
struct sequence {
    int64_t *first_row; /* [p + 1] where a rank's part begins */
    struct ls_leaf *leaf;
    struct ls_leaf_list leaves;
};

struct ulysses {
    struct ls_head_share *share; /* [p] */
    struct sequence queries, keys;
    struct place place[LS_TRAVELLERS];
    struct ls_tensor *views;    /* [LS_TRAVELLERS][2][p] storage of the places' */
    struct ls_request *request; /* those of one all-to-all */
    void *outgoing, *incoming;  /* of the first all-to-all, then of the second */
};

static struct ls_attention_shape share_shape(const struct ls_problem *problem,
                                             const struct ls_head_share *share)
{
    struct ls_attention_shape shape = problem->shape;

    shape.h = share->q.count;
    shape.h_kv = share->kv.count;
    return shape;
}

/* A rank without heads has a kernel as well, the smallest. */
static struct ls_kernel_shape kernel_shape(const struct ls_problem *problem,
                                           const struct ls_head_share *share)
{
    const bool idle = share->q.count == 0;
    struct ls_kernel_shape shape =
        ls_plan_kernel_shape(problem, idle ? 0 : ls_layout_leaves(&problem->k_layout));

    shape.global = share_shape(problem, share);
    if (idle) shape.global.h = shape.global.h_kv = 1;
    return shape;
}

/* Bytes of one rank's buffers. What leaves in the first all-to-all makes room for the results, and
 * what came makes room for those that come back. */
struct volume {
    size_t scattered, gathered; /* q, k, v: for the other ranks; of all rows of own heads */
    size_t computed, returned;  /* o and lse: of all rows of own heads; from the other ranks */
};

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t outgoing_bytes(const struct volume *v)
{
    return larger(v->scattered, v->computed);
}

static size_t incoming_bytes(const struct volume *v)
{
    return larger(v->gathered, v->returned);
}

/* copies: kv heads of all ranks together. */
static struct volume volume_of(const struct ls_problem *problem, int rank, int64_t copies)
{
    const struct ls_attention_shape *s = &problem->shape;
    const struct ls_head_share share = ls_head_share(&problem->shape, problem->p, rank);
    const size_t row = (size_t)(s->b * s->d) * (size_t)ls_dtype_size(s->type); /* of a head */
    const size_t result = row + (size_t)s->b * sizeof(float);
    const size_t q = (size_t)share.q.count, other_q = (size_t)(s->h - share.q.count);
    const size_t kv = (size_t)share.kv.count, other_kv = (size_t)(copies - share.kv.count);
    const size_t q_rows = (size_t)ls_layout_part_rows(&problem->q_layout, rank);
    const size_t k_rows = (size_t)ls_layout_part_rows(&problem->k_layout, rank);

    return (struct volume){
        .scattered = row * (q_rows * other_q + 2 * k_rows * other_kv),
        .gathered = row * ((size_t)s->s_q * q + 2 * (size_t)s->s_k * kv),
        .computed = result * (size_t)s->s_q * q,
        .returned = result * q_rows * other_q,
    };
}

static void add_rank(struct ls_cost *cost, const struct ls_problem *problem, int rank,
                     int64_t copies)
{
    const struct ls_head_share share = ls_head_share(&problem->shape, problem->p, rank);
    const struct ls_attention_shape shape = share_shape(problem, &share);
    const struct volume v = volume_of(problem, rank, copies);

    cost->bytes_sent += (int64_t)(v.scattered + v.returned);
    cost->comm_bytes = larger(cost->comm_bytes, outgoing_bytes(&v) + incoming_bytes(&v));
    cost->workspace_bytes =
        larger(cost->workspace_bytes,
               ls_device_kernel_bytes(&problem->device, kernel_shape(problem, &share)));
    if (shape.h > 0) cost->tiles += ls_attention_tiles(&shape, &problem->mask);
}

static void cost(struct ls_cost *out, const struct ls_problem *problem)
{
    const int64_t copies = ls_head_share_copies(&problem->shape, problem->p);
    int64_t most = 0;

    *out = ls_method_work(problem);
    out->messages = (int64_t)LS_TRAVELLERS * problem->p * (problem->p - 1);
    out->tiles = 0; /* a group that is split has other tiles */
    for (int r = 0; r < problem->p; r++) {
        const int64_t heads = ls_head_share(&problem->shape, problem->p, r).q.count;

        add_rank(out, problem, r, copies);
        if (heads > most) most = heads;
    }
    out->flops_most = out->flops * (double)most / (double)problem->shape.h;
    out->call_rows = problem->shape.s_q;
}

static void destroy(struct ls_attention_plan *plan)
{
    struct ulysses *own = plan->own;

    ls_free(own->incoming);
    ls_free(own->outgoing);
    free(own->request);
    free(own->views);
    free(own->keys.leaf);
    free(own->keys.first_row);
    free(own->queries.leaf);
    free(own->queries.first_row);
    free(own->share);
    free(own);
}

static ls_status list_sequence(struct sequence *out, const struct ls_layout *layout)
{
    out->first_row = calloc((size_t)layout->p + 1, sizeof *out->first_row);
    out->leaf = calloc((size_t)ls_layout_leaves(layout) + 1, sizeof *out->leaf);
    if (!out->first_row || !out->leaf)
        return ls_fail(LS_ENOMEM, "Ulysses attention: out of memory");
    ls_leaves_gather(&out->leaves, out->leaf, out->first_row, layout);
    return LS_OK;
}

static struct ls_head_run heads_in(const struct ls_head_share *share, enum ls_traveller which)
{
    return ls_traveller_is_keys(which) ? share->kv : share->q;
}

static struct ls_tensor heads_of(const struct ls_tensor *t, struct ls_head_run heads)
{
    struct ls_tensor view = *t;

    if (t->dim[1] > 0) /* else there may be no memory */
        view.data = (char *)t->data + heads.first * t->stride[2] * ls_dtype_size(t->type);
    view.dim[2] = heads.count;
    return view;
}

/* all and heads: the free bytes of the buffers that a traveller takes its room from. */
static void place_traveller(struct ls_attention_plan *plan, enum ls_traveller which, char **all,
                            char **heads)
{
    struct ulysses *own = plan->own;
    const struct ls_problem *problem = &plan->problem;
    const int64_t *first =
        ls_traveller_is_keys(which) ? own->keys.first_row : own->queries.first_row;
    const int64_t own_rows = first[plan->rank + 1] - first[plan->rank];
    struct place *place = &own->place[which];

    place->rows = own->views + 2 * which * problem->p;
    place->heads = place->rows + problem->p;
    place->all = ls_travel_carve(all, problem, which, first[problem->p],
                                 heads_in(&own->share[plan->rank], which).count);
    for (int r = 0; r < problem->p; r++) {
        place->rows[r] = ls_travel_rows(&place->all, first[r], first[r + 1] - first[r]);
        if (r == plan->rank)
            place->heads[r] = place->rows[r];
        else
            place->heads[r] = ls_travel_carve(heads, problem, which, own_rows,
                                              heads_in(&own->share[r], which).count);
    }
}

static ls_status create_buffers(struct ls_attention_plan *plan)
{
    struct ulysses *own = plan->own;
    const struct ls_problem *problem = &plan->problem;
    const struct volume v =
        volume_of(problem, plan->rank, ls_head_share_copies(&problem->shape, problem->p));

    LS_TRY(ls_alloc(&own->outgoing, LS_TAG_COMM, outgoing_bytes(&v)));
    LS_TRY(ls_alloc(&own->incoming, LS_TAG_COMM, incoming_bytes(&v)));
    char *out = own->outgoing, *in = own->incoming;
    for (int which = LS_Q; which <= LS_V; which++) place_traveller(plan, which, &in, &out);
    assert(out == (char *)own->outgoing + v.scattered && in == (char *)own->incoming + v.gathered);
    out = own->outgoing;
    in = own->incoming;
    for (int which = LS_LSE; which <= LS_O; which++) place_traveller(plan, which, &out, &in);
    assert(out == (char *)own->outgoing + v.computed && in == (char *)own->incoming + v.returned);
    return LS_OK;
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const size_t p = (size_t)problem->p;
    struct ulysses *own = calloc(1, sizeof *own);

    if (!own) return ls_fail(LS_ENOMEM, "Ulysses attention: out of memory");
    plan->own = own;
    own->share = calloc(p, sizeof *own->share);
    own->views = calloc(LS_TRAVELLERS * 2 * p, sizeof *own->views);
    own->request = calloc(3 * 2 * p, sizeof *own->request);
    if (!own->share || !own->views || !own->request)
        return ls_fail(LS_ENOMEM, "Ulysses attention: out of memory");
    for (int r = 0; r < problem->p; r++)
        own->share[r] = ls_head_share(&problem->shape, problem->p, r);
    LS_TRY(list_sequence(&own->queries, &problem->q_layout));
    LS_TRY(list_sequence(&own->keys, &problem->k_layout));
    LS_TRY(create_buffers(plan));
    return ls_attention_kernel_create(&plan->kernel, &problem->device,
                                      kernel_shape(problem, &own->share[plan->rank]));
}

static ls_status post_receives(int *requests, struct ls_attention_plan *plan,
                               const struct ls_tensor *into, enum ls_traveller which)
{
    struct ulysses *own = plan->own;

    for (int r = 0; r < plan->problem.p; r++) {
        if (r == plan->rank) continue;
        LS_TRY(ls_comm_receive(&own->request[(*requests)++], plan->comm, into[r].data,
                               ls_travel_bytes(&into[r]), r, which));
    }
    return LS_OK;
}

static ls_status post_sends(int *requests, struct ls_attention_plan *plan,
                            const struct ls_tensor *from, enum ls_traveller which)
{
    struct ulysses *own = plan->own;

    for (int r = 0; r < plan->problem.p; r++) {
        if (r == plan->rank) continue;
        LS_TRY(ls_comm_send(&own->request[(*requests)++], plan->comm, from[r].data,
                            ls_travel_bytes(&from[r]), r, which));
    }
    return LS_OK;
}

/* parts: this rank's, where the caller has them. */
static ls_status scatter_heads(struct ls_attention_plan *plan,
                               const struct ls_tensor parts[LS_TRAVELLERS])
{
    struct ulysses *own = plan->own;
    int requests = 0;

    for (int which = LS_Q; which <= LS_V; which++)
        LS_TRY(post_receives(&requests, plan, own->place[which].rows, which));
    for (int which = LS_Q; which <= LS_V; which++) {
        struct ls_tensor *heads = own->place[which].heads;

        for (int r = 0; r < plan->problem.p; r++) {
            const struct ls_tensor from = heads_of(&parts[which], heads_in(&own->share[r], which));
            ls_tensor_copy(&heads[r], &from);
        }
        LS_TRY(post_sends(&requests, plan, heads, which));
    }
    return ls_comm_wait(plan->comm, own->request, requests);
}

static ls_status return_heads(struct ls_attention_plan *plan,
                              const struct ls_tensor parts[LS_TRAVELLERS])
{
    struct ulysses *own = plan->own;
    int requests = 0;

    for (int which = LS_LSE; which <= LS_O; which++)
        LS_TRY(post_receives(&requests, plan, own->place[which].heads, which));
    for (int which = LS_LSE; which <= LS_O; which++)
        LS_TRY(post_sends(&requests, plan, own->place[which].rows, which));
    LS_TRY(ls_comm_wait(plan->comm, own->request, requests));
    for (int which = LS_LSE; which <= LS_O; which++) {
        for (int r = 0; r < plan->problem.p; r++) {
            struct ls_tensor to = heads_of(&parts[which], heads_in(&own->share[r], which));
            ls_tensor_copy(&to, &own->place[which].heads[r]);
        }
    }
    return LS_OK;
}

static ls_status attend(struct ls_attention_plan *plan)
{
    struct ulysses *own = plan->own;
    struct place *place = own->place;
    struct ls_tensor lse = ls_travel_transposed(&place[LS_LSE].all);

    if (own->share[plan->rank].q.count == 0) return LS_OK;
    return ls_plan_attend(plan, (struct ls_kernel_call){.o = &place[LS_O].all,
                                                        .lse = &lse,
                                                        .q = &place[LS_Q].all,
                                                        .k = &place[LS_K].all,
                                                        .v = &place[LS_V].all,
                                                        .q_leaves = own->queries.leaves,
                                                        .k_leaves = own->keys.leaves});
}

/* A rank whose kernel fails still sends what the others wait for. */
static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct ls_tensor parts[LS_TRAVELLERS] = {
        [LS_Q] = *call->q, [LS_K] = *call->k,
        [LS_V] = *call->v, [LS_LSE] = ls_travel_transposed(call->lse),
        [LS_O] = *call->o,
    };

    LS_TRY(scatter_heads(plan, parts));
    const ls_status status = attend(plan);
    LS_TRY(return_heads(plan, parts));
    return status;
}

const struct ls_method ls_method_ulysses = {
    .name = "ulysses",
    .summary = "sequence is swapped for heads: every rank computes some heads, all positions",
    .fits = ls_method_fits_all,
    .layout = ls_method_plain_layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
};
