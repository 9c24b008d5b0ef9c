/* What a method predicts is what then happens: bytes on the ledger, tiles, nothing sent by one
 * rank. (tests/mpi has several ranks.) */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "attention/methods/table.h"
#include "attention/plan.h"
#include "base/cpu.h"
#include "base/ledger.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static const struct ls_attention_shape shapes[] = {
    {1, 1, 1, 1, 1, 1, LS_F32, 0},         {1, 1, 1, 0, 5, 16, LS_BF16, 0},
    {1, 1, 1, 5, 0, 16, LS_BF16, 0},       {2, 4, 2, 300, 257, 40, LS_BF16, 0},
    {1, 3, 1, 256, 1030, 64, LS_F16, 48},  {1, 8, 2, 700, 300, 80, LS_F32, 96},
    {3, 2, 2, 17, 513, 200, LS_BF16, 300}, {1, 1, 1, 1, 5000, 128, LS_F32, 64},
    {1, 5, 1, 1025, 1025, 16, LS_BF16, 0}, {1, 2, 1, 256, 256, 256, LS_F32, 0},
    {40, 1, 1, 3, 1000, 256, LS_F32, 0},   {1, 2, 2, 900, 100, 3, LS_F16, 0},
};

/* A tensor of zeros; the caller frees its data. */
static struct ls_tensor zeros(ls_dtype type, int ndim, const int64_t *dim)
{
    size_t n = 1;

    for (int i = 0; i < ndim; i++) n *= (size_t)dim[i];
    return ls_tensor_view(calloc(n + 1, (size_t)ls_dtype_size(type)), type, ndim, dim);
}

static void execute(struct ls_attention_plan *plan, const struct ls_attention_shape *s)
{
    const int64_t q_dim[] = {s->b, s->s_q, s->h, s->d}, k_dim[] = {s->b, s->s_k, s->h_kv, s->d};
    const int64_t d_v = ls_value_dim(s), o_dim[] = {s->b, s->s_q, s->h, d_v};
    const int64_t v_dim[] = {s->b, s->s_k, s->h_kv, d_v};
    struct ls_tensor q = zeros(s->type, 4, q_dim), o = zeros(s->type, 4, o_dim);
    struct ls_tensor k = zeros(s->type, 4, k_dim), v = zeros(s->type, 4, v_dim);
    struct ls_tensor lse = zeros(LS_F32, 3, (const int64_t[]){s->b, s->h, s->s_q});

    cr_assert_eq(ls_attention_forward(&o, &lse, plan, &q, &k, &v, NULL), LS_OK, "%s", ls_message());
    free(q.data);
    free(k.data);
    free(v.data);
    free(o.data);
    free(lse.data);
}

/* Where bits depend on a row's place, short leaves of a group's heads do not fill tiles together.
 */
static bool keeps_heads_apart(const struct ls_attention_plan *plan)
{
    return ls_attention_kernel_is_canonical(plan->problem.device, plan->kernel);
}

static void check(struct ls_comm *comm, const struct ls_method *method,
                  const struct ls_attention_shape *s, struct ls_attention_options options)
{
    const size_t workspace = ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE),
                 buffers = ls_ledger_live(&ls_host_ledger, LS_TAG_COMM);
    struct ls_attention_report report;
    struct ls_attention_plan *plan;
    struct ls_attention_prediction *prediction;
    char name[160];

    snprintf(name, sizeof name, "%s b %ld h %ld/%ld s %ld x %ld d %ld/%ld %s%s%s threads %d",
             method->name, (long)s->b, (long)s->h, (long)s->h_kv, (long)s->s_q, (long)s->s_k,
             (long)s->d, (long)ls_value_dim(s), ls_dtype_name(s->type),
             options.causal ? " causal" : "", options.strict ? " strict" : "", options.threads);
    options.method = method->name;
    cr_assert_eq(ls_attention_predict(&prediction, s, &options, 1), LS_OK, "%s: %s", name,
                 ls_message());
    const struct ls_cost cost = prediction->cost;
    ls_attention_prediction_destroy(prediction);
    cr_assert_eq(ls_attention_plan_create(&plan, comm, s, &options), LS_OK, "%s: %s", name,
                 ls_message());
    ls_ledger_reset_peaks(&ls_host_ledger);
    cr_expect_eq(ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE) - workspace,
                 cost.workspace_bytes, "%s: workspace of %zu bytes, predicted %zu", name,
                 ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE) - workspace,
                 cost.workspace_bytes);
    cr_expect_eq(ls_ledger_live(&ls_host_ledger, LS_TAG_COMM) - buffers, cost.comm_bytes,
                 "%s: buffers of %zu bytes, predicted %zu", name,
                 ls_ledger_live(&ls_host_ledger, LS_TAG_COMM) - buffers, cost.comm_bytes);
    const size_t live = ls_ledger_live_total(&ls_host_ledger);
    execute(plan, s);
    cr_expect_eq(ls_ledger_peak_total(&ls_host_ledger), live, "%s: allocates while it computes",
                 name);
    ls_attention_plan_describe(&report, plan);
    cr_expect(report.forward.tiles_computed == cost.tiles ||
                  (keeps_heads_apart(plan) && report.forward.tiles_computed > cost.tiles),
              "%s: %ld tiles, predicted %ld", name, (long)report.forward.tiles_computed,
              (long)cost.tiles);
    cr_expect_eq(report.forward.bytes_sent, cost.bytes_sent, "%s", name);
    cr_expect_eq(cost.messages, 0, "%s", name);
    ls_attention_plan_destroy(plan);
    cr_expect_eq(ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE), workspace,
                 "%s: workspace is left", name);
    cr_expect_eq(ls_ledger_live(&ls_host_ledger, LS_TAG_COMM), buffers, "%s: buffers are left",
                 name);
}

static float biases[40 * 3 * 1000 + 1025 * 1025]; /* of every shape and all entries */

static void check_isa(const char *name)
{
    struct ls_comm *comm;
    ls_isa isa;

    if (ls_isa_choose(&isa, name, ls_cpu_isa_best()) != LS_OK) {
        fprintf(stderr, "SKIP: %s\n", ls_message());
        return;
    }
    setenv("LONGSPAN_ISA", name, 1);
    cr_assert_eq(ls_comm_create_self(&comm), LS_OK);
    for (int i = 0; i < ls_method_count() * LENGTH(shapes); i++) {
        const struct ls_attention_shape *s = &shapes[i / ls_method_count()];
        struct ls_attention_options options = {
            .size = sizeof options, .causal = i % 2, .threads = 1 + i / 2 % 3};

        check(comm, ls_method_at(i % ls_method_count()), s, options);
        options.strict = true;
        check(comm, ls_method_at(i % ls_method_count()), s, options);
        options.backward = true;
        options.bias = biases;
        options.bias_per_entry = i % 3 == 0;
        check(comm, ls_method_at(i % ls_method_count()), s, options);
    }
    ls_comm_destroy(comm);
}

/* oneDNN can be limited once a process only, and each test is a process. */
#define TEST_ISA(isa)                                                                              \
    Test(cost, is_what_happens_##isa, .timeout = 600)                                              \
    {                                                                                              \
        check_isa(#isa);                                                                           \
    }

TEST_ISA(generic)
TEST_ISA(avx2)
TEST_ISA(avx512)
TEST_ISA(avx512bf16)
TEST_ISA(amx)

/* Ulysses sends less than the ring on more than two ranks, but it deals whole heads; a grid does so
 * to as many ranks as there are heads. */
Test(cost, auto_keeps_all_ranks_busy)
{
    static const struct {
        int64_t h;
        int p;
        const char *method;
    } cases[] = {{8, 4, "ulysses"}, {8, 8, "ulysses"}, {2, 4, "usp"}, {8, 5, "ring"}};

    for (int i = 0; i < LENGTH(cases); i++) {
        const struct ls_attention_shape s = {1,     cases[i].h, cases[i].h, 40960,
                                             40960, 64,         LS_BF16,    0};
        const struct ls_attention_options options = LS_ATTENTION_OPTIONS;
        const struct ls_method *method;
        const char *why;

        cr_assert_eq(ls_method_choose(&method, &why, &s, &options, cases[i].p), LS_OK);
        cr_expect_str_eq(method->name, cases[i].method, "%ld heads on %d ranks: %s",
                         (long)cases[i].h, cases[i].p, method->name);
    }
}

/* Of a method that is asked for the message is the reason; without one, every method's. */
Test(cost, what_cannot_be_is_not_predicted)
{
    const struct ls_attention_shape s = {1, 8, 8, 4096, 4096, 64, LS_BF16, 0};
    struct ls_attention_options options = {.size = sizeof options, .method = "halo"};
    struct ls_attention_prediction *prediction = NULL;

    cr_expect_eq(ls_attention_predict(&prediction, &s, &options, 4), LS_EFIT);
    cr_expect_null(strstr(ls_message(), "halo"), "%s", ls_message());
    cr_expect_eq(ls_attention_predict(&prediction, &s, &options, 0), LS_EVALUE);
    options.method = "hallo";
    cr_expect_eq(ls_attention_predict(&prediction, &s, &options, 4), LS_EVALUE);
    options.size = 0;
    cr_expect_eq(ls_attention_predict(&prediction, &s, &options, 4), LS_EVALUE);
    cr_expect_null(prediction);
}

/* What a window does not reach needs no bytes. */
Test(cost, auto_brings_only_what_is_seen)
{
    const struct ls_attention_shape s = {1, 8, 8, 40960, 40960, 64, LS_BF16, 0};
    const struct ls_attention_options options = {
        .size = sizeof options, .causal = true, .has_window = true, .window_left = 1000};
    const struct ls_method *method;
    const char *why;

    cr_assert_eq(ls_method_choose(&method, &why, &s, &options, 4), LS_OK);
    cr_expect_str_eq(method->name, "halo");
}

/* Strict over leaves that are dealt one by one: refused where the results that wait would be too
 * many to be planned, let alone kept; otherwise counted within a moment, and not beyond int64_t. */
Test(cost, strict_has_a_limit_of_single_leaves, .timeout = 60)
{
    static const int64_t lengths[] = {1000000, 100000000};
    int refused = 0;

    for (int i = 0; i < ls_method_count() * 8; i++) {
        const int64_t n = lengths[i % 2];
        const struct ls_attention_shape s = {1, 4, 4, n, n, 64, LS_BF16, 0};
        const struct ls_attention_options options = {.size = sizeof options,
                                                     .strict = true,
                                                     .backward = i / 2 % 2,
                                                     .layout = i / 4 % 2 ? LS_LAYOUT_STRIPED
                                                                         : LS_LAYOUT_BALANCED};
        const struct ls_method *method = ls_method_at(i / 8);
        struct ls_problem problem;
        struct ls_cost cost;

        cr_assert_eq(ls_problem_init(&problem, &s, &options, 4, method->layout), LS_OK);
        const char *reason = ls_method_misfit(method, &problem);
        if (!reason) {
            cr_assert_eq(method->cost(&cost, &problem), LS_OK);
            cr_expect(cost.bytes_sent >= 0 && cost.workspace_bytes < (size_t)1 << 60, "%s",
                      method->name);
        } else if (strstr(reason, "zigzag")) {
            cr_expect_eq(n, 100000000, "%s: %s", method->name, reason);
            cr_expect_not_null(strstr(reason, "390625 leaves"), "%s", reason);
            refused++;
        }
        ls_problem_fini(&problem);
    }
    cr_expect_eq(refused, 14, "%d refusals", refused); /* ring, usp, allreduce; allgather's dkv */
}

#if !defined __SANITIZE_ADDRESS__ /* which needs an address space without limit */

/* Where the lists of leaves do not fit, that is said, and nothing is counted without them. */
Test(cost, memory_that_is_short_is_said)
{
    static const char *const need_lists[] = {"ring", "ring2", "halo", "usp", "allreduce"};
    const struct ls_attention_shape s = {1,  4,       4, INT64_C(1) << 37, INT64_C(1) << 37,
                                         64, LS_BF16, 0};
    const struct rlimit limit = {INT64_C(1) << 31, INT64_C(1) << 31};

    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
    for (int i = 0; i < (int)(sizeof need_lists / sizeof *need_lists) * 2; i++) {
        const struct ls_attention_options options = {.size = sizeof options,
                                                     .strict = true,
                                                     .has_window = true,
                                                     .window_left = 300,
                                                     .node_size = 2,
                                                     .backward = i % 2,
                                                     .layout = LS_LAYOUT_ZIGZAG};
        const struct ls_method *method;
        struct ls_problem problem;
        struct ls_cost cost;

        cr_assert_eq(ls_method_find(&method, need_lists[i / 2]), LS_OK);
        cr_assert_eq(ls_problem_init(&problem, &s, &options, 4, method->layout), LS_OK);
        cr_assert_null(ls_method_misfit(method, &problem));
        cr_expect_eq(method->cost(&cost, &problem), LS_ENOMEM, "%s", method->name);
        ls_problem_fini(&problem);
    }
}

#endif

/* 4 d for every pair that sees each other. */
Test(cost, flops_count_visible_pairs)
{
    const struct ls_attention_shape s = {2, 6, 3, 1000, 1000, 64, LS_BF16, 0};

    for (int i = 0; i < ls_method_count(); i++) {
        for (int causal = 0; causal < 2; causal++) {
            const struct ls_attention_options options = {.size = sizeof options, .causal = causal};
            const double pairs = causal ? 1000 * 1001 / 2 : 1000 * 1000;
            struct ls_problem problem;
            struct ls_cost cost;

            cr_assert_eq(ls_problem_init(&problem, &s, &options, 1, ls_method_at(i)->layout),
                         LS_OK);
            cr_assert_eq(ls_method_at(i)->cost(&cost, &problem), LS_OK);
            cr_expect_eq(cost.flops, 4.0 * 64 * 12 * pairs, "%s", ls_method_at(i)->name);
        }
    }
}
