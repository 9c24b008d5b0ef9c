/* Where a window, documents, slices or pairs limit what a query sees, each rank gets the keys that
 * its queries see, in whole leaves, from the ranks that have them, and no others: with a window,
 * those next to its own part, from as many ranks as it reaches. One message between two ranks. All
 * are on their way while the queries meet the keys of their own rank. Source: the halo exchange of
 * grid codes; Beltagy, Peters, Cohan 2020, "Longformer: the long-document transformer", for the
 * window. */
#include <stdlib.h>

#include "attention/merging/fold.h"
#include "attention/methods/part_gradients.h"
#include "attention/methods/table.h"
#include "attention/travelling/travel.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

struct halo {
    struct ls_part_steps steps; /* backward's; their keys closed up */
    char **in, **out; /* [p] of each step but the first, K, then V: [b, rows, h_kv, d or d_v] */
    struct ls_batch *batch; /* [p] likewise */
    struct ls_fold fold;
    struct ls_part_gradients *gradients;
    void *memory; /* of messages */
};

static const char *fits(const struct ls_problem *problem)
{
    const struct ls_mask_rule *rule = problem->rules;
    const bool window = rule->left != LS_NO_LIMIT && rule->right != LS_NO_LIMIT;

    if (problem->p == 1 || window || !ls_mask_rule_is_even(rule)) return NULL;
    return "no window on both sides, no documents, slices or pairs limit what a query sees: nearly "
           "all keys would go to every rank";
}

/* Backward goes from rank to rank as a ring does. */
static const struct ls_part_order part_order = {.node = 1, .seen = true};

static ls_status no_memory(void)
{
    return ls_fail(LS_ENOMEM, "halo attention: out of memory");
}

/* The lists of keys of those steps that bring any, one behind the other; returns how many. */
static int close_up(struct ls_part_steps *steps, int p)
{
    int parts = 1;

    for (int step = 1; step < p; step++)
        if (steps->rows[step] > 0) steps->keys[parts++] = steps->keys[step];
    return parts;
}

/* ---- cost */

/* Adds what one rank gets. states: most bytes of results that wait; rows [p]: in a rank's messages,
 * both ways. */
static ls_status add_rank(struct ls_cost *out, size_t *states, int64_t *rows,
                          const struct ls_problem *problem, int rank)
{
    struct ls_part_steps steps;
    ls_status status = ls_part_steps_init(&steps, problem, part_order, rank, false);
    size_t bytes = 0;

    for (int step = 1; step < problem->p && status == LS_OK; step++) {
        rows[rank] += steps.rows[step];
        rows[steps.owner[step]] += steps.rows[step];
        out->bytes_sent += (int64_t)ls_key_value_bytes(&problem->shape, steps.rows[step]);
        out->messages += steps.rows[step] > 0;
    }
    if (status == LS_OK)
        status = ls_fold_bytes(&bytes, problem, rank, steps.keys, close_up(&steps, problem->p));
    if (bytes > *states) *states = bytes;
    ls_part_steps_fini(&steps);
    return status;
}

static ls_status add_ranks(struct ls_cost *out, const struct ls_problem *problem)
{
    int64_t *rows = calloc((size_t)problem->p, sizeof *rows);
    ls_status status = rows ? LS_OK : no_memory();
    size_t states = 0;

    for (int r = 0; r < problem->p && status == LS_OK; r++)
        status = add_rank(out, &states, rows, problem, r);
    for (int r = 0; r < problem->p && status == LS_OK; r++) {
        const size_t bytes = ls_key_value_bytes(&problem->shape, rows[r]);
        if (bytes > out->comm_bytes) out->comm_bytes = bytes;
    }
    out->workspace_bytes += states;
    free(rows);
    return status;
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    *out = ls_method_work(problem);
    out->workspace_bytes = ls_problem_kernel_bytes(problem);
    LS_TRY(add_ranks(out, problem));
    if (!problem->backward) return LS_OK;
    out->backward_bytes_sent = out->bytes_sent;
    out->backward_messages = out->messages;
    return ls_part_gradients_cost(out, problem, part_order);
}

/* ---- making */

static void destroy(struct ls_attention_plan *plan)
{
    struct halo *own = plan->own;

    ls_part_gradients_destroy(own->gradients);
    ls_fold_fini(&own->fold);
    ls_problem_free(&plan->problem, own->memory);
    for (int step = 1; own->batch && step < plan->problem.p; step++)
        ls_batch_fini(&own->batch[step]);
    free(own->batch);
    free(own->in);
    ls_part_steps_fini(&own->steps);
    free(own);
}

static size_t bytes_of(const struct ls_problem *problem, int64_t rows)
{
    return ls_key_value_bytes(&problem->shape, rows);
}

static ls_status create_memory(struct halo *own, const struct ls_problem *problem)
{
    const struct ls_part_steps *steps = &own->steps;
    size_t bytes = 0;

    own->in = calloc(2 * (size_t)problem->p, sizeof *own->in);
    if (!own->in) return no_memory();
    own->out = own->in + problem->p;
    for (int step = 1; step < problem->p; step++)
        bytes += bytes_of(problem, steps->rows[step] + steps->rows_back[step]);
    LS_TRY(ls_problem_alloc(&own->memory, problem, LS_TAG_COMM, bytes));
    char *next = own->memory;

    for (int step = 1; step < problem->p; step++) {
        own->in[step] = next;
        own->out[step] = next + bytes_of(problem, steps->rows[step]);
        next = own->out[step] + bytes_of(problem, steps->rows_back[step]);
    }
    return LS_OK;
}

/* A step has a message each way at most. */
static ls_status create_batches(struct halo *own, const struct ls_attention_plan *plan)
{
    own->batch = calloc((size_t)plan->problem.p, sizeof *own->batch);
    if (!own->batch) return no_memory();
    for (int step = 1; step < plan->problem.p; step++)
        LS_TRY(ls_batch_init(&own->batch[step], &plan->transport, 2));
    return LS_OK;
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    struct halo *own = calloc(1, sizeof *own);

    if (!own) return no_memory();
    plan->own = own;
    LS_TRY(ls_part_steps_init(&own->steps, problem, part_order, plan->rank, true));
    LS_TRY(create_memory(own, problem));
    LS_TRY(create_batches(own, plan));
    LS_TRY(ls_fold_init(&own->fold, plan, own->steps.keys, close_up(&own->steps, problem->p)));
    LS_TRY(ls_part_gradients_create(&own->gradients, plan, part_order));
    return ls_problem_kernel_create(&plan->kernel, problem);
}

/* ---- execution */

static struct ls_tensor keys_in(const struct ls_problem *problem, char *message, int64_t rows)
{
    return ls_problem_keys(problem, message, rows);
}

static struct ls_tensor values_in(const struct ls_problem *problem, char *message, int64_t rows)
{
    return ls_problem_values(problem, message + ls_key_bytes(&problem->shape, rows), rows);
}

/* Some leaves of this rank's part, one behind the other. */
static void pack(struct ls_tensor to, const struct ls_problem *problem, struct ls_leaf_list leaves,
                 const struct ls_tensor *part)
{
    for (int64_t i = 0; i < leaves.count; i++) {
        const struct ls_leaf *leaf = &leaves.leaf[i];
        const int64_t rows = ls_layout_leaf_rows(&problem->k_layout, leaf->number);
        const struct ls_tensor from = ls_range_of(part, 1, leaf->row, rows);
        struct ls_tensor into = ls_range_of(&to, 1, i * LS_LEAF, rows);

        ls_problem_copy(problem, &into, &from);
    }
}

static ls_status start_messages(struct ls_attention_plan *plan, const struct ls_tensor *k,
                                const struct ls_tensor *v)
{
    const struct ls_problem *problem = &plan->problem;
    struct halo *own = plan->own;
    const struct ls_part_steps *steps = &own->steps;

    for (int step = 1; step < problem->p; step++) {
        const int64_t come = steps->rows[step], go = steps->rows_back[step];
        char *out = own->out[step];

        if (come > 0)
            ls_batch_receive(&own->batch[step], own->in[step], bytes_of(problem, come),
                             steps->owner[step]);
        if (go == 0) continue;
        pack(keys_in(problem, out, go), problem, steps->back[step], k);
        pack(values_in(problem, out, go), problem, steps->back[step], v);
        ls_batch_send(&own->batch[step], out, bytes_of(problem, go), steps->from[step]);
    }
    for (int step = 1; step < problem->p; step++) LS_TRY(ls_batch_start(&own->batch[step]));
    return LS_OK;
}

static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct ls_problem *problem = &plan->problem;
    struct halo *own = plan->own;

    LS_TRY(start_messages(plan, call->k, call->v));
    ls_fold_begin(&own->fold);
    ls_fold_part(&own->fold, plan, call, 0, call->k, call->v);
    for (int step = 1, part = 1; step < problem->p; step++) {
        const int64_t rows = own->steps.rows[step];

        LS_TRY(ls_batch_wait(&own->batch[step]));
        if (rows == 0) continue;
        const struct ls_tensor k = keys_in(problem, own->in[step], rows);
        const struct ls_tensor v = values_in(problem, own->in[step], rows);

        ls_fold_part(&own->fold, plan, call, part++, &k, &v);
    }
    return LS_OK;
}

/* The same messages; what the keys of each give goes back where they came from. */
static ls_status backward(struct ls_attention_plan *plan, const struct ls_backward_call *call)
{
    const struct ls_problem *problem = &plan->problem;
    struct halo *own = plan->own;

    LS_TRY(start_messages(plan, call->k, call->v));
    ls_part_gradients_begin(own->gradients, call);
    ls_part_gradients_meet(own->gradients, 0, call->k, call->v);
    LS_TRY(ls_part_gradients_pass(own->gradients, 0));
    for (int step = 1; step < problem->p; step++) {
        const int64_t rows = own->steps.rows[step];

        LS_TRY(ls_batch_wait(&own->batch[step]));
        if (rows > 0) {
            const struct ls_tensor k = keys_in(problem, own->in[step], rows);
            const struct ls_tensor v = values_in(problem, own->in[step], rows);

            ls_part_gradients_meet(own->gradients, step, &k, &v);
        }
        LS_TRY(ls_part_gradients_pass(own->gradients, step));
    }
    return ls_part_gradients_end(own->gradients);
}

const struct ls_method ls_method_halo = {
    .name = "halo",
    .summary = "each rank gets the keys that its queries see, and no others; window or documents",
    .fits = fits,
    .merges = true,
    .sends_seen = true,
    .layout = ls_method_plain_layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
    .backward = backward,
};
