#include "attention/methods/table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/nearest.h"

/* In the order in which `auto` prefers equals: less memory, or fewer messages to wait for, first.
 */
static const struct ls_method *const methods[] = {
    &ls_method_local, &ls_method_ring,      &ls_method_ring2,
    &ls_method_halo,  &ls_method_ulysses,   &ls_method_usp,
    &ls_method_tree,  &ls_method_allreduce, &ls_method_allgather,
};

#define METHODS ((int)(sizeof methods / sizeof *methods))

int ls_method_count(void)
{
    return METHODS;
}

const struct ls_method *ls_method_at(int i)
{
    return methods[i];
}

ls_status ls_method_find(const struct ls_method **out, const char *name)
{
    const char *names[METHODS];

    for (int i = 0; i < METHODS; i++) {
        names[i] = methods[i]->name;
        if (strcmp(name, names[i]) != 0) continue;
        *out = methods[i];
        return LS_OK;
    }
    const char *near = ls_nearest(name, names, METHODS);
    return ls_fail(LS_EVALUE, "no method \"%s\"%s%s%s; `longspan methods` lists them", name,
                   near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static ls_status nothing_fits(const struct ls_attention_shape *shape,
                              const struct ls_attention_options *options, int p)
{
    char reasons[512] = "";
    size_t used = 0;

    for (int i = 0; i < METHODS; i++) {
        struct ls_problem problem;

        LS_TRY(ls_problem_init(&problem, shape, options, p, methods[i]->layout));
        const char *reason = ls_method_misfit(methods[i], &problem);
        if (reason && used < sizeof reasons)
            used += (size_t)snprintf(reasons + used, sizeof reasons - used, "%s%s: %s",
                                     used ? "; " : "", methods[i]->name, reason);
        ls_problem_fini(&problem);
    }
    return ls_fail(LS_EFIT, "no method fits: %s", reasons);
}

/* Of forward, and of backward if the plan is for it. */
static int64_t all_bytes(const struct ls_cost *cost)
{
    return cost->bytes_sent + cost->backward_bytes_sent;
}

/* How much more than with the most even method the busiest rank may have to compute. */
#define UNEVEN 1.1

ls_status ls_method_choose(const struct ls_method **out, const char **why,
                           const struct ls_attention_shape *shape,
                           const struct ls_attention_options *options, int p)
{
    const struct ls_method *fit[METHODS];
    struct ls_cost cost[METHODS];
    double most_even = INFINITY;
    int fitting = 0, best = -1;

    for (int i = 0; i < METHODS; i++) {
        struct ls_problem problem;

        LS_TRY(ls_problem_init(&problem, shape, options, p, methods[i]->layout));
        ls_status status = LS_OK;
        if (!ls_method_misfit(methods[i], &problem)) {
            fit[fitting] = methods[i];
            status = ls_method_cost(&cost[fitting], methods[i], &problem);
            most_even = fmin(most_even, cost[fitting++].flops_most);
        }
        ls_problem_fini(&problem);
        LS_TRY(status);
    }
    if (fitting == 0) return nothing_fits(shape, options, p);
    for (int i = 0; i < fitting; i++) {
        if (cost[i].flops_most > UNEVEN * most_even) continue;
        if (best < 0 || all_bytes(&cost[i]) < all_bytes(&cost[best])) best = i;
    }
    *out = fit[best];
    *why =
        fitting == 1 ? "the only one that fits" : "keeps all ranks busy and sends the fewest bytes";
    return LS_OK;
}
