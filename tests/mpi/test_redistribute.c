/* Ranks that have rows of their own, cut anywhere: the same results as from the layouts' parts, at
 * the cost that is predicted, and for nothing where the two are the same. */
#include "attention.h"

#include "attention/travelling/redistribute.h"
#include "base/ledger.h"
#include "base/trace.h"

MPI_SUITE(redistribute)

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* ---- cuts */

typedef enum { EVEN, GROWING, FIRST_HAS_ALL, LAST_HAS_ALL, DRAWN, AS_LAYOUT, CUTS } cut;

/* Where rank r's rows begin, r to size. */
static int64_t begin_of(cut cut, const struct ls_layout *layout, int r)
{
    int64_t rows = 0, weight = 0, weights = 1;

    if (r == 0 || r == size) return r == 0 ? 0 : layout->s;
    switch (cut) {
    case GROWING:
        return layout->s * r * (r + 1) / (size * (size + 1));
    case FIRST_HAS_ALL:
        return layout->s;
    case LAST_HAS_ALL:
        return 0;
    case DRAWN: /* about every third rank has none */
        for (int i = 0; i < size; i++) {
            const uint64_t at = (uint64_t)(2 * i), seed = (uint64_t)layout->s;
            const int64_t some = (int64_t)ls_random_below(seed, 0, at, 100);
            const int64_t drawn = ls_random_below(seed, 0, at + 1, 3) == 0 ? 0 : some;

            weight += i < r ? drawn : 0;
            weights += drawn;
        }
        return layout->s * weight / weights;
    case AS_LAYOUT: /* if that is contiguous */
        for (int i = 0; i < r; i++) rows += ls_layout_part_rows(layout, i);
        return rows;
    default:
        return layout->s * r / size;
    }
}

static void take_rows(struct job *job, cut queries, cut keys)
{
    const struct ls_layout q = {.kind = LS_LAYOUT_CONTIGUOUS, .s = job->shape.s_q, .p = size};
    const struct ls_layout k = {.kind = LS_LAYOUT_CONTIGUOUS, .s = job->shape.s_k, .p = size};

    job->options.has_rows = true;
    job->own_first[0] = begin_of(queries, &q, rank);
    job->own_first[1] = job->own_first[2] = begin_of(keys, &k, rank);
    job->options.q_rows = begin_of(queries, &q, rank + 1) - job->own_first[0];
    job->options.k_rows = begin_of(keys, &k, rank + 1) - job->own_first[1];
}

/* With tails, a group, a batch, wider and narrower values; one leaf for all ranks; no keys; no
 * queries. */
static const struct ls_attention_shape shapes[] = {
    {2, 4, 2, 1030, 1500, 24, LS_BF16, 40}, {1, 3, 1, 1800, 770, 17, LS_F16, 9},
    {2, 2, 2, 90, 1300, 16, LS_F32, 0},     {1, 1, 1, 5, 0, 16, LS_BF16, 0},
    {1, 2, 1, 0, 300, 16, LS_F32, 0},
};

/* ---- results */

/* Every method with the case's cuts, parts in either order in memory. */
static void check_bits(const struct job *alone, int number)
{
    for (int m = 0; m < ls_method_count(); m++) {
        struct job job = {
            .shape = alone->shape, .options = alone->options, .strided = (number + m) % 2 == 1};

        memcpy(job.whole, alone->whole, sizeof job.whole);
        job.options.layout = (ls_layout_kind)((number + m) % (LS_LAYOUT_BALANCED + 1));
        job.options.threads = 1;
        if (!job_take_method(&job, m, size)) continue;
        take_rows(&job, (cut)(number % CUTS), (cut)((number + number / CUTS + m) % CUTS));
        job_create_plan(&job, world);
        job_run(&job);
        MPI_CHECK(same_bits(&job, alone), "case %d: %s: %ld queries from %ld, %ld keys from %ld",
                  number, job_text(&job), (long)job.options.q_rows, (long)job.own_first[0],
                  (long)job.options.k_rows, (long)job.own_first[1]);
        job_run(&job);
        MPI_CHECK(same_bits(&job, alone), "case %d: %s, again", number, job_text(&job));
        job_destroy_plan(&job);
    }
}

MPI_TEST(redistribute, strict_bits_do_not_depend_on_whose_rows_they_are)
{
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int i = 0; i < COUNT(shapes) * 2; i++) {
        struct job alone = {.shape = shapes[i / 2], .options = LS_ATTENTION_OPTIONS};

        alone.options.strict = true;
        alone.options.causal = i % 2 == 1;
        job_run_alone(&alone, self, 7);
        for (int number = 0; number < CUTS; number++) check_bits(&alone, i * CUTS + number);
        job_destroy(&alone);
    }
    ls_comm_destroy(self);
}

MPI_TEST(redistribute, fast_results_keep_the_contract)
{
    for (int i = 0; i < CUTS; i++) {
        struct job job = {.shape = shapes[0], .options = LS_ATTENTION_OPTIONS, .sample = 16};

        job.options.causal = i % 2 == 1;
        take_rows(&job, (cut)i, (cut)(CUTS - 1 - i));
        job_create(&job, world, (uint64_t)i);
        job_run(&job);
        job_check(&job, "own rows");
        job_destroy(&job);
    }
}

/* ---- cost */

static double over_ranks(double value, ls_reduction how)
{
    MPI_CHECK_OK(ls_comm_reduce(&value, world, 1, how));
    return value;
}

/* Of an execution, on this rank. */
static int64_t count_sends(struct job *job)
{
    const struct ls_trace_event *event;
    int64_t sends = 0;

    MPI_CHECK_OK(ls_trace_create(1, 10000));
    ls_trace_start();
    job_run(job);
    ls_trace_stop();
    for (int64_t i = ls_trace_events(&event, 0); i > 0; i--)
        sends += strcmp(event[i - 1].kind->name, "send") == 0;
    ls_trace_destroy();
    return sends;
}

static void check_cost(struct job *job)
{
    const size_t before = ls_ledger_live(&ls_host_ledger, LS_TAG_ACTIVATION);
    struct ls_attention_report report;
    struct ls_cost cost;

    job_create_plan(job, world);
    MPI_CHECK_OK(ls_plan_cost(&cost, job->plan));
    const double taken = (double)(ls_ledger_live(&ls_host_ledger, LS_TAG_ACTIVATION) - before);
    const double most = over_ranks(taken, LS_REDUCE_MAX);
    MPI_CHECK(most == (double)cost.activation_bytes, "%s: %.0f bytes, predicted %zu", job_text(job),
              most, cost.activation_bytes);
    job_run(job);
    ls_ledger_reset_peaks(&ls_host_ledger);
    const double sends = over_ranks((double)count_sends(job), LS_REDUCE_SUM);
    MPI_CHECK(ls_ledger_peak_total(&ls_host_ledger) == ls_ledger_live_total(&ls_host_ledger),
              "%s: allocates", job_text(job));
    ls_attention_plan_describe(&report, job->plan);
    const double bytes = over_ranks((double)report.forward.bytes_sent, LS_REDUCE_SUM);
    MPI_CHECK(bytes == (double)cost.bytes_sent, "%s: %.0f bytes sent, predicted %ld", job_text(job),
              bytes, (long)cost.bytes_sent);
    MPI_CHECK(sends == (double)cost.messages || strcmp(report.method, "allreduce") == 0,
              "%s: %.0f messages, predicted %ld", job_text(job), sends, (long)cost.messages);
    job_destroy_plan(job);
    MPI_CHECK(ls_ledger_live(&ls_host_ledger, LS_TAG_ACTIVATION) == before, "%s: memory is left",
              job_text(job));
}

MPI_TEST(redistribute, costs_what_it_predicts)
{
    for (int i = 0; i < COUNT(shapes); i++) {
        struct job job = {.shape = shapes[i], .options = LS_ATTENTION_OPTIONS};

        job_create_whole(&job, 1);
        for (int k = 0; k < CUTS * ls_method_count(); k++) {
            job.options.layout = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + (i + k) % 4);
            job.options.threads = 1;
            if (!job_take_method(&job, k / CUTS, size)) continue;
            take_rows(&job, (cut)(k % CUTS), (cut)((k + i) % CUTS));
            check_cost(&job);
        }
        job_destroy_whole(&job);
    }
}

/* Queries and keys each by themselves. */
MPI_TEST(redistribute, rows_that_are_parts_are_used_where_they_are)
{
    static const struct ls_attention_shape shape = {1, 2, 1, 1900, 2500, 16, LS_BF16, 24};

    for (int m = 0; m < ls_method_count(); m++) {
        struct job job = {.shape = shape, .options = LS_ATTENTION_OPTIONS};
        struct ls_cost with, without;

        job.options.layout = LS_LAYOUT_CONTIGUOUS;
        if (!job_take_method(&job, m, size)) continue;
        take_rows(&job, AS_LAYOUT, AS_LAYOUT);
        job_create(&job, world, 3);
        MPI_CHECK_OK(ls_plan_cost(&with, job.plan));
        MPI_CHECK_OK(job.plan->method->cost(&without, &job.plan->problem));
        MPI_CHECK(memcmp(&with, &without, sizeof with) == 0, "%s: it costs", job_text(&job));
        MPI_CHECK(ls_ledger_live(&ls_host_ledger, LS_TAG_ACTIVATION) == 0, "%s: it takes memory",
                  job_text(&job));
        for (int which = 0; which < LS_TRAVELLERS; which++) {
            struct ls_tensor part;

            ls_redistribution_part(&part, job.plan->redistribution, which, &job.o);
            MPI_CHECK(part.data == job.o.data, "%s: traveller %d moves", job_text(&job), which);
        }
        job_destroy_plan(&job);
        take_rows(&job, AS_LAYOUT, size > 1 ? LAST_HAS_ALL : AS_LAYOUT);
        job_create_plan(&job, world);
        const size_t keys = /* K and V */
            (16 + 24) * 2 * (size_t)ls_layout_part_rows(&job.plan->problem.k_layout, rank);
        MPI_CHECK(rank == size - 1 || ls_ledger_live(&ls_host_ledger, LS_TAG_ACTIVATION) == keys,
                  "%s: %zu bytes for keys of %zu", job_text(&job),
                  ls_ledger_live(&ls_host_ledger, LS_TAG_ACTIVATION), keys);
        job_destroy(&job);
    }
}

/* ---- failures */

MPI_TEST(redistribute, rows_must_be_the_sequence)
{
    static const struct {
        const char *says;
        int64_t q_more, k_more; /* than the last rank's */
    } cases[] = {{"own rows are 701 queries", 1, 0},
                 {"own rows are 698 queries", -2, 0},
                 {"own rows are 899 keys", 0, -1}};

    for (int i = 0; i < COUNT(cases); i++) {
        struct job job = {.shape = {1, 2, 2, 700, 900, 16, LS_BF16, 9},
                          .options = LS_ATTENTION_OPTIONS};
        const size_t before = ls_ledger_live_total(&ls_host_ledger);

        take_rows(&job, EVEN, EVEN);
        if (size == 1 && cases[i].q_more > 0) continue;
        if (rank == size - 1) {
            job.options.q_rows += cases[i].q_more;
            job.options.k_rows += cases[i].k_more;
        }
        check_failure(ls_attention_plan_create(&job.plan, world, &job.shape, &job.options),
                      LS_ESHAPE, cases[i].says, cases[i].says);
        MPI_CHECK(strstr(ls_message(), i < 2 ? "the sequence has 700" : "the sequence has 900"),
                  "%s", ls_message());
        MPI_CHECK(ls_ledger_live_total(&ls_host_ledger) == before, "memory is left");
    }
}

MPI_TEST(redistribute, rows_of_one_rank_must_be_possible)
{
    static const struct {
        const char *says;
        int64_t q_rows, k_rows;
    } cases[] = {{"this rank's own rows are -1 queries", -1, 0},
                 {"this rank's own rows are 701 queries", 701, 0},
                 {"queries and -1 keys", 0, -1},
                 {"queries and 901 keys", 0, 901}};

    for (int i = 0; i < COUNT(cases); i++) {
        struct job job = {.shape = {1, 2, 2, 700, 900, 16, LS_BF16, 9},
                          .options = LS_ATTENTION_OPTIONS};

        job.options.has_rows = true;
        if (rank == size - 1) {
            job.options.q_rows = cases[i].q_rows;
            job.options.k_rows = cases[i].k_rows;
        }
        check_failure(ls_attention_plan_create(&job.plan, world, &job.shape, &job.options),
                      LS_ESHAPE, cases[i].says, cases[i].says);
    }
}

MPI_TEST(redistribute, all_ranks_have_own_rows_or_none)
{
    struct job job = {.shape = {1, 2, 2, 700, 900, 16, LS_BF16, 0},
                      .options = LS_ATTENTION_OPTIONS};

    if (size == 1) MPI_SKIP("one rank cannot disagree");
    take_rows(&job, EVEN, EVEN);
    job.options.has_rows = rank == 0;
    check_failure(ls_attention_plan_create(&job.plan, world, &job.shape, &job.options), LS_ESHAPE,
                  "ranks disagree about the rows", "has_rows");
}

/* A tensor of the layout's part is refused where the rank said that it has other rows. */
MPI_TEST(redistribute, tensors_have_the_rows_that_were_said)
{
    struct job job = {.shape = {1, 2, 2, 700, 900, 16, LS_BF16, 0},
                      .options = LS_ATTENTION_OPTIONS};

    take_rows(&job, EVEN, EVEN);
    job_create(&job, world, 1);
    job_load(&job);
    if (rank == size - 1) job.part[1].dim[1]--;
    check_failure(job_forward(&job), LS_ESHAPE, "k: dimension 1 is", "rows of k");
    if (rank == size - 1) job.part[1].dim[1]++;
    job_run(&job);
    job_check(&job, "after a failure");
    job_destroy(&job);
}
