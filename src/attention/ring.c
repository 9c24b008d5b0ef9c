/* K and V travel round a ring of ranks, one part a step; each rank folds what passes into the
 * results of its queries. While a step computes, its part is already on its way to the next rank
 * and the part of the next step arrives.
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

static const char *fits(const struct ls_problem *problem)
{
    (void)problem;
    return NULL;
}

/* Causal work per position grows along the sequence: zigzag gives every rank the same of it. */
static ls_layout_kind layout(const struct ls_problem *problem)
{
    return problem->causal && problem->p > 1 ? LS_LAYOUT_ZIGZAG : LS_LAYOUT_CONTIGUOUS;
}

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

static int buffers(const struct ls_problem *problem)
{
    return problem->p > 1 ? 2 : 1;
}

static void cost(struct ls_cost *out, const struct ls_problem *problem)
{
    const struct ls_attention_shape *s = &problem->shape;

    *out = (struct ls_cost){
        .flops = 4.0 * (double)s->d * (double)(s->b * s->h) *
                 ls_visible_pairs(s->s_q, s->s_k, problem->causal),
        .bytes_sent = (int64_t)ls_key_value_bytes(s, s->s_k) * (problem->p - 1),
        .messages = (int64_t)problem->p * (problem->p - 1),
        .workspace_bytes = ls_device_kernel_bytes(&problem->device, kernel_shape(problem)) +
                           state_bytes(problem, ls_layout_most_rows(&problem->q_layout)),
        .comm_bytes = (size_t)buffers(problem) * travel_bytes(problem),
        .tiles = ls_attention_tiles(s, problem->causal),
    };
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
    LS_TRY(ls_alloc(&own->travel_memory, LS_TAG_COMM,
                    (size_t)buffers(problem) * travel_bytes(problem)));
    own->travel[0] = own->travel_memory;
    own->travel[1] = own->travel[0] + (buffers(problem) - 1) * travel_bytes(problem);
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

/* The keys and values that travel in a buffer at this step. */
static void view_part(struct ls_tensor *k, struct ls_tensor *v,
                      const struct ls_attention_plan *plan, int step)
{
    const struct ring *own = plan->own;
    const int owner = owner_at(plan, step);
    const int64_t rows = ls_layout_part_rows(&plan->problem.k_layout, owner);

    *k = ls_plan_key_view(&plan->problem, own->travel[step % 2], rows);
    *v = ls_plan_key_view(&plan->problem,
                          own->travel[step % 2] + part_bytes(&plan->problem, owner) / 2, rows);
}

/* Messages of one step, and the communicator that moves them. */
struct exchange {
    struct ls_comm *comm;
    struct ls_request request[2];
};

static void move_messages(void *context)
{
    struct exchange *exchange = context;

    ls_comm_progress(NULL, exchange->comm, exchange->request, 2); /* wait reports what fails */
}

/* The part that the step uses goes on, the part that the next step uses comes in. */
static ls_status post_exchange(struct exchange *out, struct ls_attention_plan *plan, int step)
{
    const struct ring *own = plan->own;
    const int p = plan->problem.p;

    LS_TRY(ls_comm_receive(&out->request[0], plan->comm, own->travel[(step + 1) % 2],
                           part_bytes(&plan->problem, owner_at(plan, step + 1)),
                           (plan->rank - 1 + p) % p, step));
    return ls_comm_send(&out->request[1], plan->comm, own->travel[step % 2],
                        part_bytes(&plan->problem, owner_at(plan, step)), (plan->rank + 1) % p,
                        step);
}

static ls_status attend_step(struct ls_attention_plan *plan, const struct ls_attention_call *call,
                             struct exchange *exchange, int step)
{
    struct ring *own = plan->own;
    const bool last = step == plan->problem.p - 1;
    struct ls_tensor k, v;

    view_part(&k, &v, plan, step);
    return ls_plan_attend(plan, (struct ls_kernel_call){
                                    .o = last ? call->o : NULL,
                                    .lse = last ? call->lse : NULL,
                                    .states = plan->problem.p > 1 ? &own->states : NULL,
                                    .merge = step > 0,
                                    .q = call->q,
                                    .k = &k,
                                    .v = &v,
                                    .k_leaves = own->part[owner_at(plan, step)],
                                    .progress = {last ? NULL : move_messages, exchange},
                                });
}

/* A rank whose kernel fails still passes on what the others wait for. */
static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    struct exchange exchange = {.comm = plan->comm};
    ls_status status = LS_OK;
    struct ls_tensor k, v;

    view_part(&k, &v, plan, 0);
    ls_tensor_copy(&k, call->k);
    ls_tensor_copy(&v, call->v);
    for (int step = 0; step < plan->problem.p; step++) {
        const bool last = step == plan->problem.p - 1;

        if (!last) LS_TRY(post_exchange(&exchange, plan, step));
        if (status == LS_OK) status = attend_step(plan, call, &exchange, step);
        if (!last) LS_TRY(ls_comm_wait(plan->comm, exchange.request, 2));
    }
    return status;
}

const struct ls_method ls_method_ring = {
    .name = "ring",
    .summary = "parts of K and V travel round a ring; memory O(s/p)",
    .fits = fits,
    .layout = layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
};
