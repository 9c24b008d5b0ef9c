#include "attention/methods/tree_size.h"

#include <stdlib.h>

#include "attention/leaves.h"
#include "plan/attention_size.h"

/* ---- who has queries, and what each rank gives for them */

struct ls_leaf_list ls_tree_leaves(struct ls_leaf *leaf, const struct ls_layout *layout, int first,
                                   int ranks)
{
    int64_t count = 0;

    for (int i = 0; i < ranks; i++)
        ls_leaves_append(leaf, &count, layout, (first + i) % layout->p, 0);
    ls_leaves_sort(leaf, count);
    return (struct ls_leaf_list){.leaf = leaf, .count = count};
}

static void list_roots(struct ls_tree_plan *out, const struct ls_layout *queries)
{
    int64_t first_row = 0;

    for (int r = 0; r < queries->p; r++) {
        const int64_t rows = ls_layout_part_rows(queries, r);

        if (rows == 0) continue;
        out->root[out->roots++] = (struct ls_tree_root){
            .tree = {.p = queries->p, .root = r}, .first_row = first_row, .rows = rows};
        first_row += rows;
    }
}

/* leaf: room for all of them. */
static void count_results(int64_t *results, const struct ls_binomial *tree,
                          const struct ls_problem *problem, struct ls_leaf *leaf)
{
    const struct ls_layout *keys = &problem->k_layout;

    for (int r = 0; r < problem->p; r++) {
        if (!problem->strict) {
            results[r] = 1;
            continue;
        }
        const struct ls_leaf_list all = ls_tree_leaves(leaf, keys, r, ls_binomial_ranks(tree, r));
        results[r] = ls_forest_nodes(&all, ls_layout_leaves(keys));
    }
}

/* No more ranks have queries than there are leaves of them. */
static size_t most_roots(const struct ls_problem *problem)
{
    const int64_t leaves = ls_layout_leaves(&problem->q_layout);

    return (size_t)(leaves < problem->p ? leaves : problem->p);
}

ls_status ls_tree_plan_init(struct ls_tree_plan *out, const struct ls_problem *problem)
{
    const size_t roots = most_roots(problem), p = (size_t)problem->p;
    struct ls_leaf *leaf = calloc((size_t)ls_layout_leaves(&problem->k_layout) + 1, sizeof *leaf);
    ls_status status = LS_OK;

    *out = (struct ls_tree_plan){
        .root = calloc(roots + 1, sizeof *out->root),
        .results = calloc(roots * p + 1, sizeof *out->results),
    };
    if (!leaf || !out->root || !out->results) {
        status = ls_fail(LS_ENOMEM, "tree attention: out of memory");
    } else {
        list_roots(out, &problem->q_layout);
        for (int i = 0; i < out->roots; i++)
            count_results(out->results + (size_t)i * p, &out->root[i].tree, problem, leaf);
    }
    free(leaf);
    return status;
}

void ls_tree_plan_fini(struct ls_tree_plan *plan)
{
    free(plan->root);
    free(plan->results);
}

/* ---- messages */

static size_t query_bytes(const struct ls_attention_shape *s, int64_t rows)
{
    return (size_t)(s->b * rows * s->h * s->d) * (size_t)ls_dtype_size(s->type);
}

size_t ls_tree_query_bytes(const struct ls_tree_plan *plan, const struct ls_problem *problem,
                           int rank, int round)
{
    size_t bytes = 0;

    for (int i = 0; i < plan->roots; i++)
        if (ls_binomial_gives(&plan->root[i].tree, rank, round))
            bytes += query_bytes(&problem->shape, plan->root[i].rows);
    return bytes;
}

size_t ls_tree_result_bytes(const struct ls_tree_plan *plan, const struct ls_problem *problem,
                            int rank, int round)
{
    size_t bytes = 0;

    for (int i = 0; i < plan->roots; i++)
        if (ls_binomial_gives(&plan->root[i].tree, rank, round))
            bytes += (size_t)plan->results[i * problem->p + rank] *
                     ls_row_state_bytes(&problem->shape, plan->root[i].rows);
    return bytes;
}

/* ---- memory */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

struct ls_tree_memory ls_tree_memory(const struct ls_tree_plan *plan,
                                     const struct ls_problem *problem,
                                     const struct ls_subtrees *subtrees, int rank)
{
    const struct ls_attention_shape *s = &problem->shape;
    const int p = problem->p, rounds = ls_binomial_rounds(p);
    const size_t states = (size_t)ls_subtrees_of(subtrees, rank) * ls_row_state_bytes(s, s->s_q);
    size_t in = 0;

    if (p == 1) return (struct ls_tree_memory){0};
    struct ls_tree_memory memory = {
        .states = states, .mine = states, .queries = query_bytes(s, s->s_q)};
    for (int k = 0; k < rounds; k++) {
        const int behind = (rank + (1 << k)) % p;

        in += ls_tree_result_bytes(plan, problem, behind, k);
        memory.in = larger(memory.in, ls_tree_query_bytes(plan, problem, rank, k));
        memory.out = larger(memory.out, ls_tree_query_bytes(plan, problem, behind, k));
        memory.out = larger(memory.out, ls_tree_result_bytes(plan, problem, rank, k));
    }
    memory.in = larger(memory.in, in);
    return memory;
}

/* ---- cost */

static void add_rank(struct ls_cost *out, const struct ls_tree_plan *plan,
                     const struct ls_problem *problem, int rank)
{
    for (int k = 0; k < ls_binomial_rounds(problem->p); k++) {
        const size_t queries = ls_tree_query_bytes(plan, problem, rank, k);
        const size_t results = ls_tree_result_bytes(plan, problem, rank, k);

        out->bytes_sent += (int64_t)(queries + results);
        out->messages += (queries > 0) + (results > 0);
    }
}

ls_status ls_tree_cost(struct ls_cost *out, const struct ls_problem *problem)
{
    const struct ls_attention_shape *s = &problem->shape;
    struct ls_subtrees subtrees = {0};
    struct ls_tree_plan plan;
    size_t most_states = 0;

    *out = ls_method_work(problem);
    out->flops_most = ls_pair_flops(s) * ls_most_pairs_of_keys(&problem->k_layout, &problem->masks);
    out->call_rows = s->s_q;
    ls_status status = ls_tree_plan_init(&plan, problem);
    if (status == LS_OK) status = ls_subtrees_count(&subtrees, problem);
    for (int r = 0; r < problem->p && status == LS_OK; r++) {
        const struct ls_tree_memory memory = ls_tree_memory(&plan, problem, &subtrees, r);

        add_rank(out, &plan, problem, r);
        most_states = larger(most_states, memory.states);
        out->comm_bytes =
            larger(out->comm_bytes, memory.mine + memory.in + memory.out + memory.queries);
    }
    out->workspace_bytes = ls_problem_kernel_bytes(problem) + most_states;
    ls_subtrees_fini(&subtrees);
    ls_tree_plan_fini(&plan);
    return status;
}
