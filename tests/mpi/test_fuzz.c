/* Random cases of everything the command line can ask for, each held to the contract. The line that
 * repeats a case is printed before it runs, so it also stands there if the case crashes or hangs.
 *   LS_FUZZ_SEED   which cases (default 1)
 *   LS_FUZZ_CASES  how many (default 300); LS_TEST_TIMEOUT may have to grow with it
 * The cases are dealt to the numbers of ranks in LS_TEST_NP and to the instruction sets that this
 * CPU has: one test an instruction set, since oneDNN can be limited once a process. Together the
 * tests run each case once. */
#include "attention.h"

#include <inttypes.h>

/* As long as it takes; run_mpi.sh has its own limit. */
TestSuite(fuzz, .init = mpi_up, .fini = mpi_down, .timeout = 86400);

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* ---- the draw */

struct dice {
    uint64_t seed, rolls;
    uint32_t number; /* of the case */
};

/* 0 to sides - 1. */
static int64_t roll(struct dice *dice, int64_t sides)
{
    return (int64_t)ls_random_below(dice->seed, dice->number, dice->rolls++, (uint64_t)sides);
}

struct fuzz_case {
    int number, ranks;
    ls_isa isa;
    bool large; /* some rank has three query leaves and two key leaves */
    struct ls_attention_shape shape;
    struct ls_attention_options options;
    uint64_t seed; /* of the input */
};

/* Few, about a leaf, several leaves. */
static int64_t draw_length(struct dice *dice)
{
    static const int64_t most[] = {8, 300, 900, 2500};

    return 1 + roll(dice, most[roll(dice, COUNT(most))]);
}

/* In every layout 2p leaves are two on each rank, and one more is the third on some rank. */
static void draw_lengths(struct fuzz_case *c, struct dice *dice)
{
    c->shape.s_q = draw_length(dice);
    c->shape.s_k = roll(dice, 3) == 0 ? c->shape.s_q : draw_length(dice);
    if (!c->large) return;
    c->shape.s_q = 2 * c->ranks * LS_LEAF + 1 + roll(dice, 3 * LS_LEAF);
    c->shape.s_k = (2 * c->ranks - 1) * LS_LEAF + 1 + roll(dice, 3 * LS_LEAF);
}

static int64_t draw_head_dim(struct dice *dice)
{
    static const int64_t usual[] = {16, 32, 48, 64, 80, 96, 128, 192, 256};

    return roll(dice, 2) == 0 ? 1 + roll(dice, LS_MAX_HEAD_DIM) : usual[roll(dice, COUNT(usual))];
}

static double pairs(const struct ls_attention_shape *s)
{
    return (double)(s->b * s->h * s->s_q) * (double)s->s_k;
}

/* Makes less of it until it takes well under a second. */
static void shrink(struct ls_attention_shape *s, ls_isa isa)
{
    const double most = isa == LS_ISA_GENERIC ? 8e8 : 4e9; /* multiplications */

    while (pairs(s) * (double)s->d * 2 > most) {
        if (s->b > 1) {
            s->b--;
        } else if (s->h > s->h_kv) {
            s->h -= s->h_kv;
        } else if (s->h_kv > 1) {
            s->h = --s->h_kv;
        } else {
            s->d = (s->d + 1) / 2;
        }
    }
}

static void draw_shape(struct fuzz_case *c, struct dice *dice)
{
    static const ls_dtype types[] = {LS_BF16, LS_F16, LS_F32};

    c->large = c->number % 5 < 2;
    c->shape.type = types[roll(dice, COUNT(types))];
    c->shape.b = 1 + roll(dice, 2);
    c->shape.h_kv = 1 + roll(dice, 3);
    c->shape.h = c->shape.h_kv * (1 + roll(dice, 4));
    c->shape.d = draw_head_dim(dice);
    draw_lengths(c, dice);
    shrink(&c->shape, c->isa);
}

/* One that fits what else was drawn, or none: the plan chooses. */
static const char *draw_method(const struct fuzz_case *c, struct dice *dice)
{
    struct job job = {.shape = c->shape, .options = c->options};
    int number;

    do {
        number = (int)roll(dice, ls_method_count() + 1) - 1;
    } while (number >= 0 && !job_take_method(&job, number, c->ranks));
    return job.options.method;
}

static void draw_options(struct fuzz_case *c, struct dice *dice)
{
    static const float scales[] = {0.0f, 0.03125f, 1.0f, -0.25f, 4.0f};

    c->options.size = sizeof(c->options);
    c->options.layout = (ls_layout_kind)roll(dice, LS_LAYOUT_STRIPED + 1);
    c->options.causal = roll(dice, 2) == 0;
    c->options.strict = roll(dice, 2) == 0;
    c->options.threads = 1 + (int)roll(dice, 3);
    c->options.has_scale = roll(dice, 3) == 0;
    if (c->options.has_scale) c->options.scale = scales[roll(dice, COUNT(scales))];
    c->options.method = draw_method(c, dice);
}

/* ranks: the numbers that the tests are run on. */
static struct fuzz_case draw_case(uint64_t seed, int number, const int *ranks, int count)
{
    struct dice dice = {.seed = seed, .number = (uint32_t)number};
    struct fuzz_case c = {.number = number};

    c.ranks = ranks[roll(&dice, count)];
    c.isa = (ls_isa)roll(&dice, ls_cpu_isa_best() + 1);
    draw_shape(&c, &dice);
    draw_options(&c, &dice);
    c.seed = (uint64_t)roll(&dice, INT64_C(1) << 31);
    return c;
}

/* ---- a case */

/* The command that computes the same. */
static void write_command(char *out, size_t length, const struct fuzz_case *c)
{
    const struct ls_attention_shape *s = &c->shape;
    const struct ls_attention_options *o = &c->options;
    char method[32] = "", layout[32] = "", scale[32] = "";

    if (o->method) snprintf(method, sizeof(method), " --method %s", o->method);
    if (o->layout != LS_LAYOUT_AUTO)
        snprintf(layout, sizeof(layout), " --layout %s", ls_layout_name(o->layout));
    if (o->has_scale) snprintf(scale, sizeof(scale), " --scale=%g", (double)o->scale);
    snprintf(out, length,
             "LONGSPAN_ISA=%s mpirun -n %d longspan attend --random %" PRId64 ",%" PRId64
             ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRIu64
             " --dtype %s%s%s%s%s%s --threads %d --verify=%" PRId64,
             ls_isa_name(c->isa), c->ranks, s->b, s->h, s->h_kv, s->s_q, s->s_k, s->d, c->seed,
             ls_dtype_name(s->type), o->causal ? " --causal" : "", o->strict ? " --strict" : "",
             scale, method, layout, o->threads, s->s_q);
}

static bool has_large_part(const struct job *job)
{
    const struct ls_layout q = job_layout(job, 0), k = job_layout(job, 1);
    bool found = false;

    for (int r = 0; r < size; r++)
        found |= ls_layout_part_leaves(&q, r) >= 3 && ls_layout_part_leaves(&k, r) >= 2;
    return found;
}

static void run_case(const struct fuzz_case *c)
{
    struct job job = {.shape = c->shape, .options = c->options};
    char command[320];

    write_command(command, sizeof(command), c);
    if (rank == 0) fprintf(stderr, "case %d: %s\n", c->number, command);
    job.sample = (int)(pairs(&c->shape) * (double)c->shape.d / 2e8); /* about a second */
    job_create(&job, world, c->seed);
    MPI_CHECK(!c->large || has_large_part(&job), "%s", command);
    job_run(&job);
    job_check(&job, command);
    job_destroy(&job);
}

/* ---- all of an instruction set's */

static uint64_t read_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* The numbers of ranks of this run of the tests; returns how many. */
static int read_ranks(int *out, int most)
{
    const char *text = getenv("LS_TEST_NP");
    char *end;
    int count = 0;

    for (text = text ? text : ""; count < most; text = end) {
        const long ranks = strtol(text, &end, 10);

        if (end == text) break;
        out[count++] = (int)ranks;
    }
    if (count > 0) return count;
    *out = size;
    return 1;
}

static void fuzz(ls_isa isa)
{
    const uint64_t seed = read_number("LS_FUZZ_SEED", 1);
    const int cases = (int)read_number("LS_FUZZ_CASES", 300);
    int ranks[32];
    const int count = read_ranks(ranks, COUNT(ranks));

    if (isa > ls_cpu_isa_best()) MPI_SKIP("this CPU has no %s", ls_isa_name(isa));
    setenv("LONGSPAN_ISA", ls_isa_name(isa), 1);
    for (int i = 0; i < cases; i++) {
        const struct fuzz_case c = draw_case(seed, i, ranks, count);

        if (c.ranks == size && c.isa == isa) run_case(&c);
    }
}

Test(fuzz, generic)
{
    fuzz(LS_ISA_GENERIC);
}

Test(fuzz, avx2)
{
    fuzz(LS_ISA_AVX2);
}

Test(fuzz, avx512)
{
    fuzz(LS_ISA_AVX512);
}

Test(fuzz, avx512bf16)
{
    fuzz(LS_ISA_AVX512BF16);
}

Test(fuzz, amx)
{
    fuzz(LS_ISA_AMX);
}
