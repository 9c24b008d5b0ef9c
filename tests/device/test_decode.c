/* Attention of few rows, whose bits depend on what a row sees and on nothing beside it. */
#include "harness.h"

static const ls_dtype types[] = {LS_BF16, LS_F16, LS_F32};
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
    {.b = 1, .h = 4, .h_kv = 1, .s_q = 1, .s_k = 1400, .d = 576, .d_v = 512},
    {.b = 1, .h = 2, .h_kv = 2, .s_q = 2, .s_k = 1400, .d = 24, .d_v = 33},
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

/* NaN and infinity wherever row i does not see. */
static void poison(struct problem *p, int64_t i)
{
    struct ls_band bands[MOST_BANDS];
    const struct ls_mask mask = problem_mask(p, bands);

    for (int64_t batch = 0; batch < p->shape.b; batch++) {
        for (int64_t j = 0; j < p->shape.s_k; j++) {
            if (ls_mask_sees(&mask, i, j)) continue;
            for (int64_t head = 0; head < p->shape.h_kv; head++) {
                store_at(&p->k, batch, j, head, j % p->shape.d, NAN);
                store_at(&p->v, batch, j, head, j % p->v.dim[3], j % 2 ? INFINITY : NAN);
            }
        }
    }
}

static void expect_row(const struct problem *p, int64_t i, const struct problem *want,
                       int64_t want_i, const char *what)
{
    const size_t row = (size_t)p->o.dim[3] * (size_t)ls_dtype_size(p->shape.type);

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
        one.options.query_offset = i + problem_rule(p).shift;
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
TEST_EACH_VARIANT(decode, equals_oracle)
TEST_EACH_VARIANT(decode, nothing_unseen_is_used)
TEST_EACH_VARIANT(decode, rows_keep_bits)
