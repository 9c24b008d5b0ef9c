/* One rank has everything. */
#include <stdlib.h>

#include "attention/leaves.h"
#include "attention/methods/part_gradients.h"
#include "attention/methods/table.h"
#include "attention/plan.h"

struct local {
    struct ls_part_gradients *gradients;
    struct ls_leaf_list keys;
    struct ls_leaf leaf[]; /* storage of keys */
};

static const char *fits(const struct ls_problem *problem)
{
    return problem->p == 1 ? NULL : "it exchanges nothing, so it needs exactly one rank";
}

static ls_status cost(struct ls_cost *out, const struct ls_problem *problem)
{
    *out = ls_method_work(problem);
    out->workspace_bytes = ls_problem_kernel_bytes(problem);
    return ls_part_gradients_cost(out, problem, (struct ls_part_order){.node = 1});
}

static void destroy(struct ls_attention_plan *plan)
{
    struct local *own = plan->own;

    ls_part_gradients_destroy(own->gradients);
    free(own);
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_layout *keys = &plan->problem.k_layout;
    struct local *own = calloc(1, sizeof *own + (size_t)ls_layout_leaves(keys) * sizeof *own->leaf);

    if (!own) return ls_fail(LS_ENOMEM, "local attention: out of memory");
    plan->own = own;
    ls_leaves_append(own->leaf, &own->keys.count, keys, 0, 0);
    own->keys.leaf = own->leaf;
    LS_TRY(ls_part_gradients_create(&own->gradients, plan, (struct ls_part_order){.node = 1}));
    return ls_problem_kernel_create(&plan->kernel, &plan->problem);
}

static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct local *own = plan->own;

    ls_plan_attend_all(plan, call, own->keys);
    return LS_OK;
}

static ls_status backward(struct ls_attention_plan *plan, const struct ls_backward_call *call)
{
    struct ls_part_gradients *gradients = ((struct local *)plan->own)->gradients;

    ls_part_gradients_begin(gradients, call);
    ls_part_gradients_meet(gradients, 0, call->k, call->v);
    LS_TRY(ls_part_gradients_pass(gradients, 0));
    return ls_part_gradients_end(gradients);
}

const struct ls_method ls_method_local = {
    .name = "local",
    .summary = "one rank has all of Q, K and V",
    .fits = fits,
    .layout = ls_method_plain_layout,
    .cost = cost,
    .create = create,
    .destroy = destroy,
    .forward = forward,
    .backward = backward,
};
