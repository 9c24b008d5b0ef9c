/* Backward of every method on any number of ranks, against exact gradients in double. */
#include "gradients.h"

#include "base/ledger.h"

MPI_SUITE(backward)

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

/* ---- every method, layout, mask and type */

static const int64_t documents[] = {0, 70, 70, 600, 731};

static const struct mask_case {
    const char *name;
    struct ls_attention_options options;
} masks[] = {
    {"full", LS_ATTENTION_OPTIONS},
    {"causal", {.size = sizeof(struct ls_attention_options), .causal = true}},
    {"window",
     {.size = sizeof(struct ls_attention_options),
      .has_window = true,
      .window_left = 300,
      .window_right = 20,
      .prefix = 3}},
    {"documents",
     {.size = sizeof(struct ls_attention_options),
      .documents = documents,
      .document_count = LENGTH(documents) - 1}},
};

/* With tails and without, a group, more ranks than leaves, queries that see nothing. */
static const struct ls_attention_shape shapes[] = {
    {.b = 1, .h = 2, .h_kv = 1, .s_q = 731, .s_k = 731, .d = 24},
    {.b = 2, .h = 3, .h_kv = 3, .s_q = 512, .s_k = 731, .d = 16, .d_v = 23},
    {.b = 1, .h = 4, .h_kv = 2, .s_q = 1290, .s_k = 731, .d = 9},
    {.b = 1, .h = 3, .h_kv = 1, .s_q = 40, .s_k = 731, .d = 32, .d_v = 20},
};

/* Every method against the same exact gradients; f32, which errs least, in every layout. */
static void check_case(struct descent *exact, const char *name, int number)
{
    for (int i = 0; i < ls_method_count() * 3; i++) {
        struct descent g = *exact;

        if (g.job.shape.type != LS_F32 && i % 3 != number % 3) continue;
        g.job.options.layout = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + i % 3);
        g.job.options.threads = 1 + i % 2;
        g.job.strided = i % 2;
        if (!descent_take_method(&g, i / 3)) continue;
        descent_create_plan(&g, world);
        descent_run(&g);
        descent_check(&g, name);
        descent_destroy_plan(&g);
    }
}

static void check_shape(const struct ls_attention_shape *shape, ls_dtype type)
{
    for (int i = 0; i < LENGTH(masks); i++) {
        struct descent g = {.job = {.shape = *shape, .options = masks[i].options},
                            .residual = true};

        g.job.shape.type = type;
        descent_create_whole(&g, (uint64_t)i);
        if (i % 2) descent_draw_dlse(&g, (uint64_t)i);
        descent_solve(&g);
        check_case(&g, masks[i].name, i);
        descent_destroy_whole(&g);
    }
}

MPI_TEST(backward, keeps_the_contract_f32)
{
    for (int i = 0; i < LENGTH(shapes); i++) check_shape(&shapes[i], LS_F32);
}

MPI_TEST(backward, keeps_the_contract_bf16)
{
    for (int i = 0; i < LENGTH(shapes); i++) check_shape(&shapes[i], LS_BF16);
}

/* ---- cost */

static double over_ranks(double value, ls_reduction how)
{
    MPI_CHECK_OK(ls_comm_reduce(&value, world, 1, how));
    return value;
}

static const ls_tag tags[] = {LS_TAG_WORKSPACE, LS_TAG_COMM, LS_TAG_GRADIENT, LS_TAG_ACTIVATION};

static void check_memory(const struct descent *g, const struct ls_cost *cost,
                         const size_t before[LENGTH(tags)])
{
    const size_t predicted[LENGTH(tags)] = {cost->workspace_bytes, cost->comm_bytes,
                                            cost->gradient_bytes, cost->activation_bytes};

    for (int i = 0; i < LENGTH(tags); i++) {
        const double most = over_ranks(
            (double)(ls_ledger_live(&ls_host_ledger, tags[i]) - before[i]), LS_REDUCE_MAX);

        MPI_CHECK(most == (double)predicted[i], "%s: %s %.0f, predicted %zu bytes",
                  job_text(&g->job), ls_tag_name(tags[i]), most, predicted[i]);
    }
}

static void check_cost(struct descent *g)
{
    struct ls_attention_report report;
    struct ls_cost cost;
    size_t before[LENGTH(tags)];

    for (int i = 0; i < LENGTH(tags); i++) before[i] = ls_ledger_live(&ls_host_ledger, tags[i]);
    descent_create_plan(g, world);
    MPI_CHECK_OK(ls_plan_cost(&cost, g->job.plan));
    check_memory(g, &cost, before);
    ls_ledger_reset_peaks(&ls_host_ledger);
    descent_run(g);
    descent_run(g); /* counts begin anew with each execution */
    MPI_CHECK(ls_ledger_peak_total(&ls_host_ledger) == ls_ledger_live_total(&ls_host_ledger),
              "%s: the execution allocated %zu bytes", job_text(&g->job),
              ls_ledger_peak_total(&ls_host_ledger) - ls_ledger_live_total(&ls_host_ledger));
    ls_attention_plan_describe(&report, g->job.plan);
    const double forward = over_ranks((double)report.forward.bytes_sent, LS_REDUCE_SUM);
    const double backward = over_ranks((double)report.backward.bytes_sent, LS_REDUCE_SUM);
    if (g->residual) cost.bytes_sent += cost.residual_bytes_sent;
    MPI_CHECK(forward == (double)cost.bytes_sent, "%s: forward sent %.0f bytes, predicted %ld",
              job_text(&g->job), forward, (long)cost.bytes_sent);
    if (g->job.options.bias) cost.backward_bytes_sent += cost.bias_bytes_sent;
    MPI_CHECK(backward == (double)cost.backward_bytes_sent,
              "%s: backward sent %.0f bytes, predicted %ld", job_text(&g->job), backward,
              (long)cost.backward_bytes_sent);
    descent_destroy_plan(g);
    for (int i = 0; i < LENGTH(tags); i++)
        MPI_CHECK(ls_ledger_live(&ls_host_ledger, tags[i]) == before[i], "%s: %s is left behind",
                  job_text(&g->job), ls_tag_name(tags[i]));
}

MPI_TEST(backward, costs_what_it_predicts)
{
    static const struct ls_attention_shape cost_shapes[] = {
        {1, 1, 1, 1, 1, 16, LS_F32, 0},     {1, 1, 1, 2001, 2001, 4, LS_BF16, 0},
        {2, 6, 2, 520, 900, 8, LS_BF16, 3}, {1, 4, 4, 1000, 300, 5, LS_F16, 16},
        {1, 2, 1, 1, 2000, 8, LS_BF16, 0},
    };
    static const float sinks[6], biases[6 * 9], pair_biases[4 * 1000 * 300];
    static uint8_t pairs[2 * 6 * 520 * 113];

    for (int i = 0; i < LENGTH(cost_shapes); i++) {
        struct descent g = {
            .job = {.shape = cost_shapes[i],
                    .options = {.size = sizeof g.job.options, .sinks = i % 2 ? sinks : NULL}}};

        if (i % 2 == 0) {
            g.job.options.distance_bias = biases;
            g.job.options.distances = 9;
        }
        if (i == 2) { /* the bits are for this shape */
            memset(pairs, 0x77, sizeof pairs);
            g.job.options.pair_bits = pairs;
            g.job.options.pairs_per_entry = g.job.options.pairs_per_head = true;
        }
        if (i == 3) { /* of each of its heads */
            g.job.options.bias = pair_biases;
            g.job.options.bias_per_head = true;
        }
        descent_create_whole(&g, (uint64_t)i);
        for (int k = 0; k < 2 * 3; k++) {
            g.job.options.has_rows = false;
            g.job.options.strict = k % 2;
            g.job.options.layout = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + k / 2);
            g.residual = k > 2;
            if (k == 4) job_take_even_rows(&g.job);
            for (int m = 0; m < ls_method_count(); m++)
                if (descent_take_method(&g, m)) check_cost(&g);
        }
        descent_destroy_whole(&g);
    }
}

/* ---- failures */

static void check_failure_says(ls_status status, ls_status expected, const char *what)
{
    MPI_CHECK(status == expected && strstr(ls_message(), what), "%s: %s", what, ls_message());
}

/* Nothing but the bytes that descent_load left there. */
static bool is_untouched(const struct descent *g)
{
    for (int i = 0; i < GRADIENTS; i++) {
        const unsigned char *bytes = g->gradient[i].data;
        const struct ls_tensor *t = &g->gradient[i];

        for (int64_t j = 0; j < t->dim[0] * t->stride[0] * ls_dtype_size(t->type); j++)
            if (bytes[j] != 0xff) return false;
    }
    return true;
}

MPI_TEST(backward, needs_a_plan_for_it)
{
    struct descent g = {
        .job = {.shape = {1, 2, 1, 600, 600, 16, LS_F32, 0}, .options = LS_ATTENTION_OPTIONS}};
    struct ls_attention_plan *with;

    descent_create_whole(&g, 1);
    g.job.options.method = "ring";
    descent_create_plan(&g, world);
    descent_load(&g);
    with = g.job.plan;
    g.job.options.backward = false;
    MPI_CHECK_OK(ls_attention_plan_create(&g.job.plan, world, &g.job.shape, &g.job.options));
    check_failure_says(descent_backward(&g), LS_EVALUE, "forward alone");
    g.residual = true;
    check_failure_says(descent_forward(&g), LS_EVALUE, "o_lo is for backward");
    MPI_CHECK(is_untouched(&g), "something was written");
    ls_attention_plan_destroy(g.job.plan);
    g.job.plan = with;
    descent_destroy_plan(&g);
    descent_destroy_whole(&g);
}

/* Every tensor of a call in turn is of a wrong shape or type on the last rank. */
MPI_TEST(backward, a_bad_tensor_on_one_rank_fails_on_all_and_harms_nothing)
{
    static const char *const names[] = {"q",    "k",    "v",  "o",  "lse", "do",
                                        "o_lo", "dlse", "dq", "dk", "dv"};
    struct descent g = {
        .job = {.shape = {1, 2, 1, 2100, 2100, 8, LS_BF16, 0}, .options = LS_ATTENTION_OPTIONS},
        .residual = true};

    descent_create_whole(&g, 1);
    descent_draw_dlse(&g, 1);
    descent_create_plan(&g, world);
    descent_load(&g);
    MPI_CHECK_OK(descent_forward(&g));
    for (int i = 0; i < 2 * LENGTH(names); i++) {
        struct descent bad = g;
        struct ls_tensor *tensors[] = {&bad.job.part[0], &bad.job.part[1], &bad.job.part[2],
                                       &bad.job.o,       &bad.job.lse,     &bad.d_o,
                                       &bad.o_lo,        &bad.dlse,        &bad.gradient[0],
                                       &bad.gradient[1], &bad.gradient[2]};
        char says[32];

        if (rank == size - 1 && i % 2) tensors[i / 2]->type = LS_F64;
        if (rank == size - 1 && i % 2 == 0) tensors[i / 2]->dim[1]++;
        snprintf(says, sizeof says, i % 2 ? "%s is f64" : "%s: dimension 1", names[i / 2]);
        check_failure_says(descent_backward(&bad), i % 2 ? LS_ETYPE : LS_ESHAPE, says);
        MPI_CHECK(is_untouched(&g), "%s: something was written", says);
    }
    MPI_CHECK_OK(descent_backward(&g));
    descent_destroy_plan(&g);
    descent_destroy_whole(&g);
}
