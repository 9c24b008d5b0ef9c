/* K and V travel round a ring of ranks, one part a step; each rank folds what passes into the
 * results of its queries. While a step computes, its part is already on its way to the next rank
 * and the part of the next step arrives. A rank's own part is read, and sent, where the caller has
 * it.
 * Source: Liu, Zaharia, Abbeel 2023, "Ring attention with blockwise transformers". */
#include <stdlib.h>

#include "attention/plan.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

struct ring {
    struct ls_row_states states; /* what earlier steps found; none on a single rank */
    void *state_memory, *travel_memory;
    char *travel[2];           /* K, then V of one part: step t's is travel[t % 2] */
    struct ls_leaf_list *part; /* [p] leaves of each rank's keys */
    struct ls_leaf leaf[];     /* storage of part */
};

static struct ls_kernel_shape kernel_shape(const struct ls_problem *problem)
{
    return ls_plan_kernel_shape(problem, ls_layout_most_leaves(&problem->k_layout));
}

static size_t state_bytes(const struct ls_problem *problem, int64_t q_rows)
{
    return problem->p > 1 ? ls_row_state_bytes(&problem->shape, q_rows) : 0;
}

/* Of one of the buffers; a part must fit whosever it is. */
static size_t travel_bytes(const struct ls_problem *problem)
{
    return ls_key_value_bytes(&problem->shape, ls_layout_most_rows(&problem->k_layout));
}

static size_t all_travel_bytes(const struct ls_problem *problem)
{
    return problem->p > 1 ? 2 * travel_bytes(problem) : 0;
}

static void cost(struct ls_cost *out, const struct ls_problem *problem)
{
    *out = ls_method_work(problem);
    out->bytes_sent =
        (int64_t)ls_key_value_bytes(&problem->shape, problem->shape.s_k) * (problem->p - 1);
    out->messages = 2 * (int64_t)problem->p * (problem->p - 1);
    out->workspace_bytes = ls_device_kernel_bytes(&problem->device, kernel_shape(problem)) +
                           state_bytes(problem, ls_layout_most_rows(&problem->q_layout));
    out->comm_bytes = all_travel_bytes(problem);
}

static void destroy(struct ls_attention_plan *plan)
{
    struct ring *own = plan->own;

    ls_free(own->travel_memory);
    ls_free(own->state_memory);
    free(own->part);
    free(own);
}

static void list_parts(struct ring *own, const struct ls_layout *keys)
{
    int64_t count = 0;

    for (int r = 0; r < keys->p; r++) {
        const int64_t first = count;
        ls_leaves_append(own->leaf, &count, keys, r, 0);
        own->part[r] = (struct ls_leaf_list){.leaf = own->leaf + first, .count = count - first};
    }
}

static ls_status create_states(struct ring *own, const struct ls_attention_plan *plan)
{
    const struct ls_attention_shape *s = &plan->problem.shape;
    const int64_t rows = ls_layout_part_rows(&plan->problem.q_layout, plan->rank);
    const int64_t all = s->b * s->h * rows;

    LS_TRY(ls_alloc(&own->state_memory, LS_TAG_WORKSPACE, state_bytes(&plan->problem, rows)));
    own->states.acc = own->state_memory;
    own->states.m = own->states.acc + all * s->d;
    own->states.l = own->states.m + all;
    return LS_OK;
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const struct ls_layout *keys = &problem->k_layout;
    struct ring *own = calloc(1, sizeof *own + (size_t)ls_layout_leaves(keys) * sizeof *own->leaf);

    if (!own) return ls_fail(LS_ENOMEM, "ring attention: out of memory");
    plan->own = own;
    own->part = calloc((size_t)problem->p, sizeof *own->part);
    if (!own->part) return ls_fail(LS_ENOMEM, "ring attention: out of memory");
    list_parts(own, keys);
    LS_TRY(create_states(own, plan));
    LS_TRY(ls_alloc(&own->travel_memory, LS_TAG_COMM, all_travel_bytes(problem)));
    own->travel[0] = own->travel_memory;
    own->travel[1] = own->travel[0] + all_travel_bytes(problem) / 2;
    return ls_attention_kernel_create(&plan->kernel, &problem->device, kernel_shape(problem));
}

/* Whose keys are here at a step. */
static int owner_at(const struct ls_attention_plan *plan, int step)
{
    return (plan->rank - step % plan->problem.p + plan->problem.p) % plan->problem.p;
}

static size_t part_bytes(const struct ls_problem *problem, int owner)
{
    return ls_key_value_bytes(&problem->shape, ls_layout_part_rows(&problem->k_layout, owner));
}

/* One part of the keys, wherever it is. */
struct key_part {
    struct ls_tensor k, v;
};

/* The part of a step in its travel buffer. */
static struct key_part travelling_part(const struct ls_attention_plan *plan, int step)
{
    const struct ring *own = plan->own;
    const int owner = owner_at(plan, step);
    const int64_t rows = ls_layout_part_rows(&plan->problem.k_layout, owner);
    char *k = own->travel[step % 2], *v = k + part_bytes(&plan->problem, owner) / 2;

    return (struct key_part){.k = ls_plan_key_view(&plan->problem, k, rows),
                             .v = ls_plan_key_view(&plan->problem, v, rows)};
}

static bool is_contiguous(const struct ls_tensor *t)
{
    const struct ls_tensor view = ls_tensor_view(t->data, t->type, t->ndim, t->dim);

    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i] > 1 && t->stride[i] != view.stride[i]) return false;
    return true;
}

/* This rank's own part, in one piece if it is to be sent. */
static struct key_part own_part(const struct ls_attention_plan *plan,
                                const struct ls_attention_call *call)
{
    const struct key_part given = {.k = *call->k, .v = *call->v};

    if (plan->problem.p == 1 || (is_contiguous(call->k) && is_contiguous(call->v))) return given;
    struct key_part part = travelling_part(plan, 0);
    ls_tensor_copy(&part.k, call->k);
    ls_tensor_copy(&part.v, call->v);
    return part;
}

/* Messages of one step, and the communicator that moves them. */
struct exchange {
    struct ls_comm *comm;
    struct ls_request request[4];
};

static void move_messages(void *context)
{
    struct exchange *exchange = context;

    ls_comm_progress(NULL, exchange->comm, exchange->request, 4); /* wait reports what fails */
}

/* The part `now` of this step goes on, the part `next` of the next step comes in. */
static ls_status post_exchange(struct exchange *out, struct ls_attention_plan *plan,
                               const struct key_part *now, const struct key_part *next, int step)
{
    const int p = plan->problem.p, from = (plan->rank - 1 + p) % p, to = (plan->rank + 1) % p;
    const size_t come = part_bytes(&plan->problem, owner_at(plan, step + 1)) / 2;
    const size_t go = part_bytes(&plan->problem, owner_at(plan, step)) / 2;
    struct ls_request *request = out->request;

    LS_TRY(ls_comm_receive(&request[0], plan->comm, next->k.data, come, from, 2 * step));
    LS_TRY(ls_comm_receive(&request[1], plan->comm, next->v.data, come, from, 2 * step + 1));
    LS_TRY(ls_comm_send(&request[2], plan->comm, now->k.data, go, to, 2 * step));
    return ls_comm_send(&request[3], plan->comm, now->v.data, go, to, 2 * step + 1);
}

static ls_status attend_step(struct ls_attention_plan *plan, const struct ls_attention_call *call,
                             const struct key_part *part, struct exchange *exchange, int step)
{
    struct ring *own = plan->own;
    const bool last = step == plan->problem.p - 1;

    return ls_plan_attend(plan, (struct ls_kernel_call){
                                    .o = last ? call->o : NULL,
                                    .lse = last ? call->lse : NULL,
                                    .states = plan->problem.p > 1 ? &own->states : NULL,
                                    .merge = step > 0,
                                    .q = call->q,
                                    .k = &part->k,
                                    .v = &part->v,
                                    .k_leaves = own->part[owner_at(plan, step)],
                                    .progress = {last ? NULL : move_messages, exchange},
                                });
}

/* A rank whose kernel fails still passes on what the others wait for. */
static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    struct exchange exchange = {.comm = plan->comm};
    struct key_part now = own_part(plan, call);
    ls_status status = LS_OK;

    for (int step = 0; step < plan->problem.p; step++) {
        const bool last = step == plan->problem.p - 1;
        const struct key_part next = last ? now : travelling_part(plan, step + 1);

        if (!last) LS_TRY(post_exchange(&exchange, plan, &now, &next, step));
        if (status == LS_OK) status = attend_step(plan, call, &now, &exchange, step);
        if (!last) LS_TRY(ls_comm_wait(plan->comm, exchange.request, 4));
        now = next;
    }
    return status;
}

const struct ls_method ls_method_ring = {
    .name = "ring",
    .summary = "parts of K and V travel round a ring; memory O(s/p)",
    .fits = ls_method_fits_all,
    .layout = ls_method_even_layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
};
