#include "attention/methods/allreduce_size.h"

#include "attention/merging/states.h"
#include "attention/methods/visits.h"
#include "plan/attention_size.h"

static size_t query_bytes(const struct ls_attention_shape *s, int64_t rows)
{
    return (size_t)(s->b * rows * s->h * s->d) * (size_t)ls_dtype_size(s->type);
}

struct ls_allreduce_memory ls_allreduce_memory(const struct ls_problem *problem,
                                               const struct ls_subtrees *subtrees, int rank)
{
    const struct ls_attention_shape *s = &problem->shape;
    const struct ls_layout *queries = &problem->q_layout;
    const int64_t own = ls_visit_rows(queries, rank, 0), rows = ls_visit_all_rows(queries, 0);
    const int64_t results = ls_subtrees_of(subtrees, rank);

    if (problem->p == 1) return (struct ls_allreduce_memory){0};
    struct ls_allreduce_memory memory = {
        .rows = rows,
        .states = (size_t)results * ls_row_state_bytes(s, rows),
        .out = results * ls_state_count(s, rows - own),
        .in = subtrees->first[problem->p] * ls_state_count(s, own),
        .queries = query_bytes(s, rows),
    };
    memory.travel = (size_t)(memory.out + memory.in) * sizeof(float) +
                    (ls_visit_steps(queries) > 1 ? 2 : 1) * memory.queries;
    return memory;
}

static void add_memory(struct ls_cost *out, const struct ls_subtrees *subtrees,
                       const struct ls_problem *problem)
{
    size_t most_states = 0;

    for (int r = 0; r < problem->p; r++) {
        const struct ls_allreduce_memory memory = ls_allreduce_memory(problem, subtrees, r);

        if (memory.states > most_states) most_states = memory.states;
        if (memory.travel > out->comm_bytes) out->comm_bytes = memory.travel;
    }
    out->workspace_bytes = ls_problem_kernel_bytes(problem) + most_states;
}

ls_status ls_allreduce_cost(struct ls_cost *out, const struct ls_problem *problem)
{
    const struct ls_attention_shape *s = &problem->shape;
    const struct ls_layout *queries = &problem->q_layout;
    struct ls_subtrees subtrees;

    *out = ls_method_work(problem);
    out->flops_most = ls_pair_flops(s) * ls_most_pairs_of_keys(&problem->k_layout, &problem->masks);
    out->call_rows = problem->p > 1 ? ls_visit_all_rows(queries, 0) : s->s_q;
    out->bytes_sent = (problem->p - 1) * (int64_t)query_bytes(s, s->s_q);
    out->messages = (problem->p - 1) * ls_visit_count(queries) * s->b;
    const ls_status status = ls_subtrees_count(&subtrees, problem);
    if (status == LS_OK) {
        ls_visits_count_back(&out->bytes_sent, &out->messages, queries, subtrees.first,
                             ls_state_count(s, 1) * (int64_t)sizeof(float));
        add_memory(out, &subtrees, problem);
    }
    ls_subtrees_fini(&subtrees);
    return status;
}
