/* One rank has everything. */
#include <stdlib.h>

#include "attention/plan.h"

struct local {
    struct ls_leaf_list keys;
    struct ls_leaf leaf[]; /* storage of keys */
};

static const char *fits(const struct ls_problem *problem)
{
    return problem->p == 1 ? NULL : "it exchanges nothing, so it needs exactly one rank";
}

static struct ls_kernel_shape kernel_shape(const struct ls_problem *problem)
{
    return ls_plan_kernel_shape(problem, ls_layout_leaves(&problem->k_layout));
}

static void cost(struct ls_cost *out, const struct ls_problem *problem)
{
    *out = ls_method_work(problem);
    out->workspace_bytes = ls_device_kernel_bytes(&problem->device, kernel_shape(problem));
}

static void destroy(struct ls_attention_plan *plan)
{
    free(plan->own);
}

static ls_status create(struct ls_attention_plan *plan)
{
    const struct ls_layout *keys = &plan->problem.k_layout;
    struct local *own = calloc(1, sizeof *own + (size_t)ls_layout_leaves(keys) * sizeof *own->leaf);

    if (!own) return ls_fail(LS_ENOMEM, "local attention: out of memory");
    plan->own = own;
    ls_leaves_append(own->leaf, &own->keys.count, keys, 0, 0);
    own->keys.leaf = own->leaf;
    return ls_attention_kernel_create(&plan->kernel, &plan->problem.device,
                                      kernel_shape(&plan->problem));
}

static ls_status forward(struct ls_attention_plan *plan, const struct ls_attention_call *call)
{
    const struct local *own = plan->own;

    return ls_plan_attend(plan, (struct ls_kernel_call){.o = call->o,
                                                        .lse = call->lse,
                                                        .q = call->q,
                                                        .k = call->k,
                                                        .v = call->v,
                                                        .k_leaves = own->keys});
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
};
