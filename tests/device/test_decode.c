/* The products with keys where the caller has them, of every instruction set that this CPU has,
 * against double; and attention of few rows, whose bits depend on what a row sees and on nothing
 * beside it. */
#include "cpu/attention/decode.h"
#include "harness.h"

static const ls_isa isas[] = {LS_ISA_GENERIC, LS_ISA_AVX2, LS_ISA_AVX512};
static const ls_dtype types[] = {LS_BF16, LS_F16, LS_F32};
static const struct key_span spans[] = {{0, 256}, {0, 1},     {255, 256}, {3, 20},
                                        {16, 32}, {100, 101}, {7, 200},   {5, 13}};

/* One leaf of keys whose rows lie `gap` elements apart, NaN in between. */
static struct {
    const struct decode_products *products;
    struct key_rows rows;
    char keys[LS_LEAF * (LS_MAX_HEAD_DIM + 3) * sizeof(float)];
    float q[DECODE_STRIP * LS_MAX_HEAD_DIM], acc[DECODE_STRIP * LS_MAX_HEAD_DIM];
    float s[DECODE_STRIP * LS_LEAF];
} leaf;

static void draw_leaf(ls_isa isa, ls_dtype type, int d, int gap)
{
    float row[LS_MAX_HEAD_DIM];

    leaf.products = decode_find(isa)->decode;
    leaf.rows = (struct key_rows){
        .first = leaf.keys, .stride = (d + gap) * ls_dtype_size(type), .type = type, .d = d};
    memset(leaf.keys, 0xff, sizeof leaf.keys);
    for (int j = 0; j < LS_LEAF; j++) {
        ls_random_normal(row, 7, (uint32_t)d, (uint64_t)j * LS_MAX_HEAD_DIM, d);
        ls_dtype_convert(leaf.keys + j * leaf.rows.stride, type, row, LS_F32, d);
    }
    memset(leaf.q, 0, sizeof leaf.q);
    for (int r = 0; r < DECODE_STRIP; r++)
        ls_random_normal(leaf.q + r * decode_pitch(&leaf.rows), 8, (uint32_t)r, 0, d);
}

static double key_at(int j, int e)
{
    return ls_dtype_load(leaf.rows.type,
                         leaf.keys + j * leaf.rows.stride + e * ls_dtype_size(leaf.rows.type));
}

#define MARK 0x5a

/* Scores of other rows and of other keys are as they were. */
static void expect_untouched(int rows, struct key_span keys)
{
    float mark;

    memset(&mark, MARK, sizeof mark);
    for (int i = 0; i < DECODE_STRIP * LS_LEAF; i++) {
        const int r = i / LS_LEAF, j = i % LS_LEAF;

        if (r < rows && j >= keys.first && j < keys.end) continue;
        cr_assert_eq(leaf.s[i], mark, "%s d %d rows %d keys %d to %d: wrote to [%d][%d]",
                     ls_dtype_name(leaf.rows.type), leaf.rows.d, rows, keys.first, keys.end, r, j);
    }
}

static void check_scores(int rows, struct key_span keys)
{
    memset(leaf.s, MARK, sizeof leaf.s);
    leaf.products->scores(leaf.s, leaf.q, rows, &leaf.rows, keys);
    expect_untouched(rows, keys);
    for (int r = 0; r < rows; r++) {
        for (int j = keys.first; j < keys.end; j++) {
            const float *q = leaf.q + r * decode_pitch(&leaf.rows);
            double exact = 0, size = 0;

            for (int e = 0; e < leaf.rows.d; e++) {
                exact += q[e] * key_at(j, e);
                size += fabs(q[e] * key_at(j, e));
            }
            cr_assert_leq(fabs(leaf.s[r * LS_LEAF + j] - exact), 1e-6 * size,
                          "%s d %d keys %d to %d: [%d][%d] = %g, not %g",
                          ls_dtype_name(leaf.rows.type), leaf.rows.d, keys.first, keys.end, r, j,
                          leaf.s[r * LS_LEAF + j], exact);
        }
    }
}

/* p is the scores of before, NaN outside of `keys`; acc begins with 1. */
static void check_output(int rows, struct key_span keys)
{
    const int pitch = decode_pitch(&leaf.rows);

    for (int i = 0; i < rows * LS_LEAF; i++)
        if (i % LS_LEAF < keys.first || i % LS_LEAF >= keys.end) leaf.s[i] = NAN;
    for (int i = 0; i < rows * pitch; i++) leaf.acc[i] = 1;
    leaf.products->output(leaf.acc, leaf.s, rows, &leaf.rows, keys);
    for (int r = 0; r < rows; r++) {
        for (int e = 0; e < leaf.rows.d; e++) {
            double exact = 1, size = 1;

            for (int j = keys.first; j < keys.end; j++) {
                exact += leaf.s[r * LS_LEAF + j] * key_at(j, e);
                size += fabs(leaf.s[r * LS_LEAF + j] * key_at(j, e));
            }
            cr_assert_leq(fabs(leaf.acc[r * pitch + e] - exact), 2e-6 * size,
                          "%s d %d keys %d to %d: [%d][%d] = %g, not %g",
                          ls_dtype_name(leaf.rows.type), leaf.rows.d, keys.first, keys.end, r, e,
                          leaf.acc[r * pitch + e], exact);
        }
    }
}

Test(decode, products_equal_double)
{
    static const int dims[] = {1, 3, 8, 16, 17, 40, 100, 128, 255, 256};

    for (int i = 0; i < LENGTH(isas); i++) {
        if (isas[i] > ls_cpu_isa_best()) {
            fprintf(stderr, "SKIP: this CPU has no %s\n", ls_isa_name(isas[i]));
            continue;
        }
        for (int c = 0; c < LENGTH(dims) * LENGTH(types) * LENGTH(spans); c++) {
            const int rows = c % 2 ? 1 : DECODE_STRIP;

            draw_leaf(isas[i], types[c % LENGTH(types)], dims[c / 3 % LENGTH(dims)], c / 2 % 2 * 3);
            check_scores(rows, spans[c % LENGTH(spans)]);
            check_output(rows, spans[c % LENGTH(spans)]);
        }
    }
}

/* ---- attention of few rows */

static const int64_t documents[] = {0, 130, 700, 1400};
static const struct ls_attention_options masks[] = {
    {.threads = 1},
    {.causal = true, .threads = 2},
    {.has_window = true, .window_left = 300, .window_right = 2, .threads = 2},
    {.prefix = 40, .has_window = true, .window_left = 90, .threads = 1},
    {.documents = documents, .document_count = 3, .has_query_offset = true, .query_offset = 698},
};

/* A whole strip and rows beside it, one row, several heads. */
static const struct ls_attention_shape shapes[] = {
    {.b = 1, .h = 7, .h_kv = 1, .s_q = 1, .s_k = 1400, .d = 128},
    {.b = 1, .h = 2, .h_kv = 2, .s_q = 8, .s_k = 1400, .d = 40},
    {.b = 2, .h = 4, .h_kv = 2, .s_q = 3, .s_k = 1400, .d = 17},
};

static void each_problem(void (*test)(struct problem *p))
{
    for (int i = 0; i < LENGTH(masks) * LENGTH(shapes); i++) {
        struct problem p = {
            .shape = shapes[i / LENGTH(masks)], .options = masks[i % LENGTH(masks)], .bhsd = i % 2};

        p.shape.type = types[i % LENGTH(types)];
        problem_open(&p);
        cr_assert(has_few_rows(&p));
        test(&p);
        problem_close(&p);
    }
}

static void check_oracle(struct problem *p)
{
    problem_run(p);
    expect_oracle(p, 20);
}

static struct ls_mask mask_of(const struct problem *p)
{
    struct ls_mask mask;

    cr_assert_eq(ls_options_mask(&mask, &p->shape, &p->options), LS_OK, "%s", ls_message());
    return mask;
}

/* NaN and infinity wherever row i does not see. */
static void poison(struct problem *p, int64_t i)
{
    const struct ls_mask mask = mask_of(p);
    const struct ls_visible seen = ls_mask_row(&mask, i);

    for (int64_t batch = 0; batch < p->shape.b; batch++) {
        for (int64_t j = 0; j < p->shape.s_k; j++) {
            if (ls_visible_count(seen, j, 1) > 0) continue;
            for (int64_t head = 0; head < p->shape.h_kv; head++) {
                store_at(&p->k, batch, j, head, j % p->shape.d, NAN);
                store_at(&p->v, batch, j, head, j % p->shape.d, j % 2 ? INFINITY : NAN);
            }
        }
    }
}

static void expect_row(const struct problem *p, int64_t i, const struct problem *want,
                       int64_t want_i, const char *what)
{
    const size_t row = (size_t)p->shape.d * (size_t)ls_dtype_size(p->shape.type);

    for (int64_t n = 0; n < p->shape.b * p->shape.h; n++) {
        const int64_t batch = n / p->shape.h, head = n % p->shape.h;

        cr_expect(memcmp(element_at(&p->lse, batch, head, i),
                         element_at(&want->lse, batch, head, want_i), sizeof(float)) == 0 &&
                      memcmp(element_at(&p->o, batch, i, head),
                             element_at(&want->o, batch, want_i, head), row) == 0,
                  "%s: row %ld head %ld %s", problem_name(p), (long)i, (long)head, what);
    }
}

static void check_poison(struct problem *p)
{
    struct problem clean = *p;

    problem_open(&clean);
    problem_run(&clean);
    poison(p, p->shape.s_q - 1);
    problem_run(p);
    expect_row(p, p->shape.s_q - 1, &clean, p->shape.s_q - 1, "is changed by what it does not see");
    problem_close(&clean);
}

/* Each row of each head alone, on another number of threads. */
static void check_rows_alone(struct problem *p)
{
    problem_run(p);
    for (int64_t i = 0; i < p->shape.s_q; i++) {
        struct problem one = *p;

        one.shape.s_q = 1;
        one.options.has_query_offset = true;
        one.options.query_offset = i + mask_of(p).shift;
        one.options.threads = 3 - (int)p->options.threads;
        problem_open(&one);
        for (int64_t n = 0; n < p->shape.b * p->shape.h; n++)
            memcpy(element_at(&one.q, n / p->shape.h, 0, n % p->shape.h),
                   element_at(&p->q, n / p->shape.h, i, n % p->shape.h),
                   (size_t)p->shape.d * (size_t)ls_dtype_size(p->shape.type));
        problem_run(&one);
        expect_row(p, i, &one, 0, "is not what it is alone");
        problem_close(&one);
    }
}

static void equals_oracle(void)
{
    each_problem(check_oracle);
}

static void nothing_unseen_is_used(void)
{
    each_problem(check_poison);
}

static void rows_keep_bits(void)
{
    each_problem(check_rows_alone);
}

TestSuite(decode, .timeout = 600);
TEST_EACH_ISA(decode, equals_oracle)
TEST_EACH_ISA(decode, nothing_unseen_is_used)
TEST_EACH_ISA(decode, rows_keep_bits)
