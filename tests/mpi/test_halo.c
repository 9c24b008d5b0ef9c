/* The keys that a rank's queries see, and no others, come to it. (test_attention.c and
 * test_strict.c hold every method to the same properties, where it fits.) */
#include "gradients.h"

#include "base/ledger.h"

MPI_SUITE(halo)

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))
#define WINDOW(left, right)                                                                        \
    .size = sizeof(struct ls_attention_options), .has_window = true, .window_left = (left),        \
    .window_right = (right)

static const int64_t documents[] = {0, 70, 70, 600, 2000, 2600, 3001};

/* From a window within a leaf to one that reaches over several parts, queries before, among and
 * behind the keys, and everything at once. */
static const struct halo_case {
    struct ls_attention_shape shape;
    struct ls_attention_options options;
} cases[] = {
    {{1, 2, 1, 3001, 3001, 16, LS_BF16, 0}, {WINDOW(100, 0)}},
    {{1, 2, 1, 3001, 3001, 16, LS_F32, 0}, {WINDOW(256, 255)}},
    {{2, 2, 1, 3001, 3001, 8, LS_F32, 0}, {WINDOW(1000, 1), .prefix = 300}},
    {{1, 2, 2, 1800, 3001, 8, LS_F16, 0}, {WINDOW(700, LS_NO_LIMIT), .causal = true}},
    {{1, 1, 1, 3001, 1500, 8, LS_F32, 0}, {WINDOW(0, 600)}},
    {{1, 2, 1, 900, 3001, 8, LS_BF16, 0},
     {WINDOW(300, 0), .has_query_offset = true, .query_offset = 1100}},
    {{1, 2, 1, 2500, 3001, 8, LS_F32, 0}, {WINDOW(64, 0), .align_start = true}},
    {{1, 2, 1, 3001, 3001, 8, LS_F32, 0},
     {.size = sizeof(struct ls_attention_options),
      .documents = documents,
      .document_count = LENGTH(documents) - 1}},
    {{1, 4, 2, 3001, 3001, 8, LS_BF16, 0},
     {WINDOW(400, 0), .documents = documents, .document_count = LENGTH(documents) - 1,
      .prefix = 10}},
    {{1, 1, 1, 300, 0, 8, LS_F32, 0}, {WINDOW(5, 5)}},
};

static struct job job_of(const struct halo_case *c, int layout)
{
    struct job job = {.shape = c->shape, .options = c->options, .sample = 16};

    job.options.method = "halo";
    job.options.layout = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + layout);
    job.options.threads = 1;
    job.strided = layout == 1;
    return job;
}

/* Whether one of a rank's queries sees one of these keys, asked row by row. */
static bool is_seen(const struct ls_problem *problem, int r, int64_t key, int64_t keys)
{
    for (int64_t i = 0; i < ls_layout_part_rows(&problem->q_layout, r); i++) {
        const int64_t at = ls_layout_position(&problem->q_layout, r, i);

        if (ls_mask_count(problem->masks.mask, at, key, keys) > 0) return true;
    }
    return false;
}

/* Rows that go to a rank from an owner of keys. */
static int64_t rows_between(const struct ls_problem *problem, int r, int owner)
{
    const struct ls_layout *keys = &problem->k_layout;
    int64_t rows = 0;

    for (int64_t i = 0; i < ls_layout_part_leaves(keys, owner); i++) {
        const int64_t leaf = ls_layout_part_leaf(keys, owner, i);
        const int64_t n = ls_layout_leaf_rows(keys, leaf);

        if (r != owner && is_seen(problem, r, leaf * LS_LEAF, n)) rows += n;
    }
    return rows;
}

static double over_ranks(double mine, ls_reduction how)
{
    MPI_CHECK_OK(ls_comm_reduce(&mine, world, 1, how));
    return mine;
}

/* Sent bytes of this rank are those that others see of its keys; the plan predicts all. */
static void check_bytes(const struct job *job)
{
    const struct ls_problem *problem = &job->plan->problem;
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t row = 2 * s->b * s->h_kv * s->d * ls_dtype_size(s->type);
    struct ls_attention_report report;
    struct ls_cost cost;
    int64_t rows = 0;
    int messages = 0;

    ls_attention_plan_describe(&report, job->plan);
    MPI_CHECK_OK(job->plan->method->cost(&cost, problem));
    for (int r = 0; r < size; r++) {
        const int64_t n = rows_between(problem, r, rank);

        rows += n;
        messages += n > 0;
    }
    MPI_CHECK(report.forward.bytes_sent == rows * row, "%s: %ld bytes, %ld rows are seen",
              job_text(job), (long)report.forward.bytes_sent, (long)rows);
    MPI_CHECK(over_ranks((double)(rows * row), LS_REDUCE_SUM) == (double)cost.bytes_sent &&
                  over_ranks(messages, LS_REDUCE_SUM) == (double)cost.messages,
              "%s: %ld bytes in %ld messages predicted", job_text(job), (long)cost.bytes_sent,
              (long)cost.messages);
}

static void check_memory(const struct job *job, size_t workspace, size_t buffers)
{
    struct ls_cost cost;

    MPI_CHECK_OK(job->plan->method->cost(&cost, &job->plan->problem));
    MPI_CHECK(over_ranks((double)(ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE) - workspace),
                         LS_REDUCE_MAX) == (double)cost.workspace_bytes &&
                  over_ranks((double)(ls_ledger_live(&ls_host_ledger, LS_TAG_COMM) - buffers),
                             LS_REDUCE_MAX) == (double)cost.comm_bytes,
              "%s: memory", job_text(job));
}

/* Executed twice: the second time buffers are not empty. */
static void check_case(const struct halo_case *c, int layout)
{
    const size_t workspace = ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE);
    const size_t buffers = ls_ledger_live(&ls_host_ledger, LS_TAG_COMM);
    struct job job = job_of(c, layout);

    job_create(&job, world, 7);
    check_memory(&job, workspace, buffers);
    job_remember_exact(&job);
    for (int turn = 0; turn < 2; turn++) {
        job_run(&job);
        job_check(&job, turn ? "again" : "what is seen");
    }
    check_bytes(&job);
    job_destroy(&job);
}

MPI_TEST(halo, brings_what_is_seen_and_keeps_the_contract)
{
    for (int i = 0; i < 4 * LENGTH(cases); i++)
        check_case(&cases[i % LENGTH(cases)], i / LENGTH(cases));
}

/* Into each rank, per side, as many keys as the window reaches, in whole leaves. */
MPI_TEST(halo, a_window_brings_its_length)
{
    const struct halo_case c = {{1, 2, 2, 12288, 12288, 8, LS_BF16, 0}, {WINDOW(1000, 300)}};
    struct job job = job_of(&c, 0);
    struct ls_attention_report report;

    job_create(&job, world, 7);
    job_run(&job);
    ls_attention_plan_describe(&report, job.plan);
    const struct ls_layout keys = job_layout(&job, 1);
    const int64_t begin = ls_layout_position(&keys, rank, 0);
    const int64_t behind = c.shape.s_k - begin - ls_layout_part_rows(&keys, rank);
    const int64_t left = begin < 1024 ? begin : 1024, right = behind < 512 ? behind : 512;
    const double bytes = (double)((left + right) * 2 * 8 * 2 * 2);

    MPI_CHECK(over_ranks(bytes, LS_REDUCE_SUM) ==
                  over_ranks((double)report.forward.bytes_sent, LS_REDUCE_SUM),
              "%s", job_text(&job));
    job_destroy(&job);
}

MPI_TEST(halo, strict_bits_are_those_of_one_rank)
{
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int i = 0; i < LENGTH(cases); i++) {
        struct job alone = job_of(&cases[i], 0);

        alone.options.strict = true;
        job_run_alone(&alone, self, 5);
        for (int layout = 0; layout < 4; layout++) {
            struct job job = job_of(&cases[i], layout);

            memcpy(job.whole, alone.whole, sizeof job.whole);
            job.options.strict = true;
            job_create_plan(&job, world);
            job_run(&job);
            MPI_CHECK(same_bits(&job, &alone), "case %d: %s", i, job_text(&job));
            job_destroy_plan(&job);
        }
        job_destroy(&alone);
    }
    ls_comm_destroy(self);
}

/* ---- backward */

static struct descent descent_of(const struct halo_case *c, int layout)
{
    struct descent g = {.job = job_of(c, layout), .residual = true};

    g.job.options.backward = true;
    return g;
}

/* Back goes what came, every head in strict mode, for each node of the queries; on the ledger is
 * what was predicted. */
static void check_backward_cost(const struct descent *g, size_t gradients)
{
    const struct ls_problem *problem = &g->job.plan->problem;
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t own = ls_layout_part_rows(&problem->q_layout, rank);
    const int64_t row = 2 * s->b * s->h_kv * s->d * (int64_t)sizeof(float);
    const double most = over_ranks(
        (double)(ls_ledger_live(&ls_host_ledger, LS_TAG_GRADIENT) - gradients), LS_REDUCE_MAX);
    struct ls_attention_report report;
    struct ls_cost cost;
    int64_t back = 0;

    ls_attention_plan_describe(&report, g->job.plan);
    MPI_CHECK_OK(g->job.plan->method->cost(&cost, problem));
    for (int r = 0; r < size; r++) back += own > 0 ? rows_between(problem, rank, r) * row : 0;
    MPI_CHECK(most == (double)cost.gradient_bytes, "%s: %.0f bytes, predicted %zu",
              job_text(&g->job), most, cost.gradient_bytes);
    MPI_CHECK(over_ranks((double)report.backward.bytes_sent, LS_REDUCE_SUM) ==
                  (double)cost.backward_bytes_sent,
              "%s: sent %ld bytes", job_text(&g->job), (long)report.backward.bytes_sent);
    MPI_CHECK(problem->strict || report.backward.bytes_sent == back + report.forward.bytes_sent,
              "%s: sent %ld bytes, %ld back", job_text(&g->job), (long)report.backward.bytes_sent,
              (long)back);
}

static void check_backward(const struct descent *exact, const struct halo_case *c, int layout)
{
    const size_t gradients = ls_ledger_live(&ls_host_ledger, LS_TAG_GRADIENT);
    struct descent g = *exact;

    g.job.options = descent_of(c, layout).job.options;
    g.job.strided = layout == 1;
    descent_create_plan(&g, world);
    for (int turn = 0; turn < (layout == 0 ? 2 : 1); turn++) {
        descent_run(&g);
        descent_check(&g, turn ? "again" : "backward");
    }
    check_backward_cost(&g, gradients);
    descent_destroy_plan(&g);
}

MPI_TEST(halo, backward_returns_what_is_seen_and_keeps_the_contract)
{
    for (int i = 0; i < LENGTH(cases); i++) {
        struct halo_case c = cases[i];
        struct descent g;

        c.shape.type = LS_F32;
        g = descent_of(&c, 0);
        descent_create_whole(&g, 3);
        descent_solve(&g);
        for (int layout = 0; layout < 4; layout++) check_backward(&g, &c, layout);
        descent_destroy_whole(&g);
    }
}

static void check_strict_backward(const struct descent *alone, const struct halo_case *c,
                                  int layout)
{
    const size_t gradients = ls_ledger_live(&ls_host_ledger, LS_TAG_GRADIENT);
    struct descent g = *alone;

    g.job.options = descent_of(c, layout).job.options;
    g.job.options.strict = true;
    descent_create_plan(&g, world);
    descent_run(&g);
    for (int which = 0; which < GRADIENTS; which++)
        MPI_CHECK(same_gradient(&g, alone, which), "%s: %s", job_text(&g.job),
                  gradient_names[which]);
    check_backward_cost(&g, gradients);
    descent_destroy_plan(&g);
}

MPI_TEST(halo, strict_gradients_are_those_of_one_rank)
{
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int i = 0; i < LENGTH(cases); i++) {
        struct descent alone = descent_of(&cases[i], 0);

        alone.job.options.strict = true;
        alone.job.options.method = "local";
        descent_create_whole(&alone, 5);
        descent_create_plan(&alone, self);
        descent_run(&alone);
        for (int layout = 0; layout < 4; layout++) check_strict_backward(&alone, &cases[i], layout);
        descent_destroy_plan(&alone);
        descent_destroy_whole(&alone);
    }
    ls_comm_destroy(self);
}

MPI_TEST(halo, says_why_a_mask_does_not_fit)
{
    static const struct ls_attention_options unlimited[] = {
        LS_ATTENTION_OPTIONS,
        {.size = sizeof unlimited[0], .causal = true},
        {WINDOW(100, LS_NO_LIMIT)},
    };

    for (int i = 0; i < LENGTH(unlimited); i++) {
        const struct halo_case c = {{1, 1, 1, 300, 300, 8, LS_F32, 0}, unlimited[i]};
        struct job job = job_of(&c, 0);
        struct ls_attention_plan *plan = NULL;

        if (size == 1) MPI_SKIP("one rank has all keys");
        MPI_CHECK(ls_attention_plan_create(&plan, world, &job.shape, &job.options) == LS_EFIT &&
                      strstr(ls_message(), "no window on both sides"),
                  "%s", ls_message());
    }
}
