/* What is special about queries that visit: several steps, uneven visits, and what they cost.
 * (test_attention.c holds every method to the same properties.) */
#include "attention.h"

#include "base/ledger.h"
#include "plan/attention_size.h"

MPI_SUITE(allreduce)

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

static struct job job_of(struct ls_attention_shape shape, bool causal, ls_layout_kind layout)
{
    struct job job = {.shape = shape, .options = LS_ATTENTION_OPTIONS, .sample = 64};

    job.options.method = "allreduce";
    job.options.causal = causal;
    job.options.layout = layout;
    job.options.threads = 1;
    return job;
}

/* Leaves of queries per rank from less than one step to more than two, evenly and not. */
MPI_TEST(allreduce, any_number_of_visits_keeps_the_contract)
{
    static const int64_t leaves[] = {4, 5, 9}; /* of each rank */
    static const int64_t rest[] = {0, 1, 255, 300};

    for (int i = 0; i < COUNT(leaves) * COUNT(rest); i++) {
        const int64_t s_q = leaves[i / COUNT(rest)] * size * LS_LEAF + rest[i % COUNT(rest)];
        const struct ls_attention_shape shape = {2, 2, 1, s_q, 600, 16, i % 2 ? LS_BF16 : LS_F32,
                                                 0};
        struct job job = job_of(shape, i % 3 > 0, (ls_layout_kind)(i % 4));

        job_create(&job, world, (uint64_t)i);
        job_run(&job);
        job_check(&job, "visits");
        job_run(&job);
        job_check(&job, "visits, again");
        job_destroy(&job);
    }
}

/* Strict mode, the last visits fewer than the first. alone: all rows on one rank. */
static void check_strict(const struct job *alone, ls_layout_kind layout)
{
    struct job job = job_of(alone->shape, alone->options.causal, layout);

    memcpy(job.whole, alone->whole, sizeof job.whole);
    job.options.strict = true;
    job_create_plan(&job, world);
    job_run(&job);
    const struct ls_layout queries = job_layout(&job, 0);
    int64_t wrong = -1;
    for (int64_t i = 0; i < job.o.dim[1] && wrong < 0; i++) {
        const int64_t position = ls_layout_position(&queries, rank, i);

        if (!rows_equal(&job, i, alone, position)) wrong = position;
    }
    MPI_CHECK(wrong < 0, "%s, strict: query %ld", job_text(&job), (long)wrong);
    job_destroy_plan(&job);
}

MPI_TEST(allreduce, strict_visits_give_the_bits_of_one_rank)
{
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int causal = 0; causal <= 1; causal++) {
        const struct ls_attention_shape shape = {
            2, 2, 1, 9 * size * LS_LEAF + 300, 2900, 16, causal ? LS_F32 : LS_BF16, 0};
        struct job alone = job_of(shape, causal, LS_LAYOUT_CONTIGUOUS);

        alone.options.strict = true;
        job_create(&alone, self, 6);
        job_run(&alone);
        for (int kind = LS_LAYOUT_AUTO; kind <= LS_LAYOUT_BALANCED; kind++)
            check_strict(&alone, (ls_layout_kind)kind);
        job_destroy(&alone);
    }
    ls_comm_destroy(self);
}

static int64_t bytes_sent(const struct job *job)
{
    struct ls_attention_report report;

    ls_attention_plan_describe(&report, job->plan);
    return report.forward.bytes_sent;
}

/* One leaf of queries is one rank's: it sends them, the others send what they found, and nobody
 * sends rows that are not there. */
MPI_TEST(allreduce, only_rows_that_there_are_travel)
{
    const struct ls_attention_shape shape = {2, 4, 2, 64, 5000, 32, LS_BF16, 0};
    const int64_t rows = shape.b * shape.h * shape.s_q, others = size - 1;
    struct job job = job_of(shape, false, LS_LAYOUT_CONTIGUOUS);

    job_create(&job, world, 3);
    job_run(&job);
    job_check(&job, "one leaf");
    const bool owner = job.o.dim[1] > 0;
    const int64_t expected = owner ? others * rows * shape.d * 2 : rows * (shape.d + 2) * 4;
    MPI_CHECK(bytes_sent(&job) == expected, "%ld bytes, expected %ld", (long)bytes_sent(&job),
              (long)expected);
    job_destroy(&job);
}

/* ---- memory */

struct taken {
    size_t workspace, comm;
};

static struct taken plan_memory(struct job *job)
{
    const struct taken before = {ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE),
                                 ls_ledger_live(&ls_host_ledger, LS_TAG_COMM)};
    struct ls_cost cost;

    job_create(job, world, 4);
    MPI_CHECK_OK(job->plan->method->cost(&cost, &job->plan->problem));
    const struct taken taken = {ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE) -
                                    before.workspace,
                                ls_ledger_live(&ls_host_ledger, LS_TAG_COMM) - before.comm};
    MPI_CHECK(taken.workspace == cost.workspace_bytes && taken.comm == cost.comm_bytes,
              "%s: %zu and %zu bytes, predicted %zu and %zu", job_text(job), taken.workspace,
              taken.comm, cost.workspace_bytes, cost.comm_bytes);
    job_destroy(job);
    return taken;
}

/* Twice as long: as much for what travels, and no more than twice as much for packed keys. */
MPI_TEST(allreduce, memory_grows_no_faster_than_a_ranks_part)
{
    for (int causal = 0; causal <= 1; causal++) {
        struct taken last = {0};

        for (int64_t s = 4096 * size; s <= 16384 * size; s *= 2) {
            const struct ls_attention_shape shape = {1, 2, 2, s, s, 16, LS_BF16, 0};
            struct job job = job_of(shape, causal, LS_LAYOUT_AUTO);
            const struct taken taken = plan_memory(&job);

            MPI_CHECK(last.comm == 0 || taken.comm == last.comm, "%ld positions: %zu after %zu",
                      (long)s, taken.comm, last.comm);
            MPI_CHECK(last.workspace == 0 || taken.workspace <= 2 * last.workspace,
                      "%ld positions: %zu after %zu", (long)s, taken.workspace, last.workspace);
            last = taken;
        }
    }
}

/* ---- choice */

MPI_TEST(allreduce, is_chosen_where_queries_are_few)
{
    static const int64_t queries[] = {4200, 20000}; /* for fewer there is the tree */

    if (size == 1) MPI_SKIP("one rank sends nothing");
    for (int i = 0; i < COUNT(queries); i++) {
        const struct ls_attention_shape shape = {1, 1, 1, queries[i], 20000, 16, LS_BF16, 0};
        struct job job = job_of(shape, false, LS_LAYOUT_AUTO);
        struct ls_attention_report report;

        job.options.method = NULL;
        job_create(&job, world, 5);
        ls_attention_plan_describe(&report, job.plan);
        MPI_CHECK((strcmp(report.method, "allreduce") == 0) == (i == 0), "%ld queries: %s",
                  (long)queries[i], report.method);
        job_destroy(&job);
    }
}
