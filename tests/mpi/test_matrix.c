/* `longspan methods` says what each method can do: exactly this runs, in any combination, and is
 * right; all else is refused with a reason. */
#include "gradients.h"

#include "attention/capability.h"

MPI_SUITE(matrix)

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))
#define MASK .size = sizeof(struct ls_attention_options)

static const int64_t documents[] = {0, 200, 900, 1290};

static const struct mask_case {
    const char *name; /* of the capability */
    struct ls_attention_options options;
} masks[] = {
    {"full", {MASK}},
    {"causal", {MASK, .causal = true}},
    {"window", {MASK, .has_window = true, .window_left = 300, .window_right = 90}},
    {"documents", {MASK, .documents = documents, .document_count = LENGTH(documents) - 1}},
};

static const char *const layouts[] = {"contiguous", "zigzag", "striped", "balanced"};

static bool can(const struct ls_method *method, const char *name)
{
    int i = 0;

    while (i < ls_capability_count() && strcmp(ls_capability_name(i), name) != 0) i++;
    MPI_CHECK(i < ls_capability_count(), "%s is no capability", name);
    return ls_method_is_capable(method, i);
}

static void check_refused(const struct descent *g)
{
    struct ls_attention_plan *plan = NULL;
    char says[64];

    snprintf(says, sizeof says, "method %s cannot do this: ", g->job.options.method);
    MPI_CHECK(ls_attention_plan_create(&plan, world, &g->job.shape, &g->job.options) == LS_EFIT &&
                  strstr(ls_message(), says),
              "%s: %s", job_text(&g->job), ls_message());
}

static void check_runs(struct descent *g)
{
    const bool backward = g->job.options.backward;

    if (backward) {
        descent_create_plan(g, world);
        descent_run(g);
        descent_check(g, "matrix");
        job_check(&g->job, "matrix");
        descent_destroy_plan(g);
    } else {
        job_create_plan(&g->job, world);
        job_run(&g->job);
        job_check(&g->job, "matrix");
        job_destroy_plan(&g->job);
    }
}

/* One rank alone can do more: there is nothing to bring. */
static void check_cell(const struct descent *exact, const struct ls_method *method,
                       const struct mask_case *mask, int layout)
{
    for (int i = 0; i < 4; i++) {
        struct descent g = *exact;

        g.job.options.method = method->name;
        g.job.options.layout = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + layout);
        g.job.options.node_size = smallest_node(size);
        g.job.options.threads = 1;
        g.job.options.strict = i % 2;
        g.job.options.backward = i / 2;
        if ((size == 1 || ls_method_takes_ranks(method)) && can(method, mask->name) &&
            can(method, layouts[layout]) && (!g.job.options.strict || can(method, "strict")) &&
            (!g.job.options.backward || can(method, "backward")))
            check_runs(&g);
        else if (size > 1)
            check_refused(&g);
    }
}

/* An adversary lets each message take its time: of the masks one is tried that every method can. */
MPI_TEST(matrix, exactly_this_runs_and_is_right)
{
    const bool delayed = getenv("LS_ADVERSARY_SEED") != NULL;

    for (int i = 0; i < LENGTH(masks); i++) {
        if (delayed && strcmp(masks[i].name, "window") != 0) continue;
        struct descent g = {.job = {.shape = {1, 2, 1, 1290, 1290, 8, LS_F32, 0},
                                    .options = masks[i].options,
                                    .sample = 16},
                            .residual = true};

        descent_create_whole(&g, 11);
        job_remember_exact(&g.job);
        descent_solve(&g);
        for (int m = 0; m < ls_method_count(); m++)
            for (int layout = 0; layout < LENGTH(layouts); layout++)
                check_cell(&g, ls_method_at(m), &masks[i], layout);
        descent_destroy_whole(&g);
    }
}

MPI_TEST(matrix, many_queries)
{
    for (int m = 0; m < ls_method_count(); m++) {
        const struct ls_method *method = ls_method_at(m);
        struct descent g = {
            .job = {.shape = {1, 1, 1, 5000, 600, 8, LS_F32, 0},
                    .options = {MASK, .causal = true, .has_window = true, .window_left = 10}}};
        struct ls_attention_plan *plan = NULL;

        g.job.options.method = method->name;
        g.job.options.node_size = smallest_node(size);
        if (!can(method, "long") || (size > 1 && !ls_method_takes_ranks(method))) {
            if (size > 1) check_refused(&g);
            continue;
        }
        MPI_CHECK_OK(ls_attention_plan_create(&plan, world, &g.job.shape, &g.job.options));
        ls_attention_plan_destroy(plan);
    }
}
