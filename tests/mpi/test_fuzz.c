/* Random cases of everything the command line can ask for, each held to the contract. The line that
 * repeats a case, but for files that are drawn, is printed before it runs, so it also stands there
 * if the case crashes or hangs.
 *   LS_FUZZ_SEED   which cases (default 1)
 *   LS_FUZZ_CASES  how many (default 200); LS_TEST_TIMEOUT may have to grow with it
 * The cases are dealt to the numbers of ranks in LS_TEST_NP and to the instruction sets that this
 * CPU has: one test an instruction set, since oneDNN can be limited once a process. Together the
 * tests run each case once. */
#include "../tensor/masks.h"
#include "gradients.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>

#include "base/cpu.h"

MPI_SUITE_APART(fuzz);

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

enum {
    MOST_DOCUMENTS = 6,
    MOST_SLICES = 9,
    MOST_HEADS = 12,
    MOST_ENTRIES = 2,
    MOST_DISTANCES = 41,
    MOST_PAIR_BYTES = 1 << 22,
    MOST_BIASES = 1 << 22
};

struct fuzz_case {
    int number, ranks;
    ls_isa isa;
    bool large; /* some rank has three query leaves and two key leaves */
    struct ls_attention_shape shape;
    struct ls_attention_options options;
    uint64_t seed; /* of the input */
    int64_t documents[MOST_DOCUMENTS + 1], q_documents[MOST_DOCUMENTS + 1];
    int64_t q_lengths[MOST_ENTRIES], k_lengths[MOST_ENTRIES];
    struct ls_slice slices[MOST_SLICES];
    float slopes[MOST_HEADS], sinks[MOST_HEADS], biases[MOST_HEADS * MOST_DISTANCES];
    bool has_mean; /* one was taken out of keys of 8 bits */
};

/* Few, about a leaf, several leaves. */
static int64_t draw_length(struct dice *dice)
{
    static const int64_t most[] = {8, 300, 900, 2500};

    return 1 + roll(dice, most[roll(dice, COUNT(most))]);
}

/* Now and then there are no keys. In every layout 2p leaves are two on each rank, and one more is
 * the third on some rank. */
static void draw_lengths(struct fuzz_case *c, struct dice *dice)
{
    c->shape.s_q = draw_length(dice);
    c->shape.s_k = roll(dice, 3) == 0 ? c->shape.s_q : draw_length(dice);
    if (roll(dice, 30) == 0) c->shape.s_k = 0;
    if (!c->large) return;
    c->shape.s_q = 2 * c->ranks * LS_LEAF + 1 + roll(dice, 3 * LS_LEAF);
    c->shape.s_k = (2 * c->ranks - 1) * LS_LEAF + 1 + roll(dice, 3 * LS_LEAF);
}

static int64_t draw_head_dim(struct dice *dice)
{
    static const int64_t usual[] = {16, 32, 48, 64, 80, 96, 128, 192, 256, 576};

    return roll(dice, 2) == 0 ? 1 + roll(dice, LS_MAX_HEAD_DIM) : usual[roll(dice, COUNT(usual))];
}

static double pairs(const struct ls_attention_shape *s)
{
    return (double)(s->b * s->h * s->s_q) * (double)s->s_k;
}

/* Makes less of it, but of its length, until it takes well under half a second, or is least. */
static void shrink(struct ls_attention_shape *s, ls_isa isa, bool backward)
{
    double most = isa == LS_ISA_GENERIC ? 4e8 : 2e9; /* multiplications */

    if (backward) most /= 10; /* the oracle is on one rank */
    while (pairs(s) * (double)(s->d + ls_value_dim(s)) > most) {
        if (s->b > 1) {
            s->b--;
        } else if (s->h > s->h_kv) {
            s->h -= s->h_kv;
        } else if (s->h_kv > 1) {
            s->h = --s->h_kv;
        } else if (s->d > 1 || s->d_v > 1) {
            s->d = (s->d + 1) / 2;
            s->d_v = (s->d_v + 1) / 2;
        } else {
            return;
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
    if (roll(dice, 3) == 0) c->shape.d_v = draw_head_dim(dice);
    draw_lengths(c, dice);
    shrink(&c->shape, c->isa, c->options.backward);
}

/* One that fits what else was drawn, or none: the plan chooses. */
static void draw_method(struct fuzz_case *c, struct dice *dice)
{
    struct job job = {.shape = c->shape, .options = c->options};
    int number;

    do {
        number = (int)roll(dice, ls_method_count() + 1) - 1;
    } while (number >= 0 && !job_take_method(&job, number, c->ranks));
    c->options = job.options;
}

/* Nothing, some rows or all that there are. */
static int64_t draw_reach(struct dice *dice, int64_t s)
{
    static const int64_t few[] = {0, 1, 100, LS_LEAF, 3 * LS_LEAF - 1};
    const int64_t i = roll(dice, COUNT(few) + 2);

    if (i == COUNT(few)) return LS_NO_LIMIT;
    return i < COUNT(few) ? few[i] : roll(dice, s + 1);
}

static void draw_list(int64_t *documents, int count, struct dice *dice, int64_t s)
{
    for (int i = 1; i < count; i++) {
        const int64_t before = documents[i - 1];
        documents[i] = before + roll(dice, s - before + 1) / (count - i);
    }
    documents[count] = s;
}

/* Of keys, and now and then of queries as well. */
static void draw_documents(struct fuzz_case *c, struct dice *dice)
{
    const int count = 1 + (int)roll(dice, MOST_DOCUMENTS);

    draw_list(c->documents, count, dice, c->shape.s_k);
    c->options.documents = c->documents;
    c->options.document_count = count;
    if (roll(dice, 3) > 0) return;
    draw_list(c->q_documents, count, dice, c->shape.s_q);
    c->options.q_documents = c->q_documents;
}

static void draw_entries(struct fuzz_case *c, struct dice *dice)
{
    for (int64_t i = 0; i < c->shape.b; i++) {
        c->q_lengths[i] = roll(dice, c->shape.s_q + 1);
        c->k_lengths[i] = roll(dice, c->shape.s_k + 1);
    }
    c->options.q_lengths = roll(dice, 4) > 0 ? c->q_lengths : NULL;
    c->options.k_lengths = roll(dice, 4) > 0 ? c->k_lengths : NULL;
    c->options.pad_left = (c->options.q_lengths || c->options.k_lengths) && roll(dice, 2) == 0;
}

/* [0, s) in up to three parts. */
static void cut_in_three(int64_t cut[4], struct dice *dice, int64_t s)
{
    cut[0] = 0;
    cut[1] = roll(dice, s + 1);
    cut[2] = cut[1] + roll(dice, s - cut[1] + 1);
    cut[3] = s;
}

/* Of each part of the queries and each of the keys, but the first, now and then nothing. */
static void draw_slices(struct fuzz_case *c, struct dice *dice)
{
    int64_t queries[4], keys[4];

    cut_in_three(queries, dice, c->shape.s_q);
    cut_in_three(keys, dice, c->shape.s_k);
    c->options.slices = c->slices;
    for (int i = 0; i < MOST_SLICES; i++) {
        const int64_t type = roll(dice, LS_SLICE_BOTH + 1 + (i > 0));

        if (type > LS_SLICE_BOTH) continue;
        c->slices[c->options.slice_count++] = (struct ls_slice){queries[i / 3], queries[i / 3 + 1],
                                                                keys[i % 3], keys[i % 3 + 1], type};
    }
}

/* Queries in runs of 70, which see all, nothing, or at random. */
static void fill_pairs(uint8_t *bits, int64_t rows, int64_t row_bytes, uint64_t seed)
{
    for (int64_t i = 0; i < rows * row_bytes; i++) {
        const uint64_t way = mixed(seed + (uint64_t)(i / row_bytes / 70)) % 4;

        bits[i] = way == 0 ? 0 : way == 1 ? 0xff : (uint8_t)mixed(seed + (uint64_t)i);
    }
}

static void draw_pair_bits(struct fuzz_case *c, struct dice *dice)
{
    static uint8_t bits[MOST_PAIR_BYTES];
    const struct ls_attention_shape *s = &c->shape;
    struct ls_attention_options *o = &c->options;
    const int64_t row_bytes = (s->s_k + 7) / 8;
    int64_t rows = s->s_q;

    o->pairs_per_entry = roll(dice, 2) == 0;
    o->pairs_per_head = roll(dice, 2) == 0;
    if (o->pairs_per_entry) rows *= s->b;
    if (o->pairs_per_head) rows *= s->h;
    if (rows * row_bytes > MOST_PAIR_BYTES) return;
    fill_pairs(bits, rows, row_bytes, (uint64_t)roll(dice, INT64_C(1) << 31));
    o->pair_bits = bits;
}

/* Quarters from -4 to 4, or every ninth -inf. */
static void draw_biases(struct fuzz_case *c, struct dice *dice)
{
    static float biases[MOST_BIASES];
    const struct ls_attention_shape *s = &c->shape;
    struct ls_attention_options *o = &c->options;
    const bool some_unseen = roll(dice, 2) == 0;
    const uint64_t seed = (uint64_t)roll(dice, INT64_C(1) << 31);
    int64_t n = s->s_q * s->s_k;

    o->bias_per_entry = roll(dice, 2) == 0;
    o->bias_per_head = roll(dice, 2) == 0;
    if (o->bias_per_entry) n *= s->b;
    if (o->bias_per_head) n *= s->h;
    if (n > MOST_BIASES) return;
    for (int64_t i = 0; i < n; i++) {
        const uint64_t drawn = mixed(seed + (uint64_t)i);

        biases[i] = some_unseen && drawn % 9 == 0 ? -INFINITY : (float)(drawn / 9 % 33) / 4 - 4;
    }
    o->bias = biases;
}

/* What a query sees: usually one or two of these. */
static void draw_mask(struct fuzz_case *c, struct dice *dice)
{
    struct ls_attention_options *o = &c->options;
    const struct ls_attention_shape *s = &c->shape;

    o->causal = roll(dice, 2) == 0;
    if (roll(dice, 4) == 0) {
        o->has_window = true;
        o->window_left = draw_reach(dice, s->s_k);
        o->window_right = draw_reach(dice, s->s_k);
    }
    if (roll(dice, 6) == 0) {
        o->align_start = true;
    } else if (roll(dice, 6) == 0) {
        o->has_query_offset = true;
        o->query_offset = roll(dice, s->s_q + s->s_k + 1) - s->s_q;
    }
    if (roll(dice, 5) == 0) o->prefix = roll(dice, s->s_k + 1);
    if (roll(dice, 4) == 0)
        draw_documents(c, dice);
    else if (roll(dice, 4) == 0)
        draw_entries(c, dice);
    if (roll(dice, 5) == 0) draw_slices(c, dice);
    if (roll(dice, 8) == 0) draw_pair_bits(c, dice);
}

/* What lies between a product and a probability: mostly nothing. */
static void draw_scores(struct fuzz_case *c, struct dice *dice)
{
    const int64_t h = c->shape.h;

    if (roll(dice, 8) == 0) c->options.soft_cap = (float)(1 + roll(dice, 40)) / 2;
    if (roll(dice, 8) == 0) {
        ls_alibi_slopes(c->slopes, h);
        c->options.alibi = c->slopes;
    }
    if (roll(dice, 8) == 0) {
        for (int64_t i = 0; i < h; i++) c->sinks[i] = (float)roll(dice, 81) / 8 - 5;
        c->options.sinks = c->sinks;
    }
    if (roll(dice, 8) == 0) {
        c->options.distances = 1 + 2 * roll(dice, MOST_DISTANCES / 2 + 1);
        for (int64_t i = 0; i < h * c->options.distances; i++)
            c->biases[i] = (float)roll(dice, 33) / 4 - 4;
        c->options.distance_bias = c->biases;
    }
    if (roll(dice, 8) == 0) draw_biases(c, dice);
    if (roll(dice, 8) == 0) {
        c->options.dropout = (float)(1 + roll(dice, 7)) / 8;
        c->options.dropout_seed = (uint64_t)roll(dice, INT64_C(1) << 40);
    }
}

static void draw_options(struct fuzz_case *c, struct dice *dice)
{
    static const float scales[] = {0.0f, 0.03125f, 1.0f, -0.25f, 4.0f};

    c->options.size = sizeof(c->options);
    c->options.layout = (ls_layout_kind)roll(dice, LS_LAYOUT_BALANCED + 1);
    draw_mask(c, dice);
    draw_scores(c, dice);
    c->options.strict = roll(dice, 2) == 0;
    c->options.threads = 1 + (int)roll(dice, 3);
    c->options.has_scale = roll(dice, 3) == 0;
    if (c->options.has_scale) c->options.scale = scales[roll(dice, COUNT(scales))];
    draw_method(c, dice);
}

/* Now and then keys and values are of 8 bits. */
static void draw_quantization(struct fuzz_case *c, struct dice *dice)
{
    static const ls_dtype types[] = {LS_I8, LS_E4M3};

    if (c->options.backward || roll(dice, 4) > 0) return;
    c->shape.kv_type = types[roll(dice, COUNT(types))];
    c->has_mean = roll(dice, 2) == 0;
}

/* ranks: the numbers that the tests are run on. */
static void draw_case(struct fuzz_case *c, uint64_t seed, int number, const int *ranks, int count)
{
    struct dice dice = {.seed = seed, .number = (uint32_t)number};

    *c = (struct fuzz_case){.number = number};
    c->ranks = ranks[roll(&dice, count)];
    c->isa = (ls_isa)roll(&dice, ls_cpu_isa_best() + 1);
    c->options.backward = roll(&dice, 3) == 0;
    draw_shape(c, &dice);
    draw_options(c, &dice);
    c->seed = (uint64_t)roll(&dice, INT64_C(1) << 31);
    draw_quantization(c, &dice);
}

/* ---- a case */

struct line {
    char text[1024];
    size_t used;
};

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    line->used += (size_t)vsnprintf(line->text + line->used, sizeof line->text - line->used, format,
                                    arguments);
    va_end(arguments);
    cr_assert_lt(line->used, sizeof line->text);
}

static void add_reach(struct line *line, char before, int64_t reach)
{
    if (reach == LS_NO_LIMIT)
        add(line, "%cinf", before);
    else
        add(line, "%c%" PRId64, before, reach);
}

static void add_list(struct line *line, const char *option, const int64_t *list, int64_t n)
{
    for (int64_t i = 0; list && i < n; i++)
        if (i == 0)
            add(line, " --%s %" PRId64, option, list[0]);
        else
            add(line, ",%" PRId64, list[i]);
}

static void add_mask(struct line *line, const struct ls_attention_options *o, int64_t b)
{
    if (o->causal) add(line, " --causal");
    if (o->align_start) add(line, " --align start");
    if (o->has_query_offset) add(line, " --query-offset=%" PRId64, o->query_offset);
    if (o->prefix) add(line, " --prefix %" PRId64, o->prefix);
    if (o->has_window) {
        add(line, " --window");
        add_reach(line, ' ', o->window_left);
        add_reach(line, ',', o->window_right);
    }
    add_list(line, o->q_documents ? "cu-seqlens-k" : "documents", o->documents,
             o->document_count + 1);
    add_list(line, "cu-seqlens-q", o->q_documents, o->document_count + 1);
    add_list(line, "q-lengths", o->q_lengths, b);
    add_list(line, "k-lengths", o->k_lengths, b);
    if (o->pad_left) add(line, " --padding left");
    if (o->pair_bits)
        add(line, " --mask DRAWN%s%s", o->pairs_per_entry ? "_OF_ENTRIES" : "",
            o->pairs_per_head ? "_OF_HEADS" : "");
    for (int64_t i = 0; i < o->slice_count; i++) {
        const struct ls_slice *s = &o->slices[i];

        add(line, "%s%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64,
            i == 0 ? " --slices " : ",", s->q0, s->q1, s->k0, s->k1, s->type);
    }
}

static void add_scores(struct line *line, const struct ls_attention_options *o, int64_t h)
{
    if (o->has_scale) add(line, " --scale=%g", (double)o->scale);
    if (o->soft_cap != 0) add(line, " --soft-cap %g", (double)o->soft_cap);
    if (o->alibi) add(line, " --alibi");
    for (int64_t i = 0; o->sinks && i < h; i++)
        add(line, "%s%g", i == 0 ? " --sinks=" : ",", (double)o->sinks[i]);
    if (o->distance_bias) add(line, " --distance-bias DRAWN_%" PRId64, o->distances);
    if (o->bias)
        add(line, " --bias DRAWN%s%s", o->bias_per_entry ? "_OF_ENTRIES" : "",
            o->bias_per_head ? "_OF_HEADS" : "");
    if (o->dropout != 0) add(line, " --dropout %g,%" PRIu64, (double)o->dropout, o->dropout_seed);
}

/* The command that computes the same. */
static void write_command(struct line *out, const struct fuzz_case *c)
{
    const struct ls_attention_shape *s = &c->shape;
    const struct ls_attention_options *o = &c->options;

    out->used = 0;
    add(out,
        "LONGSPAN_ISA=%s mpirun -n %d longspan attend --random %" PRId64 ",%" PRId64 ",%" PRId64
        ",%" PRId64 ",%" PRId64 ",%" PRId64 "/%" PRId64 ",%" PRIu64
        " --dtype %s --threads %d --verify=%" PRId64,
        ls_isa_name(c->isa), c->ranks, s->b, s->h, s->h_kv, s->s_q, s->s_k, s->d, ls_value_dim(s),
        c->seed, ls_dtype_name(s->type), o->threads, s->s_q);
    add_mask(out, o, s->b);
    add_scores(out, o, s->h);
    if (o->backward) add(out, " --backward");
    if (s->kv_type)
        add(out, " --kv-dtype %s,DRAWN%s", ls_dtype_name(s->kv_type), c->has_mean ? ",MEAN" : "");
    if (o->strict) add(out, " --strict");
    if (o->method) add(out, " --method %s", o->method);
    if (o->layout != LS_LAYOUT_AUTO) add(out, " --layout %s", ls_layout_name(o->layout));
    if (o->node_size) add(out, " --node-size %d", o->node_size);
}

static bool has_large_part(const struct job *job)
{
    const struct ls_layout q = job_layout(job, 0), k = job_layout(job, 1);
    bool found = false;

    for (int r = 0; r < size; r++)
        found |= ls_layout_part_leaves(&q, r) >= 3 && ls_layout_part_leaves(&k, r) >= 2;
    return found;
}

static void run_backward(const struct fuzz_case *c, const char *command)
{
    struct descent g = {.job = {.shape = c->shape, .options = c->options}, .residual = true};

    descent_create_whole(&g, c->seed);
    descent_create_plan(&g, world);
    descent_run(&g);
    descent_judge(&g, command);
    descent_destroy_plan(&g);
    descent_destroy_whole(&g);
}

static void run_case(const struct fuzz_case *c)
{
    static float mean[MOST_ENTRIES * MOST_HEADS * LS_MAX_HEAD_DIM];
    struct job job = {.shape = c->shape, .options = c->options};
    struct line command;

    draw_mean(mean, COUNT(mean));
    if (c->has_mean) job.mean = mean;

    write_command(&command, c);
    if (rank == 0) fprintf(stderr, "case %d: %s\n", c->number, command.text);
    job.sample = (int)(pairs(&c->shape) * (double)c->shape.d / 1e8); /* about half a second */
    job_create(&job, world, c->seed);
    MPI_CHECK(!c->large || has_large_part(&job), "%s", command.text);
    job_run(&job);
    job_check(&job, command.text);
    job_destroy(&job);
    if (c->options.backward) run_backward(c, command.text);
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
    const int cases = (int)read_number("LS_FUZZ_CASES", 200);
    int ranks[32];
    const int count = read_ranks(ranks, COUNT(ranks));

    if (isa > ls_cpu_isa_best()) MPI_SKIP("this CPU has no %s", ls_isa_name(isa));
    setenv("LONGSPAN_ISA", ls_isa_name(isa), 1);
    for (int i = 0; i < cases; i++) {
        struct fuzz_case c;

        draw_case(&c, seed, i, ranks, count);
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
