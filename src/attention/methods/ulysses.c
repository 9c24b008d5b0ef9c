/* Sequence is swapped for heads: an all-to-all brings each rank the whole sequence of some heads,
 * it computes these as one rank would, and a second all-to-all brings the results back to where
 * the queries came from. Of however many ranks, nothing is sent twice but kv heads that several
 * ranks need.
 * Source: Jacobs et al. 2023, "DeepSpeed Ulysses". */
#include "attention/methods/ulysses.h"

#include <stdlib.h>

#include "attention/methods/table.h"
#include "plan/attention_size.h"

/* A rank without heads has a kernel as well. */
static struct ls_kernel_shape kernel_shape(const struct ls_problem *problem,
                                           const struct ls_head_share *share)
{
    const bool idle = share->q.count == 0;
    struct ls_kernel_shape shape =
        ls_problem_kernel_shape(problem, idle ? 0 : ls_layout_leaves(&problem->k_layout));

    shape.global = ls_head_share_shape(&problem->shape, share);
    shape.scores.first_head += share->q.first;
    return shape;
}

static void add_rank(struct ls_cost *cost, const struct ls_problem *problem, int rank)
{
    const struct ls_head_share share = ls_head_share(&problem->shape, problem->p, rank);
    const struct ls_attention_shape shape = ls_head_share_shape(&problem->shape, &share);
    const struct ls_kernel_shape kernel = kernel_shape(problem, &share);
    const size_t bytes = ls_attention_kernel_bytes(problem->device, kernel) +
                         ls_ulysses_gradient_kernel_bytes(problem, &share);

    if (bytes > cost->workspace_bytes) cost->workspace_bytes = bytes;
    if (share.q.count > 0)
        cost->tiles += ls_attention_tiles(&shape, &problem->masks, kernel.scores.first_head);
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    int64_t most = 0;

    *out = ls_method_work(problem);
    ls_swap_cost(out, problem);
    out->tiles = 0; /* a group that is split has other tiles */
    for (int r = 0; r < problem->p; r++) {
        const int64_t heads = ls_head_share(&problem->shape, problem->p, r).q.count;

        add_rank(out, problem, r);
        if (heads > most) most = heads;
    }
    out->flops_most = out->flops * (double)most / (double)problem->shape.h;
    out->call_rows = problem->shape.s_q;
    ls_ulysses_gradient_cost(out, problem);
    return LS_OK;
}

static void destroy(struct ls_attention_plan *plan)
{
    struct ls_ulysses *own = plan->own;

    ls_ulysses_gradient_destroy(own);
    ls_swap_fini(&own->swap);
    free(own);
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    struct ls_ulysses *own = calloc(1, sizeof *own);

    if (!own) return ls_fail(LS_ENOMEM, "Ulysses attention: out of memory");
    plan->own = own;
    LS_TRY(ls_swap_init(&own->swap, problem, &plan->transport));
    LS_TRY(ls_ulysses_gradient_create(plan));
    return ls_attention_kernel_create(&plan->kernel, problem->device,
                                      kernel_shape(problem, &own->swap.share[plan->rank]));
}

static void attend(struct ls_attention_plan *plan, bool residual)
{
    struct ls_ulysses *own = plan->own;
    struct ls_swap_place *place = own->swap.forward;
    struct ls_tensor lse = ls_travel_transposed(&place[LS_LSE].all);

    if (own->swap.share[plan->rank].q.count == 0) return;
    ls_plan_attend(plan, (struct ls_kernel_call){.o = &place[LS_LIKE_O].all,
                                                 .o_lo = residual ? &place[LS_O_LO].all : NULL,
                                                 .lse = &lse,
                                                 .q = &place[LS_LIKE_Q].all,
                                                 .k = &place[LS_LIKE_K].all,
                                                 .v = &place[LS_LIKE_V].all,
                                                 .q_leaves = own->swap.queries.leaves,
                                                 .k_leaves = own->swap.keys.leaves});
}

static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    struct ls_swap *swap = &((struct ls_ulysses *)plan->own)->swap;
    const struct ls_tensor lse = ls_travel_transposed(call->lse);
    const struct ls_tensor *const there[LS_TRAVELLERS] = {
        [LS_LIKE_Q] = call->q, [LS_LIKE_K] = call->k, [LS_LIKE_V] = call->v};
    const struct ls_tensor *const back[LS_TRAVELLERS] = {
        [LS_LSE] = &lse, [LS_LIKE_O] = call->o, [LS_O_LO] = call->o_lo};

    LS_TRY(ls_swap_there(swap, swap->forward, there));
    attend(plan, call->o_lo != NULL);
    return ls_swap_back(back, swap, swap->forward);
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
    .backward = ls_ulysses_backward,
};
