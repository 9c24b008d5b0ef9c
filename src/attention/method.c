#include "attention/method.h"

#include <stdio.h>

#include "attention/bias_gradient.h"
#include "attention/distances.h"
#include "plan/attention_size.h"

/* Where leaves are dealt one by one, nearly each is a node of the tree that waits for others: their
 * memory, and the time to plan them, grow with the square of the length. */
#define MOST_SINGLE_LEAVES (1 << 15)
#define MOST_SINGLE_LEAVES_BACKWARD (1 << 13)

static const char *strict_misfit(const struct ls_problem *problem)
{
    static _Thread_local char reason[192];
    const ls_layout_kind kind = problem->k_layout.kind;
    const bool single = kind == LS_LAYOUT_STRIPED || kind == LS_LAYOUT_BALANCED;
    const int64_t q_leaves = ls_layout_leaves(&problem->q_layout);
    const int64_t k_leaves = ls_layout_leaves(&problem->k_layout);
    const int64_t leaves = q_leaves > k_leaves ? q_leaves : k_leaves;
    const int most = problem->backward ? MOST_SINGLE_LEAVES_BACKWARD : MOST_SINGLE_LEAVES;

    if (!problem->strict || problem->p == 1 || !single || leaves <= most) return NULL;
    snprintf(reason, sizeof reason,
             "strict mode would keep a result for nearly each of %lld leaves in layout %s, at most "
             "%d: layout zigzag or contiguous needs few",
             (long long)leaves, ls_layout_name(kind), most);
    return reason;
}

const char *ls_method_misfit(const struct ls_method *method, const struct ls_problem *problem)
{
    if (problem->backward && !method->backward) return "it has no backward";

    const bool merges = method->merges || (problem->backward && method->merges_backward);
    const char *reason = method->fits(problem);

    return reason || !merges ? reason : strict_misfit(problem);
}

ls_status ls_method_cost(struct ls_cost *out, const struct ls_method *method,
                         const struct ls_problem *problem)
{
    LS_TRY(method->cost(out, problem));
    out->gradient_bytes += ls_distances_bytes(problem);
    ls_bias_gradient_cost(out, problem);
    return LS_OK;
}

const char *ls_method_fits_all(const struct ls_problem *problem)
{
    (void)problem;
    return NULL;
}

ls_layout_kind ls_method_plain_layout(const struct ls_problem *problem)
{
    (void)problem;
    return LS_LAYOUT_CONTIGUOUS;
}

ls_layout_kind ls_method_even_layout(const struct ls_problem *problem)
{
    const struct ls_mask_rule *rule = problem->rules;
    const bool one_sided = (rule->left == INT64_MAX) != (rule->right == INT64_MAX);

    if (problem->p == 1) return LS_LAYOUT_CONTIGUOUS;
    if (!ls_mask_rule_is_even(rule)) return LS_LAYOUT_BALANCED;
    return one_sided ? LS_LAYOUT_ZIGZAG : LS_LAYOUT_CONTIGUOUS;
}

ls_layout_kind ls_method_visit_layout(const struct ls_problem *problem)
{
    const ls_layout_kind even = ls_method_even_layout(problem);

    return even == LS_LAYOUT_CONTIGUOUS || problem->strict ? even : LS_LAYOUT_STRIPED;
}

struct ls_cost ls_method_work(const struct ls_problem *problem)
{
    const struct ls_attention_shape *s = &problem->shape;
    const double per_pair = ls_pair_flops(s);

    return (struct ls_cost){
        .flops = per_pair * ls_visible_pairs(&problem->masks),
        .flops_most = per_pair * ls_most_pairs_of_queries(&problem->q_layout, &problem->masks),
        .call_rows = ls_layout_most_rows(&problem->q_layout),
        .tiles = ls_attention_tiles(s, &problem->masks, problem->scores.first_head),
    };
}
