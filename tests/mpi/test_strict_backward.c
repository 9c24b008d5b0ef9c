/* Strict mode: the gradients have the bits of one rank on any number of ranks. Every rank also
 * computes the whole alone, with two threads, and compares its rows. */
#include "gradients.h"

#include "base/cpu.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

/* With tails and without, groups, more ranks than leaves, no queries, no keys. */
static const struct ls_attention_shape shapes[] = {
    {.b = 1, .h = 2, .h_kv = 1, .s_q = 1030, .s_k = 1500, .d = 20, .d_v = 12},
    {.b = 2, .h = 3, .h_kv = 3, .s_q = 600, .s_k = 260, .d = 16},
    {.b = 1, .h = 6, .h_kv = 2, .s_q = 900, .s_k = 900, .d = 9},
    {.b = 1, .h = 5, .h_kv = 1, .s_q = 30, .s_k = 1800, .d = 8},
    {.b = 1, .h = 1, .h_kv = 1, .s_q = 5, .s_k = 0, .d = 16},
    {.b = 1, .h = 1, .h_kv = 1, .s_q = 0, .s_k = 700, .d = 16},
};

static const float sinks[] = {0.5f, -1, 0, 2, 1, -0.25f};

enum { DISTANCES = 301 };

static float biases[6 * DISTANCES], pair_biases[2 * 600 * 260];

static void run_alone(struct descent *g, struct ls_comm *self)
{
    g->job.options.method = "local";
    g->job.options.layout = LS_LAYOUT_CONTIGUOUS;
    g->job.options.threads = 2;
    descent_create_plan(g, self);
    descent_run(g);
}

/* Every method against one rank, in two of the three layouts: which, turns with the problem. */
static void check_problem(int number, ls_dtype type)
{
    const struct ls_attention_shape *shape = &shapes[number];
    const bool causal = number % 2;
    struct descent alone = {.job = {.shape = *shape, .options = LS_ATTENTION_OPTIONS}};
    struct ls_comm *self;

    alone.job.shape.type = type;
    alone.job.options.strict = true;
    alone.job.options.causal = causal;
    alone.job.options.sinks = sinks;
    if (causal) {
        ls_random_normal(biases, 9, 0, 0, LENGTH(biases));
        alone.job.options.distance_bias = biases;
        alone.job.options.distances = DISTANCES;
        ls_random_normal(pair_biases, 9, 1, 0, LENGTH(pair_biases));
        alone.job.options.bias = pair_biases;
        alone.job.options.bias_per_entry = type == LS_F32;
        alone.job.options.bias_per_head = type == LS_BF16;
    }
    alone.residual = causal;
    MPI_CHECK_OK(ls_comm_create_self(&self));
    descent_create_whole(&alone, 31);
    run_alone(&alone, self);
    for (int i = 0; i < ls_method_count() * 2; i++) {
        const int layout = (number + i) % 3;
        struct descent g = alone;

        g.job.options.layout = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + layout);
        g.job.options.threads = 1 + i % 2;
        if (layout == 2) job_take_even_rows(&g.job);
        if (!descent_take_method(&g, i / 2)) continue;
        descent_create_plan(&g, world);
        descent_run(&g);
        for (int which = 0; which < GRADIENTS; which++)
            MPI_CHECK(same_gradient(&g, &alone, which), "%s: %s", job_text(&g.job),
                      gradient_names[which]);
        MPI_CHECK(memcmp(g.dsinks, alone.dsinks, (size_t)shape->h * sizeof *sinks) == 0,
                  "%s: dsinks", job_text(&g.job));
        MPI_CHECK(memcmp(g.ddistance, alone.ddistance,
                         (size_t)descent_distance_count(&g) * sizeof *g.ddistance) == 0,
                  "%s: ddistance_bias", job_text(&g.job));
        MPI_CHECK(same_biases(&g, &alone), "%s: dbias", job_text(&g.job));
        descent_destroy_plan(&g);
    }
    descent_destroy_plan(&alone);
    descent_destroy_whole(&alone);
    ls_comm_destroy(self);
}

static void any_ranks_have_the_bits_of_one(const char *isa_name)
{
    static const ls_dtype types[] = {LS_BF16, LS_F32, LS_F16};
    ls_isa isa;

    if (ls_isa_choose(&isa, isa_name, ls_cpu_isa_best()) != LS_OK)
        MPI_SKIP("this CPU has no %s", isa_name);
    setenv("LONGSPAN_ISA", isa_name, 1);
    for (int i = 0; i < LENGTH(shapes); i++) check_problem(i, types[i % LENGTH(types)]);
}

MPI_SUITE_APART(strict_backward);

#define TEST_ISA(isa)                                                                              \
    Test(strict_backward, isa)                                                                     \
    {                                                                                              \
        any_ranks_have_the_bits_of_one(#isa);                                                      \
    }

TEST_ISA(generic)
TEST_ISA(avx2)
TEST_ISA(avx512)
TEST_ISA(avx512bf16)
TEST_ISA(amx)
