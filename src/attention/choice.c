#include "attention/choice.h"

#include <stdlib.h>

#include "attention/methods/table.h"
#include "attention/options.h"

ls_status ls_choose(struct ls_choice *out, const char **misfit,
                    const struct ls_attention_shape *shape,
                    const struct ls_attention_options *options, int p, int node_run)
{
    struct ls_choice choice = {.why = "asked for"};
    struct ls_attention_options *o = &choice.options;

    LS_TRY(ls_options_read(o, options));
    if (o->node_size == 0) o->node_size = node_run;
    if (o->method)
        LS_TRY(ls_method_find(&choice.method, o->method));
    else
        LS_TRY(ls_method_choose(&choice.method, &choice.why, shape, o, p));
    LS_TRY(ls_problem_init(&choice.problem, shape, o, p, choice.method->layout));

    *misfit = ls_method_misfit(choice.method, &choice.problem);
    if (*misfit) {
        ls_problem_fini(&choice.problem);
        return LS_OK;
    }
    *out = choice;
    return LS_OK;
}

/* ---- without a plan */

/* What callers see of it, first, and what that lies in. */
struct prediction {
    struct ls_attention_prediction seen;
    struct ls_problem problem;
};

static ls_status predict(struct prediction *out, const struct ls_attention_shape *shape,
                         const struct ls_attention_options *options, int p)
{
    struct ls_choice choice;
    const char *misfit;

    if (p < 1) return ls_fail(LS_EVALUE, "ranks to predict for: %d, must be 1 or more", p);
    LS_TRY(ls_choose(&choice, &misfit, shape, options, p, 0));
    if (misfit) return ls_fail(LS_EFIT, "%s", misfit);
    *out = (struct prediction){.seen = {.method = choice.method->name,
                                        .why = choice.why,
                                        .q_layout = choice.problem.q_layout,
                                        .k_layout = choice.problem.k_layout},
                               .problem = choice.problem};
    return ls_method_cost(&out->seen.cost, choice.method, &out->problem);
}

ls_status ls_attention_predict(struct ls_attention_prediction **out,
                               const struct ls_attention_shape *shape,
                               const struct ls_attention_options *options, int ranks)
{
    struct prediction *prediction = calloc(1, sizeof *prediction);
    ls_status status = prediction ? predict(prediction, shape, options, ranks)
                                  : ls_fail(LS_ENOMEM, "prediction: out of memory");

    if (status == LS_OK)
        *out = &prediction->seen;
    else if (prediction)
        ls_attention_prediction_destroy(&prediction->seen);
    return status;
}

void ls_attention_prediction_destroy(struct ls_attention_prediction *prediction)
{
    struct prediction *whole = (struct prediction *)prediction;

    if (whole) ls_problem_fini(&whole->problem);
    free(whole);
}
