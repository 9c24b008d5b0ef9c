/* Every grid of ranks, either way round. (test_attention.c and its like hold every method to the
 * same properties, with the grid that it chooses.) */
#include "gradients.h"

#include "base/ledger.h"

MPI_SUITE(usp)

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

/* Tails, more ranks than leaves, another number of queries, groups. */
static const struct ls_attention_shape shapes[] = {
    {1, 8, 8, 2100, 2100, 8, LS_F32, 0},
    {2, 16, 8, 300, 1300, 5, LS_F32, 0},
    {1, 8, 8, 1300, 0, 8, LS_F32, 0},
};

/* Which of the grids: heads and placement. False: there is no such grid. */
static bool take_grid(struct job *job, int i, bool strict)
{
    const int u = 1 + i / 2;

    if (size % u != 0 || job->shape.h_kv % u != 0) return false;
    job->options.method = "usp";
    job->options.strict = strict;
    job->options.backward = true;
    job->options.threads = 1;
    job->options.grid_heads = u;
    job->options.grid_ring = size / u;
    job->options.ring_inside = i % 2;
    job->options.layout = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + (i + strict) % 4);
    return true;
}

static struct descent descent_of(const struct ls_attention_shape *shape)
{
    return (struct descent){
        .job = {.shape = *shape,
                .options = {.size = sizeof(struct ls_attention_options), .causal = true}},
        .residual = true};
}

static double over_ranks(double mine, ls_reduction how)
{
    MPI_CHECK_OK(ls_comm_reduce(&mine, world, 1, how));
    return mine;
}

static const ls_tag tags[] = {LS_TAG_WORKSPACE, LS_TAG_COMM, LS_TAG_GRADIENT};

static void check_cost(const struct descent *g, const size_t *before)
{
    const struct job *job = &g->job;
    struct ls_attention_report report;
    struct ls_cost cost;

    MPI_CHECK_OK(job->plan->method->cost(&cost, &job->plan->problem));
    const size_t predicted[] = {cost.workspace_bytes, cost.comm_bytes, cost.gradient_bytes};
    for (int i = 0; i < LENGTH(tags); i++) {
        const double most = over_ranks(
            (double)(ls_ledger_live(&ls_host_ledger, tags[i]) - before[i]), LS_REDUCE_MAX);

        MPI_CHECK(most == (double)predicted[i], "%s: %s %.0f, predicted %zu", job_text(job),
                  ls_tag_name(tags[i]), most, predicted[i]);
    }
    ls_attention_plan_describe(&report, job->plan);
    const double sent = over_ranks((double)report.forward.bytes_sent, LS_REDUCE_SUM);
    const double back = over_ranks((double)report.backward.bytes_sent, LS_REDUCE_SUM);
    MPI_CHECK(sent == (double)(cost.bytes_sent + cost.residual_bytes_sent) &&
                  back == (double)cost.backward_bytes_sent,
              "%s: grid %dx%d: sent %.0f and %.0f bytes, predicted %ld and %ld", job_text(job),
              job->options.grid_heads, job->options.grid_ring, sent, back,
              (long)(cost.bytes_sent + cost.residual_bytes_sent), (long)cost.backward_bytes_sent);
    MPI_CHECK(over_ranks((double)report.forward.tiles_computed, LS_REDUCE_SUM) >=
                  (double)cost.tiles,
              "%s: tiles", job_text(job));
}

/* Executed twice: the second time buffers are not empty. */
static void check_grid(struct descent g)
{
    size_t before[LENGTH(tags)];

    for (int i = 0; i < LENGTH(tags); i++) before[i] = ls_ledger_live(&ls_host_ledger, tags[i]);
    descent_create_plan(&g, world);
    for (int turn = 0; turn < 2; turn++) {
        descent_run(&g);
        job_check(&g.job, "a grid");
        descent_check(&g, "a grid");
    }
    check_cost(&g, before);
    descent_destroy_plan(&g);
}

MPI_TEST(usp, any_grid_keeps_the_contract)
{
    for (int i = 0; i < LENGTH(shapes); i++) {
        struct descent g = descent_of(&shapes[i]);

        descent_create_whole(&g, 3);
        job_remember_exact(&g.job);
        descent_solve(&g);
        for (int grid = 0; grid < 2 * size; grid++)
            if (take_grid(&g.job, grid, false)) check_grid(g);
        descent_destroy_whole(&g);
    }
}

static void check_bits(const struct descent *alone, struct descent g)
{
    size_t before[LENGTH(tags)];

    for (int i = 0; i < LENGTH(tags); i++) before[i] = ls_ledger_live(&ls_host_ledger, tags[i]);
    descent_create_plan(&g, world);
    descent_run(&g);
    MPI_CHECK(same_bits(&g.job, &alone->job), "%s: grid %dx%d", job_text(&g.job),
              g.job.options.grid_heads, g.job.options.grid_ring);
    for (int i = 0; i < GRADIENTS; i++)
        MPI_CHECK(same_gradient(&g, alone, i), "%s: %s", job_text(&g.job), gradient_names[i]);
    check_cost(&g, before);
    descent_destroy_plan(&g);
}

MPI_TEST(usp, strict_bits_are_those_of_one_rank)
{
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int i = 0; i < LENGTH(shapes); i++) {
        struct descent alone = descent_of(&shapes[i]), g = alone;

        alone.job.shape.type = LS_BF16;
        alone.job.options.strict = true;
        alone.job.options.method = "local";
        descent_create_whole(&alone, 5);
        g = alone;
        descent_create_plan(&alone, self);
        descent_run(&alone);
        for (int grid = 0; grid < 2 * size; grid++)
            if (take_grid(&g.job, grid, true)) check_bits(&alone, g);
        descent_destroy_plan(&alone);
        descent_destroy_whole(&alone);
    }
    ls_comm_destroy(self);
}

static void check_refused(int heads, int ring, int64_t h_kv, ls_status status, const char *says)
{
    struct job job = {.shape = {1, h_kv, h_kv, 300, 300, 8, LS_F32, 0},
                      .options = LS_ATTENTION_OPTIONS};
    struct ls_attention_plan *plan = NULL;

    job.options.method = "usp";
    job.options.grid_heads = heads;
    job.options.grid_ring = ring;
    MPI_CHECK(ls_attention_plan_create(&plan, world, &job.shape, &job.options) == status &&
                  strstr(ls_message(), says),
              "grid %dx%d: %s", heads, ring, ls_message());
}

MPI_TEST(usp, says_why_a_grid_does_not_fit)
{
    check_refused(size + 1, 1, 8, LS_EVALUE, "the product must be");
    check_refused(size, 2, 8, LS_EVALUE, "the product must be");
    check_refused(-1, -size, 8, LS_EVALUE, "the product must be");
    check_refused(0, size, 8, LS_EVALUE, "the product must be");
    if (size > 1) check_refused(size, 1, size - 1, LS_EFIT, "cannot be dealt evenly");
}
