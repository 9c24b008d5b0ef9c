/* What is special about the tree: any number of ranks with queries among any number of ranks, what
 * is sent, and in how many messages. (test_attention.c holds every method to the same properties.)
 */
#include "attention.h"

#include "attention/merging/binomial.h"
#include "plan/attention_size.h"

MPI_SUITE(tree)

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

static struct job job_of(struct ls_attention_shape shape, bool causal, ls_layout_kind layout)
{
    struct job job = {.shape = shape, .options = LS_ATTENTION_OPTIONS, .sample = 32};

    job.options.method = "tree";
    job.options.causal = causal;
    job.options.layout = layout;
    job.options.threads = 1;
    return job;
}

/* From one rank with queries to all. */
MPI_TEST(tree, any_ranks_may_have_queries)
{
    for (int i = 0; i < 3 * 4; i++) {
        const int64_t s_q = i % 3 == 0 ? 7 : i % 3 == 1 ? 3 * LS_LEAF + 1 : size * LS_LEAF + 300;
        const struct ls_attention_shape shape = {2, 4, 2, s_q, 2900, 24, i % 2 ? LS_BF16 : LS_F32,
                                                 0};
        struct job job = job_of(shape, i % 4 > 1, (ls_layout_kind)(i / 3));

        job_create(&job, world, (uint64_t)i);
        for (int turn = 0; turn < 2; turn++) {
            job_run(&job);
            job_check(&job, turn ? "tree, again" : "tree");
        }
        job_destroy(&job);
    }
}

/* alone: all rows on one rank. */
static void check_strict(const struct job *alone, ls_layout_kind layout)
{
    struct job job = job_of(alone->shape, alone->options.causal, layout);
    int64_t wrong = -1;

    memcpy(job.whole, alone->whole, sizeof job.whole);
    job.options.strict = true;
    job_create_plan(&job, world);
    job_run(&job);
    const struct ls_layout queries = job_layout(&job, 0);
    for (int64_t i = 0; i < job.o.dim[1] && wrong < 0; i++)
        if (!rows_equal(&job, i, alone, ls_layout_position(&queries, rank, i))) wrong = i;
    MPI_CHECK(wrong < 0, "%s, strict: row %ld", job_text(&job), (long)wrong);
    job_destroy_plan(&job);
}

/* With keys of less than a leaf one rank has the whole result, and need not have queries. */
MPI_TEST(tree, strict_bits_are_those_of_one_rank)
{
    static const int64_t keys[] = {200, 2900, 7000};
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int i = 0; i < COUNT(keys); i++) {
        const struct ls_attention_shape shape = {
            1, 2, 1, size * LS_LEAF - 100, keys[i], 32, i % 2 ? LS_F32 : LS_BF16, 0};
        struct job alone = job_of(shape, i == 1, LS_LAYOUT_CONTIGUOUS);

        alone.options.strict = true;
        job_create(&alone, self, 6);
        job_run(&alone);
        for (int kind = LS_LAYOUT_AUTO; kind <= LS_LAYOUT_BALANCED; kind++)
            check_strict(&alone, (ls_layout_kind)kind);
        job_destroy(&alone);
    }
    ls_comm_destroy(self);
}

/* ---- what is sent */

static int64_t bytes_sent(const struct job *job)
{
    struct ls_attention_report report;

    ls_attention_plan_describe(&report, job->plan);
    return report.forward.bytes_sent;
}

/* All ranks but the first have queries to get and results to give, those of all that are behind
 * them, merged; none of it depends on the number of keys. */
MPI_TEST(tree, one_leaf_of_queries_takes_two_messages_a_rank)
{
    const int rounds = ls_binomial_rounds(size);

    for (int64_t s_k = 5000; s_k <= 20000; s_k *= 4) {
        const struct ls_attention_shape shape = {2, 4, 2, 64, s_k, 32, LS_BF16, 0};
        const int64_t query = shape.b * shape.h * shape.s_q * shape.d * 2;
        const int64_t result = (int64_t)ls_row_state_bytes(&shape, shape.s_q);
        const struct ls_binomial tree = {.p = size};
        struct job job = job_of(shape, false, LS_LAYOUT_CONTIGUOUS);
        struct ls_cost cost;

        job_create(&job, world, 3);
        job_run(&job);
        job_check(&job, "one leaf");
        const int64_t expected = (rank > 0 ? result : 0) + ls_binomial_takings(&tree, rank) * query;
        MPI_CHECK(bytes_sent(&job) == expected, "%ld bytes, expected %ld", (long)bytes_sent(&job),
                  (long)expected);
        MPI_CHECK_OK(job.plan->method->cost(&cost, &job.plan->problem));
        MPI_CHECK(cost.messages == 2 * (size - 1), "%ld messages", (long)cost.messages);
        job_destroy(&job);

        job = job_of(shape, false, LS_LAYOUT_CONTIGUOUS);
        job.shape.s_q = size * LS_LEAF;
        job_create_whole(&job, 3);
        job_create_plan(&job, world);
        MPI_CHECK_OK(job.plan->method->cost(&cost, &job.plan->problem));
        MPI_CHECK(cost.messages == 2 * size * rounds, "all have queries: %ld messages",
                  (long)cost.messages);
        job_destroy(&job);
    }
}

/* A strict rank of whole, aligned runs of leaves gives one result, whatever it merged. */
MPI_TEST(tree, strict_results_are_merged_on_the_way)
{
    const struct ls_attention_shape shape = {1, 2, 1, 64, 4 * size * LS_LEAF, 16, LS_F32, 0};
    const int64_t query = shape.h * shape.s_q * shape.d * 4;
    const int64_t result = (int64_t)ls_row_state_bytes(&shape, shape.s_q);
    const struct ls_binomial tree = {.p = size};
    struct job job = job_of(shape, false, LS_LAYOUT_CONTIGUOUS);

    job.options.strict = true;
    job_create(&job, world, 3);
    job_run(&job);
    job_check(&job, "strict");
    const int64_t sent = bytes_sent(&job) - ls_binomial_takings(&tree, rank) * query;
    const bool power = (size & (size - 1)) == 0;
    MPI_CHECK(power ? sent == (rank > 0 ? result : 0) : sent <= 2 * result, "%ld bytes",
              (long)sent);
    job_destroy(&job);
}

MPI_TEST(tree, is_for_few_queries)
{
    const struct ls_attention_shape shape = {1, 1, 1, 4097, 300, 16, LS_F32, 0};
    struct job job = job_of(shape, false, LS_LAYOUT_AUTO);
    struct ls_attention_plan *plan = NULL;

    MPI_CHECK(ls_attention_plan_create(&plan, world, &job.shape, &job.options) == LS_EFIT, "%s",
              ls_message());
    MPI_CHECK(strstr(ls_message(), "at most 4096") != NULL, "%s", ls_message());
}
