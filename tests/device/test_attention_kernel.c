/* The whole kernel, through a plan on one rank, is the oracle's within the contract, on every
 * instruction set that this CPU has; the number of threads changes no bit. */
#include "harness.h"

static const ls_dtype types[] = {LS_BF16, LS_F16, LS_F32};
static const int64_t dims[] = {1, 3, 16, 40, 64, 80, 96, 128, 200, 256};
static const struct {
    int64_t s_q, s_k;
} lengths[] = {
    {1, 1},    {2, 17},    {17, 2},   {255, 256}, {256, 255}, {257, 257}, {1, 1030},
    {700, 17}, {256, 700}, {17, 257}, {700, 257}, {2, 2},     {257, 700}, {1030, 1},
};
static const struct {
    int64_t b, h, h_kv;
} heads[] = {{1, 1, 1}, {1, 4, 2}, {2, 3, 1}, {2, 2, 2}};
static const float scales[] = {0, -0.25f, 3};

/* Case number i; the sizes of the tables above share no factor that would hide a pair. */
static struct problem problem_at(int i)
{
    const int len = i % LENGTH(lengths), head = (i / 3 + i) % LENGTH(heads);
    struct problem p = {
        .shape = {.b = heads[head].b,
                  .h = heads[head].h,
                  .h_kv = heads[head].h_kv,
                  .s_q = lengths[len].s_q,
                  .s_k = lengths[len].s_k,
                  .d = dims[(i / 2 + i / 7) % LENGTH(dims)],
                  .d_v = i % 3 == 0 ? 0 : dims[i % LENGTH(dims)],
                  .type = types[i % LENGTH(types)]},
        .options = {.causal = i / 2 % 2, .has_scale = i % 5 == 0, .scale = scales[i / 5 % 3]},
        .bhsd = i / 4 % 2,
    };

    problem_open(&p);
    return p;
}

static void equals_oracle(void)
{
    for (int i = 0; i < 120; i++) {
        struct problem p = problem_at(i);
        void *o, *lse;

        problem_results(&o, &lse, &p);
        expect_oracle(&p, 20);
        p.options.threads = 2;
        expect_same_bits(&p, o, lse, "one thread or two");
        free(o);
        free(lse);
        problem_close(&p);
    }
}

/* More rows than a tile, several leaves of both sides, a group that does not divide a tile. */
static void equals_oracle_when_long(void)
{
    static const struct problem cases[] = {
        {.shape = {1, 2, 1, 1030, 1030, 64, LS_BF16, 0}, .options = {.causal = true}},
        {.shape = {1, 3, 1, 300, 1500, 48, LS_F32, 0}, .options = {.causal = true}},
        {.shape = {1, 1, 1, 515, 2100, 96, LS_BF16, 0}},
        {.shape = {1, 1, 1, 1030, 700, 32, LS_F16, 0}, .options = {.causal = true}},
        {.shape = {2, 4, 2, 530, 300, 24, LS_F32, 0}, .options = {.causal = true, .threads = 2}},
    };

    for (int c = 0; c < LENGTH(cases); c++) {
        struct problem p = cases[c];

        problem_open(&p);
        problem_run(&p);
        expect_oracle(&p, 50);
        problem_close(&p);
    }
}

/* Few tiles and many keys: the keys are dealt to the threads, the tree stays. */
static void one_query_has_the_same_bits_on_any_threads(void)
{
    struct problem p = {.shape = {1, 1, 1, 1, 100000, 16, LS_BF16, 0}};
    void *o, *lse;

    problem_open(&p);
    problem_results(&o, &lse, &p);
    expect_oracle(&p, 1);
    for (p.options.threads = 2; p.options.threads <= 5; p.options.threads++)
        expect_same_bits(&p, o, lse, "threads");
    free(o);
    free(lse);
    problem_close(&p);
}

/* More packed keys than the kernel holds at once. */
static void several_waves_equal_oracle(void)
{
    struct problem p = {.shape = {35, 1, 1, 3, 1000, 256, LS_F32, 0}, .options = {.threads = 2}};

    problem_open(&p);
    problem_run(&p);
    expect_oracle(&p, 3);
    problem_close(&p);
}

TestSuite(attention_kernel, .timeout = 600);
TEST_EACH_VARIANT(attention_kernel, equals_oracle)
TEST_EACH_VARIANT(attention_kernel, equals_oracle_when_long)
TEST_EACH_VARIANT(attention_kernel, one_query_has_the_same_bits_on_any_threads)

static void several_waves(void)
{
    several_waves_equal_oracle();
}

TEST_EACH_DEVICE(attention_kernel, several_waves)
