/* Where a window or documents limit what a query sees, each rank gets the keys that its queries
 * see, in whole leaves, from the ranks that have them, and no others: with a window, those next to
 * its own part, from as many ranks as it reaches. One message between two ranks. All are on their
 * way while the queries meet the keys of their own rank.
 * Source: the halo exchange of grid codes; Beltagy, Peters, Cohan 2020, "Longformer: the
 * long-document transformer", for the window. */
#include <stdlib.h>

#include "attention/leaves.h"
#include "attention/merging/fold.h"
#include "attention/methods/part_gradients.h"
#include "attention/methods/reach.h"
#include "attention/methods/table.h"
#include "attention/travelling/travel.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

/* Keys of one rank that another one's queries see. */
struct message {
    int rank; /* where it goes, or comes from */
    int step; /* so many ranks on, or back, in a ring */
    int64_t rows;
    struct ls_leaf_list leaves; /* by the rows of their owner's part */
    char *memory;               /* K, then V: [b, rows, h_kv, d] */
};

struct halo {
    struct message *in, *out; /* [ins], [outs] */
    int ins, outs;
    struct ls_leaf_list *part; /* [1 + ins] the keys that are here, then those that come */
    struct ls_leaf *leaf;      /* storage of the leaves of messages, then of parts */
    struct ls_batch *batch;    /* [p - 1] of each step of the ring */
    int batches;
    struct ls_fold fold;
    struct ls_part_gradients *gradients;
    void *memory; /* of messages */
};

static const char *fits(const struct ls_problem *problem)
{
    const struct ls_mask *mask = &problem->mask;
    const bool window = mask->left != LS_NO_LIMIT && mask->right != LS_NO_LIMIT;

    if (problem->p == 1 || window || mask->documents) return NULL;
    return "no window on both sides and no documents limit what a query sees: nearly all keys "
           "would go to every rank";
}

/* Backward goes from rank to rank as a ring does. */
static const struct ls_part_order part_order = {.node = 1, .seen = true};

static struct ls_kernel_shape kernel_shape(const struct ls_problem *problem)
{
    return ls_problem_kernel_shape(problem, ls_layout_most_leaves(&problem->k_layout));
}

/* ---- who needs what */

/* Rank's messages in, in the order of a ring; returns how many. in [p - 1]; leaf: room for all
 * leaves; seen: room for a mark of each. */
static int list_in(struct message *in, struct ls_leaf *leaf, bool *seen,
                   const struct ls_problem *problem, int rank)
{
    int64_t count = 0;
    int ins = 0;

    ls_reach_mark(seen, problem, rank);
    for (int step = 1; step < problem->p; step++) {
        const int owner = (rank - step + problem->p) % problem->p;
        const int64_t first = count;
        const int64_t rows = ls_reach_append(leaf, &count, problem, owner, seen);

        if (rows > 0)
            in[ins++] = (struct message){
                .rank = owner, .step = step, .rows = rows, .leaves = {leaf + first, count - first}};
    }
    return ins;
}

static int list_out(struct message *out, struct ls_leaf *leaf, bool *seen,
                    const struct ls_problem *problem, int rank)
{
    int64_t count = 0;
    int outs = 0;

    for (int step = 1; step < problem->p; step++) {
        const int to = (rank + step) % problem->p;
        const int64_t first = count;

        ls_reach_mark(seen, problem, to);
        const int64_t rows = ls_reach_append(leaf, &count, problem, rank, seen);

        if (rows > 0)
            out[outs++] = (struct message){
                .rank = to, .step = step, .rows = rows, .leaves = {leaf + first, count - first}};
    }
    return outs;
}

/* part [1 + ins] = rank's own keys, then each message's, whose leaves follow each other in it. */
static void list_parts(struct ls_leaf_list *part, struct ls_leaf *leaf,
                       const struct ls_problem *problem, int rank, const struct message *in,
                       int ins)
{
    int64_t count = 0;

    ls_leaves_append(leaf, &count, &problem->k_layout, rank, 0);
    part[0] = (struct ls_leaf_list){leaf, count};
    for (int i = 0; i < ins; i++) {
        struct ls_leaf *first = leaf + count;

        for (int64_t j = 0; j < in[i].leaves.count; j++)
            leaf[count++] = (struct ls_leaf){in[i].leaves.leaf[j].number, j * LS_LEAF};
        part[1 + i] = (struct ls_leaf_list){first, in[i].leaves.count};
    }
}

/* ---- cost */

/* What is counted rank by rank. */
struct count {
    struct message *in;
    struct ls_leaf_list *part;
    struct ls_leaf *leaf;
    bool *seen;
    int64_t *rows; /* [p] in a rank's messages, both ways */
};

static void free_count(struct count *count)
{
    free(count->in);
    free(count->part);
    free(count->leaf);
    free(count->seen);
    free(count->rows);
}

static ls_status create_count(struct count *out, const struct ls_problem *problem)
{
    const size_t p = (size_t)problem->p, leaves = (size_t)ls_layout_leaves(&problem->k_layout);

    *out = (struct count){
        .in = calloc(p, sizeof *out->in),
        .part = calloc(p, sizeof *out->part),
        .leaf = calloc(2 * leaves + 1, sizeof *out->leaf),
        .seen = calloc(leaves + 1, sizeof *out->seen),
        .rows = calloc(p, sizeof *out->rows),
    };
    if (out->in && out->part && out->leaf && out->seen && out->rows) return LS_OK;
    return ls_fail(LS_ENOMEM, "halo attention: out of memory");
}

/* bytes: of results of this rank that wait. */
static ls_status count_rank(struct ls_cost *out, size_t *bytes, struct count *count,
                            const struct ls_problem *problem, int rank)
{
    struct ls_leaf *leaf = count->leaf + ls_layout_leaves(&problem->k_layout);
    const int ins = list_in(count->in, count->leaf, count->seen, problem, rank);

    for (int i = 0; i < ins; i++) {
        const struct message *in = &count->in[i];

        count->rows[rank] += in->rows;
        count->rows[in->rank] += in->rows;
        out->bytes_sent += (int64_t)ls_key_value_bytes(&problem->shape, in->rows);
        out->messages++;
    }
    list_parts(count->part, leaf, problem, rank, count->in, ins);
    return ls_fold_bytes(bytes, problem, rank, count->part, 1 + ins);
}

static ls_status count_ranks(struct ls_cost *out, struct count *count,
                             const struct ls_problem *problem)
{
    size_t states = 0;

    for (int r = 0; r < problem->p; r++) {
        size_t bytes;

        LS_TRY(count_rank(out, &bytes, count, problem, r));
        if (bytes > states) states = bytes;
    }
    for (int r = 0; r < problem->p; r++) {
        const size_t bytes = ls_key_value_bytes(&problem->shape, count->rows[r]);
        if (bytes > out->comm_bytes) out->comm_bytes = bytes;
    }
    out->workspace_bytes += states;
    return LS_OK;
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    struct count count;
    ls_status status = create_count(&count, problem);

    *out = ls_method_work(problem);
    out->workspace_bytes = ls_attention_kernel_bytes(problem->device, kernel_shape(problem));
    if (status == LS_OK) status = count_ranks(out, &count, problem);
    free_count(&count);
    if (status != LS_OK || !problem->backward) return status;
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
    for (int i = 0; i < own->batches; i++) ls_batch_fini(&own->batch[i]);
    free(own->batch);
    free(own->leaf);
    free(own->part);
    free(own->in);
    free(own);
}

static ls_status no_memory(void)
{
    return ls_fail(LS_ENOMEM, "halo attention: out of memory");
}

/* Of what comes, what goes (each leaf to any other rank) and what is there. */
static size_t most_leaves_listed(const struct ls_attention_plan *plan)
{
    const struct ls_layout *keys = &plan->problem.k_layout;

    return (size_t)(2 * ls_layout_leaves(keys) +
                    ls_layout_part_leaves(keys, plan->rank) * (plan->problem.p - 1) + 1);
}

static ls_status list_messages(struct halo *own, const struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const int64_t leaves = ls_layout_leaves(&problem->k_layout);
    bool *seen = calloc((size_t)leaves + 1, sizeof *seen);

    own->in = calloc(2 * (size_t)problem->p, sizeof *own->in);
    own->part = calloc((size_t)problem->p, sizeof *own->part);
    own->leaf = calloc(most_leaves_listed(plan), sizeof *own->leaf);
    if (!seen || !own->in || !own->part || !own->leaf) {
        free(seen);
        return no_memory();
    }
    own->out = own->in + problem->p;
    own->ins = list_in(own->in, own->leaf, seen, problem, plan->rank);
    list_parts(own->part, own->leaf + leaves, problem, plan->rank, own->in, own->ins);
    own->outs = list_out(own->out, own->leaf + 2 * leaves, seen, problem, plan->rank);
    free(seen);
    return LS_OK;
}

static size_t message_bytes(const struct ls_problem *problem, const struct message *message)
{
    return ls_key_value_bytes(&problem->shape, message->rows);
}

static ls_status create_memory(struct halo *own, const struct ls_problem *problem)
{
    size_t bytes = 0;

    for (int i = 0; i < own->ins; i++) bytes += message_bytes(problem, &own->in[i]);
    for (int i = 0; i < own->outs; i++) bytes += message_bytes(problem, &own->out[i]);
    LS_TRY(ls_problem_alloc(&own->memory, problem, LS_TAG_COMM, bytes));
    char *next = own->memory;

    for (int i = 0; i < own->ins + own->outs; i++) {
        struct message *message = i < own->ins ? &own->in[i] : &own->out[i - own->ins];

        message->memory = next;
        next += message_bytes(problem, message);
    }
    return LS_OK;
}

/* A step has a message each way at most. */
static ls_status create_batches(struct halo *own, const struct ls_attention_plan *plan)
{
    own->batch = calloc((size_t)plan->problem.p, sizeof *own->batch);
    if (!own->batch) return no_memory();
    while (own->batches < plan->problem.p - 1)
        LS_TRY(ls_batch_init(&own->batch[own->batches++], &plan->transport, 2));
    return LS_OK;
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    struct halo *own = calloc(1, sizeof *own);

    if (!own) return no_memory();
    plan->own = own;
    LS_TRY(list_messages(own, plan));
    LS_TRY(create_memory(own, problem));
    LS_TRY(create_batches(own, plan));
    LS_TRY(ls_fold_init(&own->fold, plan, own->part, 1 + own->ins));
    LS_TRY(ls_part_gradients_create(&own->gradients, plan, part_order));
    return ls_attention_kernel_create(&plan->kernel, problem->device, kernel_shape(problem));
}

/* ---- execution */

static struct ls_tensor keys_in(const struct ls_problem *problem, const struct message *message)
{
    return ls_problem_key_view(problem, message->memory, message->rows);
}

static struct ls_tensor values_in(const struct ls_problem *problem, const struct message *message)
{
    return ls_problem_key_view(problem, message->memory + message_bytes(problem, message) / 2,
                               message->rows);
}

/* The leaves of a message out of this rank's part. */
static void pack(struct ls_tensor to, const struct ls_problem *problem,
                 const struct message *message, const struct ls_tensor *part)
{
    for (int64_t i = 0; i < message->leaves.count; i++) {
        const struct ls_leaf *leaf = &message->leaves.leaf[i];
        const int64_t rows = ls_layout_leaf_rows(&problem->k_layout, leaf->number);
        const struct ls_tensor from = ls_travel_rows(part, leaf->row, rows);
        struct ls_tensor into = ls_travel_rows(&to, i * LS_LEAF, rows);

        ls_problem_copy(problem, &into, &from);
    }
}

static ls_status start_messages(struct ls_attention_plan *plan, const struct ls_tensor *k,
                                const struct ls_tensor *v)
{
    const struct ls_problem *problem = &plan->problem;
    struct halo *own = plan->own;

    for (int i = 0; i < own->ins; i++)
        ls_batch_receive(&own->batch[own->in[i].step - 1], own->in[i].memory,
                         message_bytes(problem, &own->in[i]), own->in[i].rank);
    for (int i = 0; i < own->outs; i++) {
        const struct message *out = &own->out[i];

        pack(keys_in(problem, out), problem, out, k);
        pack(values_in(problem, out), problem, out, v);
        ls_batch_send(&own->batch[out->step - 1], out->memory, message_bytes(problem, out),
                      out->rank);
    }
    for (int i = 0; i < own->batches; i++) LS_TRY(ls_batch_start(&own->batch[i]));
    return LS_OK;
}

static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct ls_problem *problem = &plan->problem;
    struct halo *own = plan->own;

    LS_TRY(start_messages(plan, call->k, call->v));
    ls_fold_begin(&own->fold);
    ls_fold_part(&own->fold, plan, call, 0, call->k, call->v);
    for (int step = 1, i = 0; step < problem->p; step++) {
        LS_TRY(ls_batch_wait(&own->batch[step - 1]));
        if (i == own->ins || own->in[i].step != step) continue;
        const struct ls_tensor k = keys_in(problem, &own->in[i]);
        const struct ls_tensor v = values_in(problem, &own->in[i]);

        i++;
        ls_fold_part(&own->fold, plan, call, i, &k, &v);
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
    for (int step = 1, i = 0; step < problem->p; step++) {
        LS_TRY(ls_batch_wait(&own->batch[step - 1]));
        if (i < own->ins && own->in[i].step == step) {
            const struct ls_tensor k = keys_in(problem, &own->in[i]);
            const struct ls_tensor v = values_in(problem, &own->in[i]);

            i++;
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
