/* Every rank gets all of K and V first, then computes alone. Short latency and the order of
 * summation of one rank, for memory O(s).
 * Source: the all-gather form of context parallelism in Llama 3 (Dubey et al. 2024, section 3.3.2).
 */
#include <stdlib.h>

#include "attention/leaves.h"
#include "attention/methods/part_gradients.h"
#include "attention/methods/table.h"
#include "attention/plan.h"
#include "attention/travelling/route.h"
#include "attention/travelling/travel.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

struct allgather {
    void *memory;       /* K, then V: [b, s_k, h_kv, d or d_v], rank after rank in a batch */
    int64_t *first_row; /* [p + 1] where a rank's part begins */
    struct ls_leaf_list keys;
    struct ls_part_gradients *gradients;
    struct ls_batch batch; /* of all messages */
    struct ls_leaf leaf[]; /* storage of keys */
};

static struct ls_kernel_shape kernel_shape(const struct ls_problem *problem)
{
    return ls_problem_kernel_shape(problem, ls_layout_leaves(&problem->k_layout));
}

/* To or from every other rank: a message for each batch of K and of V. */
static int64_t messages_each_way(const struct ls_problem *problem)
{
    return 2 * problem->shape.b * (problem->p - 1);
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    *out = ls_method_work(problem);
    out->comm_bytes = ls_key_value_bytes(&problem->shape, problem->shape.s_k);
    out->bytes_sent = (int64_t)out->comm_bytes * (problem->p - 1);
    out->messages = messages_each_way(problem) * problem->p;
    out->workspace_bytes = ls_attention_kernel_bytes(problem->device, kernel_shape(problem));
    if (!problem->backward) return LS_OK;
    out->backward_bytes_sent = out->bytes_sent;
    out->backward_messages = out->messages;
    return ls_part_gradients_cost(out, problem, (struct ls_part_order){.node = 1});
}

static void destroy(struct ls_attention_plan *plan)
{
    struct allgather *own = plan->own;

    ls_part_gradients_destroy(own->gradients);
    ls_problem_free(&plan->problem, own->memory);
    ls_batch_fini(&own->batch);
    free(own->first_row);
    free(own);
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const struct ls_layout *keys = &problem->k_layout;
    struct allgather *own =
        calloc(1, sizeof *own + (size_t)ls_layout_leaves(keys) * sizeof *own->leaf);

    if (!own) return ls_fail(LS_ENOMEM, "all-gather attention: out of memory");
    plan->own = own;
    own->first_row = calloc((size_t)problem->p + 1, sizeof *own->first_row);
    if (!own->first_row) return ls_fail(LS_ENOMEM, "all-gather attention: out of memory");
    LS_TRY(ls_batch_init(&own->batch, &plan->transport, 2 * messages_each_way(problem)));
    ls_leaves_gather(&own->keys, own->leaf, own->first_row, keys);
    LS_TRY(ls_problem_alloc(&own->memory, problem, LS_TAG_COMM,
                            ls_key_value_bytes(&problem->shape, keys->s)));
    LS_TRY(ls_part_gradients_create(&own->gradients, plan, (struct ls_part_order){.node = 1}));
    return ls_attention_kernel_create(&plan->kernel, problem->device, kernel_shape(problem));
}

/* rank's rows of the gathered tensor, or of one batch of it. */
static struct ls_tensor part_of(const struct ls_tensor *all, const struct allgather *own, int rank)
{
    return ls_range_of(all, 1, own->first_row[rank],
                       own->first_row[rank + 1] - own->first_row[rank]);
}

/* One batch of one tensor is exchanged with every other rank. */
static void add_batch(struct ls_attention_plan *plan, const struct ls_tensor *all)
{
    struct allgather *own = plan->own;
    const struct ls_tensor mine = part_of(all, own, plan->rank);

    for (int r = 0; r < plan->problem.p; r++) {
        if (r == plan->rank) continue;
        const struct ls_tensor theirs = part_of(all, own, r);

        ls_batch_receive(&own->batch, theirs.data, ls_travel_bytes(&theirs), r);
        ls_batch_send(&own->batch, mine.data, ls_travel_bytes(&mine), r);
    }
}

/* all: K and V of all ranks. */
static ls_status gather(struct ls_tensor all[2], struct ls_attention_plan *plan,
                        const struct ls_tensor *k, const struct ls_tensor *v)
{
    struct allgather *own = plan->own;
    const struct ls_problem *problem = &plan->problem;
    const struct ls_attention_shape *s = &problem->shape;
    const struct ls_tensor *part[] = {k, v};
    char *memory = own->memory;

    all[0] = ls_problem_keys(problem, memory, s->s_k);
    all[1] = ls_problem_values(problem, memory + ls_key_bytes(s, s->s_k), s->s_k);
    for (int i = 0; i < 2; i++) {
        for (int64_t batch = 0; batch < s->b; batch++) {
            const struct ls_tensor one = ls_range_of(&all[i], 0, batch, 1);
            const struct ls_tensor from = ls_range_of(part[i], 0, batch, 1);
            struct ls_tensor to = part_of(&one, own, plan->rank);

            ls_problem_copy(problem, &to, &from);
            add_batch(plan, &one);
        }
    }
    return ls_batch_run(&own->batch);
}

static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct allgather *own = plan->own;
    struct ls_attention_call with_all = *call;
    struct ls_tensor all[2];

    LS_TRY(gather(all, plan, call->k, call->v));
    with_all.k = &all[0];
    with_all.v = &all[1];
    ls_plan_attend_all(plan, &with_all, own->keys);
    return LS_OK;
}

/* Part by part in the order of a ring, so that the gradients of one are on their way while those of
 * the next are computed. */
static ls_status backward(struct ls_attention_plan *plan, const struct ls_backward_call *call)
{
    const struct allgather *own = plan->own;
    const struct ls_route route = ls_route_of(plan->problem.p, 1, plan->rank);
    struct ls_tensor all[2];

    LS_TRY(gather(all, plan, call->k, call->v));
    ls_part_gradients_begin(own->gradients, call);
    for (int step = 0; step < plan->problem.p; step++) {
        const int owner = ls_route_owner(&route, step);
        const struct ls_tensor k = part_of(&all[0], own, owner), v = part_of(&all[1], own, owner);

        ls_part_gradients_meet(own->gradients, step, &k, &v);
        LS_TRY(ls_part_gradients_pass(own->gradients, step));
    }
    return ls_part_gradients_end(own->gradients);
}

const struct ls_method ls_method_allgather = {
    .name = "allgather",
    .summary = "every rank gets all of K and V, then computes alone; memory O(s)",
    .fits = ls_method_fits_all,
    .merges_backward = true,
    .layout = ls_method_even_layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
    .backward = backward,
};
