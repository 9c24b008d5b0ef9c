/* K and V stay where they are; a few queries are brought to all ranks, each of which attends to its
 * own keys for all of them. The results, m, l and acc, are merged in a binomial tree to the rank
 * that has the queries: ceil(log2 p) rounds, in each of which a rank sends one message at most.
 * With several such ranks their trees go on at the same time in the same messages (binomial.h). The
 * same tree backwards brings the queries. Strict mode: what travels is the nodes of the tree over
 * leaf numbers that the keys behind a rank make, and merges are that tree's (forest.h). Source:
 * Shyam et al. 2024, "Tree attention: topology-aware decoding for long-context attention on GPU
 * clusters". */
#include <stdlib.h>

#include "attention/leaves.h"
#include "attention/merging/states.h"
#include "attention/methods/allreduce_gradient.h"
#include "attention/methods/table.h"
#include "attention/methods/tree_size.h"
#include "attention/travelling/travel.h"
#include "base/ledger.h"
#include "plan/attention_size.h"

/* How results for a root's rows are merged here: this rank's own, then those of each round. */
struct merging {
    struct ls_forest forest;    /* open */
    struct ls_row_states *slot; /* [forest.slots] */
};

struct tree {
    struct ls_visiting_gradients *gradients;
    struct ls_tree_plan plan;
    struct ls_subtrees subtrees;
    struct merging *merging; /* [roots] */
    struct ls_leaf *q_leaf;  /* storage of q_leaves */
    struct ls_leaf_list q_leaves;
    void *travel_memory;
    float *mine, *in; /* results, root after root and message after message */
    char *queries, *out;
    struct ls_batch batch; /* of a round */
};

static const char *fits(const struct ls_problem *problem)
{
    if (problem->shape.s_q <= LS_TREE_MOST_QUERIES) return NULL;
    return "it brings all queries to all ranks at once, at most 4096 of them";
}

/* ---- making */

static void destroy(struct ls_attention_plan *plan)
{
    struct tree *own = plan->own;

    for (int i = 0; own->merging && i < own->plan.roots; i++) {
        ls_forest_fini(&own->merging[i].forest);
        free(own->merging[i].slot);
    }
    ls_visiting_gradients_destroy(own->gradients);
    ls_batch_fini(&own->batch);
    ls_problem_free(&plan->problem, own->travel_memory);
    free(own->q_leaf);
    free(own->merging);
    ls_subtrees_fini(&own->subtrees);
    ls_tree_plan_fini(&own->plan);
    free(own);
}

/* leaf: room for all leaves of the keys; part: for each round and one more. */
static ls_status make_merging(struct merging *out, const struct ls_attention_plan *plan,
                              const struct ls_binomial *tree, struct ls_leaf *leaf,
                              struct ls_leaf_list *part)
{
    const struct ls_layout *keys = &plan->problem.k_layout;
    const int takings = ls_binomial_takings(tree, plan->rank);

    part[0] = ls_tree_leaves(leaf, keys, plan->rank, 1);
    for (int k = 0; k < takings; k++) {
        const int from = (plan->rank + (1 << k)) % tree->p;

        leaf += part[k].count;
        part[k + 1] = ls_tree_leaves(leaf, keys, from, ls_binomial_ranks(tree, from));
    }
    LS_TRY(ls_forest_init_open(&out->forest, part, takings + 1, plan->problem.strict,
                               ls_layout_leaves(keys)));
    out->slot = calloc((size_t)out->forest.slots + 1, sizeof *out->slot);
    return out->slot ? LS_OK : ls_fail(LS_ENOMEM, "tree attention: out of memory");
}

static ls_status make_mergings(struct tree *own, const struct ls_attention_plan *plan)
{
    const struct ls_layout *keys = &plan->problem.k_layout;
    const size_t rounds = (size_t)ls_binomial_rounds(keys->p);
    struct ls_leaf *leaf = calloc((size_t)ls_layout_leaves(keys) + 1, sizeof *leaf);
    struct ls_leaf_list *part = calloc(rounds + 1, sizeof *part);
    ls_status status = LS_OK;

    own->merging = calloc((size_t)own->plan.roots + 1, sizeof *own->merging);
    if (!leaf || !part || !own->merging)
        status = ls_fail(LS_ENOMEM, "tree attention: out of memory");
    for (int i = 0; i < own->plan.roots && status == LS_OK; i++)
        status = make_merging(&own->merging[i], plan, &own->plan.root[i].tree, leaf, part);
    free(part);
    free(leaf);
    return status;
}

static ls_status list_queries(struct tree *own, const struct ls_layout *queries)
{
    int64_t *first_row = calloc((size_t)queries->p + 1, sizeof *first_row);

    own->q_leaf = calloc((size_t)ls_layout_leaves(queries) + 1, sizeof *own->q_leaf);
    if (first_row && own->q_leaf) ls_leaves_gather(&own->q_leaves, own->q_leaf, first_row, queries);
    free(first_row);
    return own->q_leaves.leaf ? LS_OK : ls_fail(LS_ENOMEM, "tree attention: out of memory");
}

static ls_status create_memory(struct tree *own, const struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    const struct ls_tree_memory memory =
        ls_tree_memory(&own->plan, problem, &own->subtrees, plan->rank);

    LS_TRY(ls_subtrees_make_room(&own->subtrees, plan, problem->p > 1 ? problem->shape.s_q : 0));
    LS_TRY(ls_problem_alloc(&own->travel_memory, problem, LS_TAG_COMM,
                            memory.mine + memory.in + memory.out + memory.queries));
    own->mine = own->travel_memory;
    own->in = own->mine + memory.mine / sizeof(float);
    own->queries = (char *)own->in + memory.in;
    own->out = own->queries + memory.queries;
    return LS_OK;
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;
    struct tree *own = calloc(1, sizeof *own);

    if (!own) return ls_fail(LS_ENOMEM, "tree attention: out of memory");
    plan->own = own;
    LS_TRY(ls_tree_plan_init(&own->plan, problem));
    LS_TRY(ls_subtrees_init(&own->subtrees, problem));
    LS_TRY(make_mergings(own, plan));
    LS_TRY(list_queries(own, &problem->q_layout));
    LS_TRY(create_memory(own, plan));
    LS_TRY(ls_batch_init(&own->batch, &plan->transport, 2));
    LS_TRY(ls_visiting_gradients_create(&own->gradients, plan));
    return ls_problem_kernel_create(&plan->kernel, problem);
}

/* ---- messages: one each way a round; to and from the ranks 2^round away */

static ls_status exchange(struct tree *own, int to, size_t out_bytes, int from, void *in,
                          size_t in_bytes)
{
    if (in_bytes > 0) ls_batch_receive(&own->batch, in, in_bytes, from);
    if (out_bytes > 0) ls_batch_send(&own->batch, own->out, out_bytes, to);
    return ls_batch_run(&own->batch);
}

static int ahead_of(const struct ls_attention_plan *plan, int round)
{
    const int p = plan->problem.p;

    return (plan->rank - (1 << round) + p) % p;
}

static int behind_of(const struct ls_attention_plan *plan, int round)
{
    return (plan->rank + (1 << round)) % plan->problem.p;
}

/* ---- queries, [b, rows, h, d] of all roots */

static struct ls_tensor query_rows(const struct ls_attention_plan *plan, void *data, int64_t rows)
{
    return ls_problem_queries(&plan->problem, data, rows);
}

/* A root's rows of the queries. */
static struct ls_tensor root_rows(const struct ls_attention_plan *plan,
                                  const struct ls_tree_root *root)
{
    const struct tree *own = plan->own;
    const struct ls_tensor all = query_rows(plan, own->queries, plan->problem.shape.s_q);

    return ls_range_of(&all, 1, root->first_row, root->rows);
}

/* Those that a rank gets in a round: out of the queries into a message, or back. */
static void pack_queries(char *message, const struct ls_attention_plan *plan, int rank, int round,
                         bool back)
{
    const struct tree *own = plan->own;

    for (int i = 0; i < own->plan.roots; i++) {
        const struct ls_tree_root *root = &own->plan.root[i];
        struct ls_tensor rows = root_rows(plan, root);
        struct ls_tensor packed = query_rows(plan, message, root->rows);

        if (!ls_binomial_gives(&root->tree, rank, round)) continue;
        if (back)
            ls_problem_copy(&plan->problem, &rows, &packed);
        else
            ls_problem_copy(&plan->problem, &packed, &rows);
        message += ls_travel_bytes(&packed);
    }
}

static void put_own_queries(const struct ls_attention_plan *plan, const struct ls_tensor *q)
{
    const struct tree *own = plan->own;

    for (int i = 0; i < own->plan.roots; i++) {
        if (own->plan.root[i].tree.root != plan->rank) continue;
        struct ls_tensor rows = root_rows(plan, &own->plan.root[i]);
        ls_problem_copy(&plan->problem, &rows, q);
    }
}

static ls_status spread_queries(struct ls_attention_plan *plan, const struct ls_tensor *q)
{
    struct tree *own = plan->own;
    const struct ls_problem *problem = &plan->problem;

    put_own_queries(plan, q);
    for (int k = ls_binomial_rounds(problem->p) - 1; k >= 0; k--) {
        const int to = behind_of(plan, k);

        pack_queries(own->out, plan, to, k, false);
        LS_TRY(exchange(own, to, ls_tree_query_bytes(&own->plan, problem, to, k), ahead_of(plan, k),
                        own->in, ls_tree_query_bytes(&own->plan, problem, plan->rank, k)));
        pack_queries((char *)own->in, plan, plan->rank, k, true);
    }
    return LS_OK;
}

/* ---- results */

/* This rank's own, root after root. */
static void take_own_results(const struct ls_attention_plan *plan)
{
    const struct tree *own = plan->own;
    float *mine = own->mine;

    for (int i = 0; i < own->plan.roots; i++) {
        const struct ls_tree_root *root = &own->plan.root[i];
        const struct ls_row_range rows = {root->first_row, root->rows, plan->problem.shape.s_q};

        ls_subtrees_take(mine, &own->subtrees, plan, rows);
        mine = ls_results_merge(own->merging[i].slot, plan, &own->merging[i].forest, 0, mine,
                                root->rows);
    }
}

/* What this rank gives in a round: what is left of all that it has merged. */
static void pack_results(const struct ls_attention_plan *plan, int round)
{
    const struct tree *own = plan->own;
    float *out = (float *)(void *)own->out;

    for (int i = 0; i < own->plan.roots; i++) {
        const struct ls_tree_root *root = &own->plan.root[i];
        const struct merging *merging = &own->merging[i];
        const int64_t floats = ls_state_count(&plan->problem.shape, root->rows);

        if (!ls_binomial_gives(&root->tree, plan->rank, round)) continue;
        for (int n = 0; n < merging->forest.kept_count; n++, out += floats)
            ls_problem_copy_floats(&plan->problem, out, floats,
                                   merging->slot[merging->forest.kept[n]].acc, floats, 1, floats);
    }
}

/* What came in a round is merged where it lies; returns its end. */
static float *merge_results(const struct ls_attention_plan *plan, float *in, int round)
{
    const struct tree *own = plan->own;

    for (int i = 0; i < own->plan.roots; i++) {
        const struct ls_tree_root *root = &own->plan.root[i];

        if (round < ls_binomial_takings(&root->tree, plan->rank))
            in = ls_results_merge(own->merging[i].slot, plan, &own->merging[i].forest, round + 1,
                                  in, root->rows);
    }
    return in;
}

static ls_status collect_results(struct ls_attention_plan *plan)
{
    struct tree *own = plan->own;
    float *in = own->in;

    take_own_results(plan);
    for (int k = 0; k < ls_binomial_rounds(plan->problem.p); k++) {
        const int from = behind_of(plan, k);

        pack_results(plan, k);
        LS_TRY(exchange(own, ahead_of(plan, k),
                        ls_tree_result_bytes(&own->plan, &plan->problem, plan->rank, k), from, in,
                        ls_tree_result_bytes(&own->plan, &plan->problem, from, k)));
        in = merge_results(plan, in, k);
    }
    return LS_OK;
}

static void finish_rows(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct tree *own = plan->own;

    for (int i = 0; i < own->plan.roots; i++) {
        const struct ls_tree_root *root = &own->plan.root[i];
        const struct ls_row_block all = {.count = root->rows, .leaves = plan->q_leaves};

        if (root->tree.root == plan->rank)
            ls_states_finish(plan, call, &own->merging[i].forest, own->merging[i].slot, &all);
    }
}

static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct tree *own = plan->own;
    const struct ls_tensor q = query_rows(plan, own->queries, plan->problem.shape.s_q);

    if (plan->problem.p == 1) {
        ls_subtrees_attend_alone(&own->subtrees, plan, call);
        return LS_OK;
    }
    LS_TRY(spread_queries(plan, call->q));
    ls_subtrees_attend(&own->subtrees, plan, call, &q, own->q_leaves);
    LS_TRY(collect_results(plan));
    finish_rows(plan, call);
    return LS_OK;
}

/* As allreduce, some rows after the others: gradients of the queries go to their owners at once. */
static ls_status backward(struct ls_attention_plan *plan, const struct ls_backward_call *call)
{
    return ls_visiting_gradients_run(((struct tree *)plan->own)->gradients, call);
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    LS_TRY(ls_tree_cost(out, problem));
    return ls_visiting_gradients_cost(out, problem);
}

const struct ls_method ls_method_tree = {
    .name = "tree",
    .summary = "few queries visit all K and V at once, results are merged in log2 p rounds",
    .fits = fits,
    .merges = true,
    .layout = ls_method_visit_layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
    .backward = backward,
};
