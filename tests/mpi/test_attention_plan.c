/* Plans over several ranks: costs, use again and side by side, failures that all ranks share. */
#include "attention.h"

#include "base/ledger.h"
#include "plan/attention_size.h"

MPI_SUITE(attention_plan)

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- cost */

static double over_ranks(double value, ls_reduction how)
{
    MPI_CHECK_OK(ls_comm_reduce(&value, world, 1, how));
    return value;
}

static void check_memory(const struct job *job, const struct ls_cost *cost, const size_t before[])
{
    const double workspace =
        (double)(ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE) - before[0]);
    const double comm = (double)(ls_ledger_live(&ls_host_ledger, LS_TAG_COMM) - before[1]);
    const double most_workspace = over_ranks(workspace, LS_REDUCE_MAX);
    const double most_comm = over_ranks(comm, LS_REDUCE_MAX);

    MPI_CHECK(most_workspace == (double)cost->workspace_bytes,
              "%s: workspace %.0f, predicted %zu bytes", job_text(job), most_workspace,
              cost->workspace_bytes);
    MPI_CHECK(most_comm == (double)cost->comm_bytes, "%s: comm %.0f, predicted %zu bytes",
              job_text(job), most_comm, cost->comm_bytes);
}

/* Rows of the heads of a group fill tiles together, so that a group in pieces has more. */
static bool splits_groups(const struct job *job)
{
    return strcmp(job->options.method, "ulysses") == 0 && size > job->shape.h_kv;
}

static void check_work(const struct job *job, const struct ls_cost *cost)
{
    const int64_t tiles_of_shape = ls_attention_tiles(&job->shape, &job->plan->problem.masks, 0);
    struct ls_attention_report report;

    ls_attention_plan_describe(&report, job->plan);
    const double tiles = over_ranks((double)report.forward.tiles_computed, LS_REDUCE_SUM);
    const double bytes = over_ranks((double)report.forward.bytes_sent, LS_REDUCE_SUM);

    MPI_CHECK(cost->tiles == tiles_of_shape || (splits_groups(job) && cost->tiles > tiles_of_shape),
              "%s: predicts %ld tiles", job_text(job), (long)cost->tiles);
    MPI_CHECK(tiles == (double)cost->tiles, "%s: %.0f tiles, predicted %ld", job_text(job), tiles,
              (long)cost->tiles);
    MPI_CHECK(bytes == (double)cost->bytes_sent, "%s: %.0f bytes sent, predicted %ld",
              job_text(job), bytes, (long)cost->bytes_sent);
    MPI_CHECK(size > 1 || bytes == 0, "%s: one rank sent %.0f bytes", job_text(job), bytes);
    MPI_CHECK(strcmp(report.method, job->options.method) == 0, "%s", report.method);
}

static void check_cost(struct job *job, int executions)
{
    const size_t before[] = {ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE),
                             ls_ledger_live(&ls_host_ledger, LS_TAG_COMM)};
    struct ls_attention_prediction *prediction;

    job_create_plan(job, world);
    MPI_CHECK_OK(ls_attention_predict(&prediction, &job->shape, &job->options, size));
    check_memory(job, &prediction->cost, before);
    ls_ledger_reset_peaks(&ls_host_ledger);
    for (int i = 0; i < executions; i++) job_run(job); /* counts begin anew with each */
    MPI_CHECK(ls_ledger_peak_total(&ls_host_ledger) == ls_ledger_live_total(&ls_host_ledger),
              "%s: the execution allocated %zu bytes", job_text(job),
              ls_ledger_peak_total(&ls_host_ledger) - ls_ledger_live_total(&ls_host_ledger));
    check_work(job, &prediction->cost);
    ls_attention_prediction_destroy(prediction);
    job_destroy_plan(job);
    MPI_CHECK(ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE) == before[0] &&
                  ls_ledger_live(&ls_host_ledger, LS_TAG_COMM) == before[1],
              "%s: the plan left memory behind", job_text(job));
}

MPI_TEST(attention_plan, costs_what_it_predicts)
{
    static const struct ls_attention_shape shapes[] = {
        {1, 1, 1, 1, 1, 16, LS_F32, 0},      {1, 1, 1, 3001, 3001, 16, LS_BF16, 0},
        {2, 6, 2, 520, 900, 24, LS_BF16, 0}, {1, 4, 4, 1000, 300, 77, LS_F16, 0},
        {1, 2, 1, 1, 3000, 64, LS_BF16, 0},  {1, 3, 1, 1281, 2100, 32, LS_F32, 0},
    };

    for (size_t i = 0; i < COUNT(shapes); i++) {
        struct job job = {.shape = shapes[i], .options = LS_ATTENTION_OPTIONS};

        job_create_whole(&job, i);
        for (int k = 0; k < 2 * 2 * 4; k++) {
            job.options.causal = k % 2 == 1;
            job.options.strict = k / 2 % 2 == 1;
            job.options.layout = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + k / 4);
            job.options.threads = 1 + k / 4;
            for (int m = 0; m < ls_method_count(); m++)
                if (job_take_method(&job, m, size)) check_cost(&job, k < 4 ? 2 : 1);
        }
        job_destroy_whole(&job);
    }
}

static bool same_parts(const struct ls_layout *a, const struct ls_layout *b)
{
    for (int r = 0; r < size; r++)
        for (int64_t i = 0; i < ls_layout_part_leaves(a, r); i++)
            if (ls_layout_part_leaves(b, r) <= i ||
                ls_layout_part_leaf(a, r, i) != ls_layout_part_leaf(b, r, i))
                return false;
    return a->kind == b->kind;
}

static void check_prediction(const struct job *job)
{
    struct ls_attention_options options = job->options;
    const struct ls_layout q = job_layout(job, 0), k = job_layout(job, 1);
    struct ls_attention_prediction *prediction;
    struct ls_attention_report report;

    options.node_size = ls_comm_node_run(world);
    MPI_CHECK_OK(ls_attention_predict(&prediction, &job->shape, &options, size));
    ls_attention_plan_describe(&report, job->plan);
    MPI_CHECK(
        strcmp(prediction->method, report.method) == 0 && strcmp(prediction->why, report.why) == 0,
        "%s: %s, predicted %s: %s", report.method, report.why, prediction->method, prediction->why);
    MPI_CHECK(same_parts(&prediction->q_layout, &q) && same_parts(&prediction->k_layout, &k),
              "%s: layouts", report.method);
    ls_attention_prediction_destroy(prediction);
}

MPI_TEST(attention_plan, chooses_by_itself_what_fits)
{
    static const int64_t documents[] = {0, 10, 600, 700};
    struct job job = {.shape = {1, 2, 2, 700, 700, 32, LS_BF16, 0},
                      .options = LS_ATTENTION_OPTIONS};

    for (int i = 0; i < 3; i++) {
        job.options.causal = i > 0;
        job.options.documents = i > 1 ? documents : NULL;
        job.options.document_count = 3;
        job_create(&job, world, 1);
        job_run(&job);
        job_check(&job, "auto");
        check_prediction(&job);
        const ls_layout_kind kind = job_layout(&job, 0).kind;
        MPI_CHECK(kind == job.plan->method->layout(&job.plan->problem), "%s: %s",
                  job.plan->method->name, ls_layout_name(kind));
        job_destroy(&job);
    }
}

/* ---- use, again and side by side */

MPI_TEST(attention_plan, can_be_executed_again_with_other_data)
{
    for (int m = 0; m < ls_method_count(); m++) {
        struct job job = {.shape = {2, 2, 1, 600, 1100, 32, LS_BF16, 0},
                          .options = LS_ATTENTION_OPTIONS,
                          .sample = 8};

        job.options.causal = true;
        if (!job_take_method(&job, m, size)) continue;
        job_create(&job, world, 0);
        for (uint64_t seed = 1; seed <= 4; seed++) {
            job_draw(&job, seed);
            job_run(&job);
            job_check(&job, "another execution");
        }
        job_destroy(&job);
    }
}

MPI_TEST(attention_plan, may_stand_beside_another_of_the_same_ranks)
{
    struct job ring = {.shape = {1, 2, 1, 900, 1700, 32, LS_BF16, 0},
                       .options = LS_ATTENTION_OPTIONS,
                       .sample = 8};
    struct job other = ring, third;

    ring.options.method = "ring";
    other.options.method = "allgather";
    other.options.causal = true;
    job_create(&ring, world, 1);
    third = ring;
    third.options.layout = LS_LAYOUT_STRIPED;
    job_create(&other, world, 2);
    job_create(&third, world, 3);
    for (uint64_t turn = 0; turn < 3; turn++) {
        job_draw(&ring, 10 + turn);
        job_run(&ring);
        job_run(&third);
        job_run(&other);
        job_check(&ring, "the first");
        job_check(&other, "the second");
        job_check(&third, "the third");
    }
    job_destroy(&ring);
    job_run(&other);
    job_check(&other, "after another went");
    job_destroy(&third);
    job_destroy(&other);
}

/* ---- failures */

/* One mistake in the tensors of a call; which: q 0, k 1, v 2, o 3, lse 4. */
static const struct mistake {
    const char *name, *says;
    int which;
    ls_status status;
    enum { TYPE, DIMENSIONS, LENGTH, STRIDE } kind;
    int dimension;
} mistakes[] = {
    {"q of another type", "q is f64", 0, LS_ETYPE, TYPE, 0},
    {"k of another type", "k is f64", 1, LS_ETYPE, TYPE, 0},
    {"v of another type", "v is f64", 2, LS_ETYPE, TYPE, 0},
    {"o of another type", "o is f64", 3, LS_ETYPE, TYPE, 0},
    {"lse of another type", "lse is f64", 4, LS_ETYPE, TYPE, 0},
    {"q of three dimensions", "q has 3 dimensions", 0, LS_ESHAPE, DIMENSIONS, 3},
    {"lse of two dimensions", "lse has 2 dimensions", 4, LS_ESHAPE, DIMENSIONS, 2},
    {"batch of q", "q: dimension 0", 0, LS_ESHAPE, LENGTH, 0},
    {"rows of q", "q: dimension 1", 0, LS_ESHAPE, LENGTH, 1},
    {"rows of k", "k: dimension 1", 1, LS_ESHAPE, LENGTH, 1},
    {"heads of v", "v: dimension 2", 2, LS_ESHAPE, LENGTH, 2},
    {"head dim of k", "k: dimension 3", 1, LS_ESHAPE, LENGTH, 3},
    {"head dim of v", "v: dimension 3", 2, LS_ESHAPE, LENGTH, 3},
    {"head dim of o", "o: dimension 3", 3, LS_ESHAPE, LENGTH, 3},
    {"rows of o", "o: dimension 1", 3, LS_ESHAPE, LENGTH, 1},
    {"rows of lse", "lse: dimension 2", 4, LS_ESHAPE, LENGTH, 2},
    {"stride of q", "q: the last dimension", 0, LS_ESHAPE, STRIDE, 3},
    {"stride of lse", "lse: the last dimension", 4, LS_ESHAPE, STRIDE, 2},
};

static void spoil(struct ls_tensor *t, const struct mistake *mistake)
{
    switch (mistake->kind) {
    case TYPE:
        t->type = LS_F64;
        break;
    case DIMENSIONS:
        t->ndim = mistake->dimension;
        break;
    case LENGTH:
        t->dim[mistake->dimension]++;
        break;
    case STRIDE:
        t->stride[mistake->dimension] = 2;
        break;
    }
}

/* Nothing but the bytes that job_load left there. */
static bool is_untouched(const struct job *job)
{
    const unsigned char *o = job->o.data, *lse = job->lse.data;

    for (int64_t i = 0; i < job->o.dim[0] * job->o.stride[0] * 2; i++)
        if (o[i] != 0xff) return false;
    for (int64_t i = 0; i < job->lse.dim[0] * job->lse.stride[0] * 4; i++)
        if (lse[i] != 0xff) return false;
    return true;
}

MPI_TEST(attention_plan, a_bad_tensor_on_one_rank_fails_on_all_and_harms_nothing)
{
    for (int where = 0; where<size; where += size> 1 ? size - 1 : 1) {
        for (int m = 0; m < ls_method_count(); m++) {
            struct job job = {.shape = {1, 2, 2, 2100, 2100, 16, LS_BF16, 0}, /* rows for 8 ranks */
                              .options = LS_ATTENTION_OPTIONS,
                              .sample = 64};

            if (!job_take_method(&job, m, size)) continue;
            job_create(&job, world, 5);
            for (size_t i = 0; i < COUNT(mistakes); i++) {
                struct job bad = job;
                struct ls_tensor *tensors[] = {&bad.part[0], &bad.part[1], &bad.part[2], &bad.o,
                                               &bad.lse};
                char says[64];

                job_load(&job);
                if (rank == where) spoil(tensors[mistakes[i].which], &mistakes[i]);
                check_failure(job_forward(&bad), mistakes[i].status, mistakes[i].says,
                              mistakes[i].name);
                snprintf(says, sizeof(says), "rank %d: ", where);
                MPI_CHECK(size == 1 || strstr(ls_message(), says) == ls_message(), "%s: %s",
                          mistakes[i].name, ls_message());
                MPI_CHECK(is_untouched(&job), "%s: something was written", mistakes[i].name);
            }
            job_run(&job);
            job_check(&job, "after failures");
            job_destroy(&job);
        }
    }
}

/* What one rank asks for; the others ask for the first of these. */
static const struct wish {
    const char *about; /* what the two differ in */
    struct ls_attention_shape shape;
    const char *method;
    ls_layout_kind layout;
    bool causal;
    float scale;
} wishes[] = {
    {"", {1, 4, 2, 600, 600, 16, LS_BF16, 0}, "ring", LS_LAYOUT_ZIGZAG, false, 0.25f},
    {"batch", {2, 4, 2, 600, 600, 16, LS_BF16, 0}, "ring", LS_LAYOUT_ZIGZAG, false, 0.25f},
    {"heads", {1, 8, 2, 600, 600, 16, LS_BF16, 0}, "ring", LS_LAYOUT_ZIGZAG, false, 0.25f},
    {"key/value heads",
     {1, 4, 1, 600, 600, 16, LS_BF16, 0},
     "ring",
     LS_LAYOUT_ZIGZAG,
     false,
     0.25f},
    {"query length", {1, 4, 2, 601, 600, 16, LS_BF16, 0}, "ring", LS_LAYOUT_ZIGZAG, false, 0.25f},
    {"key length", {1, 4, 2, 600, 0, 16, LS_BF16, 0}, "ring", LS_LAYOUT_ZIGZAG, false, 0.25f},
    {"head dim", {1, 4, 2, 600, 600, 32, LS_BF16, 0}, "ring", LS_LAYOUT_ZIGZAG, false, 0.25f},
    {"head dim of v", {1, 4, 2, 600, 600, 16, LS_BF16, 24}, "ring", LS_LAYOUT_ZIGZAG, false, 0.25f},
    {"type", {1, 4, 2, 600, 600, 16, LS_F16, 0}, "ring", LS_LAYOUT_ZIGZAG, false, 0.25f},
    {"method", {1, 4, 2, 600, 600, 16, LS_BF16, 0}, "allgather", LS_LAYOUT_ZIGZAG, false, 0.25f},
    {"layout", {1, 4, 2, 600, 600, 16, LS_BF16, 0}, "ring", LS_LAYOUT_STRIPED, false, 0.25f},
    {"scale", {1, 4, 2, 600, 600, 16, LS_BF16, 0}, "ring", LS_LAYOUT_ZIGZAG, false, 0.25000003f},
};

static void check_disagreement(const char *about, const struct ls_attention_shape *shape,
                               const struct ls_attention_options *options)
{
    struct ls_attention_plan *plan = NULL;
    char says[64];

    snprintf(says, sizeof(says), "ranks disagree about the %s", about);
    check_failure(ls_attention_plan_create(&plan, world, shape, options), LS_ESHAPE, says, about);
    MPI_CHECK(plan == NULL, "%s: a plan came out of it", about);
}

MPI_TEST(attention_plan, ranks_that_disagree_are_told_about_what)
{
    if (size == 1) MPI_SKIP("one rank cannot disagree");
    for (size_t i = 1; i < COUNT(wishes); i++) {
        for (int where = 0; where < size; where += size - 1) {
            const struct wish *wish = &wishes[rank == where ? i : 0];
            struct ls_attention_options options = LS_ATTENTION_OPTIONS;

            options.method = wish->method;
            options.layout = wish->layout;
            options.causal = wish->causal;
            options.has_scale = true;
            options.scale = wish->scale;
            check_disagreement(wishes[i].about, &wish->shape, &options);
        }
    }
}

/* Of masks and scores in the same way. */
static const struct taste {
    const char *about;
    bool causal;
    int64_t documents[3], prefix;
    float slopes[2], soft_cap, dropout;
    uint64_t seed;
    bool sinks;
} tastes[] = {
    {"", false, {0, 10, 600}, 0, {0.5f, 0.25f}, 0, 0.5f, 0, false},
    {"keys behind a query", true, {0, 10, 600}, 0, {0.5f, 0.25f}, 0, 0.5f, 0, false},
    {"lengths of documents", false, {0, 11, 600}, 0, {0.5f, 0.25f}, 0, 0.5f, 0, false},
    {"prefix", false, {0, 10, 600}, 1, {0.5f, 0.25f}, 0, 0.5f, 0, false},
    {"ALiBi slopes", false, {0, 10, 600}, 0, {0.5f, 0.125f}, 0, 0.5f, 0, false},
    {"soft cap", false, {0, 10, 600}, 0, {0.5f, 0.25f}, 30, 0.5f, 0, false},
    {"dropout", false, {0, 10, 600}, 0, {0.5f, 0.25f}, 0, 0.25f, 0, false},
    {"seed of dropout", false, {0, 10, 600}, 0, {0.5f, 0.25f}, 0, 0.5f, UINT64_MAX, false},
    {"sinks", false, {0, 10, 600}, 0, {0.5f, 0.25f}, 0, 0.5f, 0, true},
};

MPI_TEST(attention_plan, ranks_that_disagree_about_masks_and_scores_are_told)
{
    const struct ls_attention_shape shape = {1, 2, 2, 600, 600, 16, LS_BF16, 0};

    if (size == 1) MPI_SKIP("one rank cannot disagree");
    for (size_t i = 1; i < COUNT(tastes); i++) {
        const struct taste *taste = &tastes[rank == size - 1 ? i : 0];
        struct ls_attention_options options = LS_ATTENTION_OPTIONS;

        options.method = "ring";
        options.causal = taste->causal;
        options.documents = taste->documents;
        options.document_count = 2;
        options.prefix = taste->prefix;
        options.alibi = taste->slopes;
        options.soft_cap = taste->soft_cap;
        options.dropout = taste->dropout;
        options.dropout_seed = taste->seed;
        options.sinks = taste->sinks ? taste->slopes : NULL;
        check_disagreement(tastes[i].about, &shape, &options);
    }
}

MPI_TEST(attention_plan, what_one_rank_may_not_ask_for_no_rank_gets)
{
    static const struct {
        const char *name, *says;
        ls_status status;
        int64_t h_kv, d, d_v;
        ls_dtype type;
        const char *method;
        ls_layout_kind layout;
        int threads;
    } cases[] = {
        {"method", "did you mean \"ring\"", LS_EVALUE, 2, 16, 0, LS_BF16, "rign", LS_LAYOUT_AUTO,
         1},
        {"type", "f64", LS_ETYPE, 2, 16, 0, LS_F64, "ring", LS_LAYOUT_AUTO, 1},
        {"head dim", "577", LS_ESHAPE, 2, 577, 0, LS_BF16, "ring", LS_LAYOUT_AUTO, 1},
        {"head dim of v", "v is 577", LS_ESHAPE, 2, 16, 577, LS_BF16, "ring", LS_LAYOUT_AUTO, 1},
        {"kv heads", "multiple", LS_ESHAPE, 3, 16, 0, LS_BF16, "ring", LS_LAYOUT_AUTO, 1},
        {"layout", "layout is 99", LS_EVALUE, 2, 16, 0, LS_BF16, "ring", (ls_layout_kind)99, 1},
        {"threads", "threads is -1", LS_EVALUE, 2, 16, 0, LS_BF16, "ring", LS_LAYOUT_AUTO, -1},
        {"threads", "1 to 4096", LS_EVALUE, 2, 16, 0, LS_BF16, "ring", LS_LAYOUT_AUTO, 1 << 27},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ls_attention_shape shape = {1, 4, 2, 600, 600, 16, LS_BF16, 0};
        struct ls_attention_options options = LS_ATTENTION_OPTIONS;
        struct ls_attention_plan *plan = NULL;

        options.method = "ring";
        if (rank == size - 1) {
            shape.h_kv = cases[i].h_kv;
            shape.d = cases[i].d;
            shape.d_v = cases[i].d_v;
            shape.type = cases[i].type;
            options.method = cases[i].method;
            options.layout = cases[i].layout;
            options.threads = cases[i].threads;
        }
        check_failure(ls_attention_plan_create(&plan, world, &shape, &options), cases[i].status,
                      cases[i].says, cases[i].name);
        MPI_CHECK(plan == NULL, "%s: a plan came out of it", cases[i].name);
    }
}

MPI_TEST(attention_plan, a_method_that_cannot_says_why)
{
    const struct ls_attention_shape shape = {1, 1, 1, 300, 300, 16, LS_F32, 0};
    struct ls_attention_options options = LS_ATTENTION_OPTIONS;
    struct ls_attention_plan *plan = NULL;

    if (size == 1) MPI_SKIP("one rank can do everything");
    options.method = "local";
    check_failure(ls_attention_plan_create(&plan, world, &shape, &options), LS_EFIT,
                  "exactly one rank", "local");
}
