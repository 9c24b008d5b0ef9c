/* What an execution brings counts as if the plan had been made with it: strict results have the
 * same bits, and without it they are the plan's again. Every rank also computes the whole alone. */
#include "../tensor/masks.h"
#include "gradients.h"

MPI_SUITE(execution)

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))
#define OPTIONS .size = sizeof(struct ls_attention_options), .strict = true
#define EXECUTION .size = sizeof(struct ls_attention_execution)

static const int64_t some[] = {0, 70, 70, 600, 900}, others[] = {0, 300, 520, 900},
                     cut[] = {0, 70, 70, 590};
static const float sinks[] = {0.5F, -1}, biases[] = {1, 0, -1, 0.5F, 2, 3, -2, 0, 1, 1};
static uint8_t pairs[900 * 113]; /* drawn, as are the next, and what of them a shorter plan has */
static float pair_biases[2][900][900], shorter_biases[2][530][600];

#define AS(list) .documents = list, .document_count = LENGTH(list) - 1
#define LENGTHS(q, k) .has_lengths = true, .s_q = q, .s_k = k
#define DOCUMENTS(list)                                                                            \
    {                                                                                              \
        EXECUTION, AS(list)                                                                        \
    }

/* A plan, an execution, and the plan that it then is. */
static const struct change {
    const char *name;
    struct ls_attention_options plan;
    struct ls_attention_execution execution;
    struct ls_attention_options meant; /* and its lengths, where they are the execution's */
} changes[] = {
    {"seed",
     {OPTIONS, .causal = true, .dropout = 0.25F, .dropout_seed = 1},
     {EXECUTION, .has_dropout_seed = true},
     {OPTIONS, .causal = true, .dropout = 0.25F}},
    {"documents", {OPTIONS, .causal = true}, DOCUMENTS(some), {OPTIONS, .causal = true, AS(some)}},
    {"other documents",
     {OPTIONS, .layout = LS_LAYOUT_BALANCED, AS(some)},
     DOCUMENTS(others),
     {OPTIONS, AS(others)}},
    {"the same documents", {OPTIONS, AS(some)}, DOCUMENTS(some), {OPTIONS, AS(some)}},
    {"lengths",
     {OPTIONS, .causal = true, .sinks = sinks, .alibi = sinks, .prefix = 700},
     {EXECUTION, LENGTHS(530, 600)},
     {OPTIONS, .causal = true, .sinks = sinks, .alibi = sinks, .prefix = 600}},
    {"lengths from the start",
     {OPTIONS, .align_start = true, .has_window = true, .window_left = 300, .dropout = 0.5F},
     {EXECUTION, LENGTHS(256, 700)},
     {OPTIONS, .align_start = true, .has_window = true, .window_left = 300, .dropout = 0.5F}},
    {"lengths that cut documents",
     {OPTIONS, AS(some)},
     {EXECUTION, LENGTHS(590, 590)},
     {OPTIONS, AS(cut)}},
    {"lengths and documents",
     {OPTIONS, .causal = true},
     {EXECUTION, LENGTHS(512, 590), AS(cut)},
     {OPTIONS, .causal = true, AS(cut)}},
    {"lengths and documents of pairs",
     {OPTIONS, .layout = LS_LAYOUT_ZIGZAG, .causal = true, .pair_bits = pairs,
      .distance_bias = biases, .distances = 5},
     {EXECUTION, LENGTHS(530, 900), AS(some)},
     {OPTIONS, .causal = true, .pair_bits = pairs, .distance_bias = biases, .distances = 5,
      AS(some)}},
    {"lengths and biases of pairs",
     {OPTIONS, .causal = true, .bias = pair_biases[0][0], .bias_per_head = true},
     {EXECUTION, LENGTHS(530, 600)},
     {OPTIONS, .causal = true, .bias = shorter_biases[0][0], .bias_per_head = true}},
    {"no keys", {OPTIONS, .sinks = sinks}, {EXECUTION, LENGTHS(30, 0)}, {OPTIONS, .sinks = sinks}},
    {"no queries", {OPTIONS}, {EXECUTION, LENGTHS(0, 800)}, {OPTIONS}},
};

static const struct ls_attention_shape shape = {1, 2, 1, 900, 900, 8, LS_BF16, 0};

/* The first rows of a sequence do not depend on its length. */
static void create_alone(struct descent *g, const struct ls_attention_options *options,
                         const struct ls_attention_execution *lengths, struct ls_comm *self)
{
    *g = (struct descent){.job = {.shape = shape, .options = *options}, .residual = true};
    if (lengths->has_lengths) g->job.shape.s_q = lengths->s_q;
    if (lengths->has_lengths) g->job.shape.s_k = lengths->s_k;
    g->job.options.method = "local";
    descent_create_whole(g, 5);
    descent_create_plan(g, self);
    descent_run(g);
}

static void destroy_alone(struct descent *g)
{
    descent_destroy_plan(g);
    descent_destroy_whole(g);
}

static void check_bits(const struct descent *g, const struct descent *alone, const char *name)
{
    MPI_CHECK(same_bits(&g->job, &alone->job), "%s: %s: forward", name, job_text(&g->job));
    for (int i = 0; i < GRADIENTS; i++)
        MPI_CHECK(same_gradient(g, alone, i), "%s: %s: %s", name, job_text(&g->job),
                  gradient_names[i]);
    MPI_CHECK(same_biases(g, alone), "%s: %s: dbias", name, job_text(&g->job));
}

/* Halo brings what the plan's documents leave to be seen, from where the plan's queries stand. */
static bool is_refused(const struct job *job, const struct change *change)
{
    const struct ls_attention_execution *e = &change->execution;
    const bool moves = e->s_q != e->s_k && !change->plan.align_start;

    return strcmp(job->options.method, "halo") == 0 &&
           (moves || (e->documents && e->documents != change->plan.documents));
}

/* Rows behind the execution's end become NaN. */
static void spoil(struct ls_tensor *t, const struct job *job, int which, int64_t end)
{
    for (int64_t row = 0; row < t->dim[1]; row++)
        for (int64_t head = 0; head < t->dim[2] && job_position(job, which, row) >= end; head++)
            memset(row_of(t, 0, row, head), 0xff, row_bytes(t));
}

static void run(struct descent *g, const struct ls_attention_execution *e)
{
    g->job.execution = e;
    descent_load(g);
    for (int i = 0; e && e->has_lengths && i < 3; i++)
        spoil(&g->job.part[i], &g->job, i, i == 0 ? e->s_q : e->s_k);
    if (e && e->has_lengths) spoil(&g->d_o, &g->job, 0, e->s_q);
    MPI_CHECK_OK(descent_forward(g));
    MPI_CHECK_OK(descent_backward(g));
}

/* With it, and then without. */
static void check_method(const struct change *change, int method, const struct descent *as_planned,
                         const struct descent *as_meant)
{
    struct descent g = *as_planned;

    g.job.options = change->plan;
    if (method % 2 == 1) job_take_even_rows(&g.job);
    if (!descent_take_method(&g, method) || is_refused(&g.job, change)) return;
    descent_create_plan(&g, world);
    run(&g, &change->execution);
    check_bits(&g, as_meant, change->name);
    run(&g, NULL);
    check_bits(&g, as_planned, change->name);
    descent_destroy_plan(&g);
}

MPI_TEST(execution, has_the_bits_of_a_plan_made_for_it)
{
    static const struct ls_attention_execution planned = {EXECUTION};
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    draw_pairs(pairs, 900, 900, 5);
    ls_random_normal(pair_biases[0][0], 5, 1, 0, 2 * 900 * 900);
    for (int i = 0; i < 2 * 530; i++)
        memcpy(shorter_biases[i / 530][i % 530], pair_biases[i / 530][i % 530],
               600 * sizeof(float));
    for (int i = 0; i < LENGTH(changes); i++) {
        struct descent as_planned, as_meant;

        create_alone(&as_planned, &changes[i].plan, &planned, self);
        create_alone(&as_meant, &changes[i].meant, &changes[i].execution, self);
        for (int method = 0; method < ls_method_count(); method++)
            check_method(&changes[i], method, &as_planned, &as_meant);
        destroy_alone(&as_meant);
        destroy_alone(&as_planned);
    }
    ls_comm_destroy(self);
}

/* ---- what is refused, on every rank */

/* An execution, on one rank or on all. */
static void check_refused(const struct ls_attention_options *options,
                          const struct ls_attention_execution *execution, ls_status status,
                          const char *says)
{
    struct job job = {.shape = shape, .options = *options};

    job_create(&job, world, 5);
    job_load(&job);
    job.execution = execution;
    MPI_CHECK(job_forward(&job) == status && strstr(ls_message(), says), "%s: %s", says,
              ls_message());
    job.execution = NULL;
    MPI_CHECK_OK(job_forward(&job));
    job_destroy(&job);
}

MPI_TEST(execution, ranks_that_bring_different_ones_are_told)
{
    static const struct ls_attention_options options = {OPTIONS, .dropout = 0.5F};
    static const struct ls_attention_execution seed = {EXECUTION, .has_dropout_seed = true,
                                                       .dropout_seed = UINT64_MAX};
    static const struct ls_attention_execution documents = DOCUMENTS(some);
    static const struct ls_attention_execution lengths = {EXECUTION, LENGTHS(900, 800)};
    const bool last = rank == size - 1;

    if (size == 1) MPI_SKIP("one rank cannot disagree");
    check_refused(&options, last ? &seed : NULL, LS_ESHAPE, "disagree about the seed of dropout");
    check_refused(&options, last ? &documents : NULL, LS_ESHAPE, "disagree about the documents");
    check_refused(&options, last ? &lengths : NULL, LS_ESHAPE,
                  "disagree about the key length: from 800 to 900");
}

MPI_TEST(execution, what_the_plan_is_not_for_is_refused)
{
    static const int64_t falling[] = {0, 500, 400, 900}, too_long[] = {0, 901};
    static const struct ls_attention_options full = {OPTIONS},
                                             halo = {OPTIONS, .method = "halo", .causal = true,
                                                     .has_window = true, .window_left = 9},
                                             balanced = {OPTIONS, .method = "ring", AS(some)};
    static const struct ls_attention_execution documents = DOCUMENTS(others),
                                               disordered = DOCUMENTS(falling),
                                               longer = DOCUMENTS(too_long),
                                               moved = {EXECUTION, LENGTHS(800, 900)},
                                               beyond = {EXECUTION, LENGTHS(900, 901)};

    check_refused(&halo, &documents, LS_EFIT, "method halo sends what those of the plan");
    if (size > 1) check_refused(&balanced, &documents, LS_EFIT, "layout balanced was chosen");
    check_refused(&full, rank == 0 ? &disordered : NULL, LS_EVALUE, "500 is followed by 400");
    check_refused(&full, &longer, LS_EVALUE, "end at 901, the keys at 900");
    check_refused(&halo, &moved, LS_EFIT, "stands at key 100, planned at 0");
    check_refused(&full, rank == 0 ? &beyond : NULL, LS_ESHAPE,
                  "900 queries and 901 keys, must be 0 to the plan's 900 and 900");
}

MPI_TEST(execution, what_no_library_knows_is_refused)
{
    static const struct ls_attention_options options = {OPTIONS};
    static const struct ls_attention_execution empty = {0}, longer = {.size = 4096};

    check_refused(&options, rank == 0 ? &empty : NULL, LS_EVALUE, "execution of 0 bytes");
    check_refused(&options, &longer, LS_EVALUE, "execution of 4096 bytes");
}
