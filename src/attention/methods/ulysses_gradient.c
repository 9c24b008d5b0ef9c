/* Backward of the Ulysses method: q, k, v, d_o, lse and delta are swapped for heads, and dq, dk and
 * dv back. Where ranks have whole groups, what comes back is rounded. Where a group's heads are on
 * several ranks, dk and dv come back as sums of each query head, and the owner of the keys adds the
 * heads as one rank would. */
#include <stdlib.h>

#include "attention/gradient.h"
#include "attention/methods/ulysses.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

static bool splits_groups(const struct ls_problem *problem)
{
    return ls_head_share_copies(&problem->shape, problem->p) > problem->shape.h_kv;
}

/* Floats of one rank's memory. */
struct memory {
    int64_t dq, dk, dv, numbers; /* of all positions of its heads */
    int64_t outgoing, whole;     /* of dk and dv */
};

static struct memory memory_of(const struct ls_problem *problem, int rank)
{
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t heads = ls_head_share(s, problem->p, rank).q.count;
    const int64_t rows = ls_layout_part_rows(&problem->k_layout, rank);
    const bool split = splits_groups(problem);

    return (struct memory){
        .dq = ls_gradient_count(s, heads, s->s_q),
        .dk = ls_gradient_count(s, heads, s->s_k),
        .dv = ls_value_gradient_count(s, heads, s->s_k),
        .numbers = s->b * heads * s->s_q,
        .outgoing = split ? ls_pair_gradient_count(s, heads, s->s_k - rows) : 0,
        .whole = split ? ls_pair_gradient_count(s, s->h, rows) : 0,
    };
}

static size_t memory_bytes(const struct memory *m)
{
    return (size_t)(m->dq + m->dk + m->dv + 2 * m->numbers + m->outgoing + m->whole) *
           sizeof(float);
}

static struct ls_gradient_shape kernel_shape(const struct ls_problem *problem,
                                             const struct ls_head_share *share)
{
    struct ls_gradient_shape shape = ls_plan_gradient_shape(
        problem, ls_layout_leaves(&problem->q_layout), ls_layout_leaves(&problem->k_layout));

    shape.attention.global = ls_head_share_shape(&problem->shape, share);
    shape.attention.scores.first_head += share->q.first;
    shape.queries_return = false;
    return shape;
}

/* ---- cost */

size_t ls_ulysses_gradient_kernel_bytes(const struct ls_problem *problem,
                                        const struct ls_head_share *share)
{
    if (!problem->backward || share->q.count == 0) return 0;
    return ls_gradient_kernel_bytes(problem->device, kernel_shape(problem, share));
}

/* Sums that one rank sends: of its heads, a message for each batch of dk and of dv. */
static void add_sums(struct ls_cost *cost, const struct ls_problem *problem, int rank)
{
    const struct memory m = memory_of(problem, rank);

    cost->backward_bytes_sent += m.outgoing * (int64_t)sizeof(float);
    if (m.outgoing == 0) return;
    for (int r = 0; r < problem->p; r++)
        if (r != rank && ls_layout_part_rows(&problem->k_layout, r) > 0)
            cost->backward_messages += 2 * problem->shape.b;
}

void ls_ulysses_gradient_cost(struct ls_cost *cost, const struct ls_problem *problem)
{
    if (!problem->backward) return;
    for (int r = 0; r < problem->p; r++) {
        const struct memory m = memory_of(problem, r);
        const size_t bytes = memory_bytes(&m) + ls_gradients_bytes(problem, r);

        if (bytes > cost->gradient_bytes) cost->gradient_bytes = bytes;
        add_sums(cost, problem, r);
    }
}

/* ---- making */

ls_status ls_ulysses_gradient_create(struct ls_attention_plan *plan)
{
    struct ls_ulysses *own = plan->own;
    const struct ls_problem *problem = &plan->problem;
    const struct ls_head_share *share = &own->swap.share[plan->rank];
    const struct memory m = memory_of(problem, plan->rank);

    if (!problem->backward) return LS_OK;
    LS_TRY(ls_batch_init(&own->batch, &plan->transport, 4 * problem->shape.b * problem->p));
    LS_TRY(ls_problem_alloc(&own->memory, problem, LS_TAG_GRADIENT, memory_bytes(&m)));
    own->dq = own->memory;
    own->dk = own->dq + m.dq;
    own->dv = own->dk + m.dk;
    own->lse = own->dv + m.dv;
    own->delta = own->lse + m.numbers;
    own->outgoing = own->delta + m.numbers;
    own->whole = own->outgoing + m.outgoing;
    if (share->q.count == 0) return LS_OK;
    return ls_gradient_kernel_create(&plan->gradients.kernel, problem->device,
                                     kernel_shape(problem, share));
}

void ls_ulysses_gradient_destroy(struct ls_ulysses *own)
{
    ls_problem_free(own->swap.problem, own->memory);
    ls_batch_fini(&own->batch);
}

/* ---- sums of groups that are split */

/* Sums of dk or dv of all positions of this rank's heads, [b, heads, s_k, d]; and room for those of
 * all heads of its own positions, [b, h, rows, d]. */
struct key_sums {
    const float *sums;
    float *whole;
    int64_t d;
};

/* Rows [first, first + rows) of the sums of every head of one batch; returns the end of out. */
static float *take_rows(float *out, const struct ls_problem *problem, const float *sums,
                        int64_t heads, int64_t first, int64_t rows, int64_t d)
{
    ls_problem_copy_floats(problem, out, rows * d, sums + first * d, problem->shape.s_k * d, heads,
                           rows * d);
    return out + heads * rows * d;
}

/* dk or dv of one batch: to the owners of the keys, and from all for this rank's own. */
static void add_batch(float **outgoing, struct ls_attention_plan *plan, const struct key_sums *of,
                      int64_t batch)
{
    struct ls_ulysses *own = plan->own;
    const struct ls_attention_shape *s = &plan->problem.shape;
    const int64_t *first = own->swap.keys.first_row;
    const int64_t mine = first[plan->rank + 1] - first[plan->rank];
    const int64_t heads = own->swap.share[plan->rank].q.count, d = of->d;
    const float *sums = of->sums + batch * heads * s->s_k * d;
    float *whole = of->whole + batch * s->h * mine * d;

    for (int r = 0; r < plan->problem.p; r++) {
        const struct ls_head_run theirs = own->swap.share[r].q;
        const int64_t rows = first[r + 1] - first[r];
        float *into = whole + theirs.first * mine * d;

        if (r == plan->rank) {
            take_rows(into, &plan->problem, sums, heads, first[r], rows, d);
            continue;
        }
        if (mine * theirs.count > 0)
            ls_batch_receive(&own->batch, into, (size_t)(mine * theirs.count * d) * sizeof *into,
                             r);
        if (rows * heads == 0) continue;
        float *end = take_rows(*outgoing, &plan->problem, sums, heads, first[r], rows, d);
        ls_batch_send(&own->batch, *outgoing, (size_t)(end - *outgoing) * sizeof *end, r);
        *outgoing = end;
    }
}

static ls_status return_sums(struct ls_attention_plan *plan, const struct ls_backward_call *call)
{
    struct ls_ulysses *own = plan->own;
    const struct ls_attention_shape *s = &plan->problem.shape;
    const struct ls_terms dk = {.a = own->whole};
    const int64_t one = ls_gradient_count(s, s->h, call->k->dim[1]);
    const struct key_sums sums[] = {{own->dk, own->whole, s->d},
                                    {own->dv, own->whole + one, ls_value_dim(s)}};
    float *outgoing = own->outgoing;

    for (int i = 0; i < 2; i++)
        for (int64_t batch = 0; batch < s->b; batch++) add_batch(&outgoing, plan, &sums[i], batch);
    LS_TRY(ls_batch_run(&own->batch));
    ls_plan_round(call->dk, plan, dk, s->h / s->h_kv);
    ls_plan_round(call->dv, plan, ls_terms_behind(dk, one), s->h / s->h_kv);
    return LS_OK;
}

/* ---- execution */

/* Gradients are written where q, k and v were. */
static void compute(struct ls_attention_plan *plan)
{
    struct ls_ulysses *own = plan->own;
    struct ls_swap_place *place = own->swap.backward;
    const struct ls_head_share *share = &own->swap.share[plan->rank];
    struct ls_tensor *q = &place[LS_LIKE_Q].all, *k = &place[LS_LIKE_K].all,
                     *v = &place[LS_LIKE_V].all;

    if (share->q.count == 0) return;
    const bool split = splits_groups(&plan->problem);
    const bool grouped = split || share->q.count > share->kv.count;

    ls_travel_take_numbers(own->lse, &plan->problem, &place[LS_LSE].all);
    ls_travel_take_numbers(own->delta, &plan->problem, &place[LS_DELTA].all);
    ls_plan_gradient(plan,
                     &(struct ls_gradient_call){
                         .q = q,
                         .d_o = &place[LS_LIKE_O].all,
                         .k = k,
                         .v = v,
                         .lse = own->lse,
                         .delta = own->delta,
                         .q_leaves = own->swap.queries.leaves,
                         .k_leaves = own->swap.keys.leaves,
                         .dq = own->dq,
                         .dk = own->dk,
                         .dv = own->dv,
                         .rounded = {.dq = q, .dk = grouped ? NULL : k, .dv = grouped ? NULL : v}});
    if (split || !grouped) return;
    const int64_t group = share->q.count / share->kv.count;

    ls_plan_round(k, plan, (struct ls_terms){own->dk, NULL}, group);
    ls_plan_round(v, plan, (struct ls_terms){own->dv, NULL}, group);
}

ls_status ls_ulysses_backward(struct ls_attention_plan *plan, const struct ls_backward_call *call)
{
    struct ls_swap *swap = &((struct ls_ulysses *)plan->own)->swap;
    const bool split = splits_groups(&plan->problem);
    const struct ls_tensor lse =
        ls_travel_numbers(&plan->problem.shape, call->q->dim[1], call->lse);
    const struct ls_tensor delta =
        ls_travel_numbers(&plan->problem.shape, call->q->dim[1], call->delta);
    const struct ls_tensor *const there[LS_TRAVELLERS] = {
        [LS_LSE] = &lse,       [LS_DELTA] = &delta,   [LS_LIKE_Q] = call->q,
        [LS_LIKE_K] = call->k, [LS_LIKE_V] = call->v, [LS_LIKE_O] = call->d_o};
    const struct ls_tensor *const back[LS_TRAVELLERS] = {[LS_LIKE_Q] = call->dq,
                                                         [LS_LIKE_K] = split ? NULL : call->dk,
                                                         [LS_LIKE_V] = split ? NULL : call->dv};

    LS_TRY(ls_swap_there(swap, swap->backward, there));
    compute(plan);
    LS_TRY(ls_swap_back(back, swap, swap->backward));
    return split ? return_sums(plan, call) : LS_OK;
}
