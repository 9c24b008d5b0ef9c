/* Biases of pairs, of all, of each entry, of each head and of both: every method, forward and
 * backward, against the oracle. */
#include "every_method.h"

#include "base/trace.h"

MPI_SUITE(biases)

#define OPTIONS .size = sizeof(struct ls_attention_options)

enum { B = 2, H = 4, S_Q = 380, S_K = 600, MATRIX = S_Q * S_K };

static const struct ls_attention_shape shape = {B, H, 2, S_Q, S_K, 12, LS_F32, 7};
static const int64_t k_lengths[B] = {600, 300}, documents[] = {0, 100, 360, 600};
static const float sinks[] = {0.5F, -1, 0.25F, 2}, slopes[] = {0.5F, 0, 0.25F, -0.01F};

static float biases[B * H * MATRIX]; /* drawn, some -inf */

static const struct bias_case {
    const char *name;
    struct ls_attention_options options;
} cases[] = {
    {"biases", {OPTIONS}},
    {"biases of entries",
     {OPTIONS, .bias_per_entry = true, .causal = true, .k_lengths = k_lengths, .sinks = sinks}},
    {"biases of heads",
     {OPTIONS, .bias_per_head = true, .has_window = true, .window_left = 200, .dropout = 0.2F,
      .soft_cap = 5}},
    {"biases of entries and heads",
     {OPTIONS, .bias_per_entry = true, .bias_per_head = true, .documents = documents,
      .document_count = 3, .alibi = slopes, .layout = LS_LAYOUT_BALANCED}},
};

static void draw(void)
{
    if (biases[1] != 0) return; /* they are */
    ls_random_normal(biases, 11, 0, 0, LENGTH(biases));
    for (int64_t i = 0; i < LENGTH(biases); i += 11 + i % 7) biases[i] = -INFINITY;
}

/* rows: of the callers' own, cut anywhere. */
static void check_case(const struct bias_case *c, ls_dtype type, bool rows)
{
    struct descent whole = {
        .job = {.shape = shape, .options = c->options, .sample = 40, .strided = rows},
        .residual = true};

    whole.job.shape.type = type;
    whole.job.options.bias = biases;
    if (rows) job_take_even_rows(&whole.job);
    descent_create_whole(&whole, 3);
    check_every_method(&whole, c->name);
    descent_destroy_whole(&whole);
}

MPI_TEST(biases, are_added_to_logits_and_have_gradients)
{
    draw();
    for (int i = 0; i < LENGTH(cases); i++) check_case(&cases[i], i < 3 ? LS_F32 : LS_BF16, i % 2);
}

/* Contiguous f32 of one shape; perhaps none on this rank. */
static bool same_elements(const struct ls_tensor *a, const struct ls_tensor *b)
{
    const size_t bytes = (size_t)elements(a) * sizeof(float);

    return bytes == 0 || memcmp(a->data, b->data, bytes) == 0;
}

/* Heads 2 and 3 of four, as a plan of their own, are what they are among all. */
MPI_TEST(biases, of_some_heads_are_those_among_all)
{
    struct descent some = {
        .job = {.shape = {B, 2, 1, S_Q, S_K, 12, LS_F32, 7},
                .options = {OPTIONS, .method = "ring", .bias_per_head = true, .causal = true}},
        .residual = true};

    draw();
    descent_create_whole(&some, 3);
    struct descent alone = some;

    some.job.options.bias = biases;
    some.job.options.first_head = 2;
    some.job.options.total_heads = H;
    alone.job.options.bias = biases + 2 * MATRIX;
    descent_create_plan(&some, world);
    descent_create_plan(&alone, world);
    descent_run(&some);
    descent_run(&alone);
    MPI_CHECK(same_elements(&some.job.o, &alone.job.o), "o of heads 2 and 3");
    for (int i = 0; i < GRADIENTS; i++)
        MPI_CHECK(same_elements(&some.gradient[i], &alone.gradient[i]), "%s of heads 2 and 3",
                  gradient_names[i]);
    MPI_CHECK(same_elements(&some.dbias, &alone.dbias), "dbias of heads 2 and 3");
    descent_destroy_plan(&alone);
    descent_destroy_plan(&some);
    descent_destroy_whole(&some);
}

/* dbias on some ranks alone would leave them waiting for the others; so would other shapes. */
MPI_TEST(biases, ranks_that_disagree_are_told)
{
    const bool last = rank == size - 1;
    struct ls_attention_options options = {OPTIONS, .method = "ring", .bias = biases};
    struct ls_attention_plan *plan = NULL;
    struct descent g = {.job = {.shape = shape, .options = options}};

    if (size == 1) MPI_SKIP("one rank cannot disagree");
    options.bias_per_head = last;
    check_failure(ls_attention_plan_create(&plan, world, &shape, &options), LS_ESHAPE,
                  "biases of pairs, and whose own they are", "heads of one rank");
    descent_create_whole(&g, 3);
    descent_create_plan(&g, world);
    descent_load(&g);
    MPI_CHECK_OK(descent_forward(&g));
    g.job.options.bias = last ? NULL : biases; /* so that the last rank does not ask for dbias */
    check_failure(descent_backward(&g), LS_ESHAPE, "wish for gradients of sinks or biases",
                  "dbias on some ranks");
    g.job.options.bias = biases;
    descent_destroy_plan(&g);
    descent_destroy_whole(&g);
}

MPI_TEST(biases, without_them_there_is_no_gradient)
{
    struct descent g = {.job = {.shape = shape, .options = {OPTIONS, .method = "ring"}}};

    descent_create_whole(&g, 3);
    descent_create_plan(&g, world);
    descent_load(&g);
    MPI_CHECK_OK(descent_forward(&g));
    g.job.options.bias = biases; /* so that dbias is asked for */
    check_failure(descent_backward(&g), LS_EVALUE, "without biases of pairs", "dbias of nothing");
    g.job.options.bias = NULL;
    descent_destroy_plan(&g);
    descent_destroy_whole(&g);
}

/* Messages of a backward, on this rank. */
static int64_t count_sends(struct descent *g)
{
    const struct ls_trace_event *event;
    int64_t sends = 0;

    MPI_CHECK_OK(ls_trace_create(1, 10000));
    ls_trace_start();
    MPI_CHECK_OK(descent_backward(g));
    ls_trace_stop();
    for (int64_t i = ls_trace_events(&event, 0); i > 0; i--)
        sends += strcmp(event[i - 1].kind->name, "send") == 0;
    ls_trace_destroy();
    return sends;
}

/* dbias costs what is said of it, and changes nothing else. */
MPI_TEST(biases, without_dbias_the_rest_is_the_same)
{
    struct descent with = {
        .job = {.shape = shape,
                .options = {OPTIONS, .method = "ring", .strict = true, .bias = biases}}};
    struct ls_cost cost;

    draw();
    descent_create_whole(&with, 3);
    struct descent without = with;

    descent_create_plan(&with, world);
    descent_create_plan(&without, world);
    descent_run(&with);
    descent_run(&without);
    without.job.options.bias = NULL; /* so that dbias is not asked for */
    const int64_t more = count_sends(&with) - count_sends(&without);

    without.job.options.bias = biases;
    MPI_CHECK_OK(ls_plan_cost(&cost, with.job.plan));
    MPI_CHECK(of_all_ranks(more) == (double)cost.bias_messages, "%ld messages are predicted",
              (long)cost.bias_messages);
    for (int i = 0; i < GRADIENTS; i++)
        MPI_CHECK(same_elements(&with.gradient[i], &without.gradient[i]), "%s", gradient_names[i]);
    descent_destroy_plan(&without);
    descent_destroy_plan(&with);
    descent_destroy_whole(&with);
}
