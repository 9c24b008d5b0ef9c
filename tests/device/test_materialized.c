/* The core that keeps its probabilities against the same in double: types, shapes, groups of heads,
 * parts of the queries, dropout; what it keeps, and what its kernel takes. */
#include "materialized_harness.h"
#include "tensor/scores.h"

/* ---- the verdict */

struct squares {
    double error, twin, truth;
};

static void add_square(struct squares *s, double found, double twin, double truth)
{
    s->error += (found - truth) * (found - truth);
    s->twin += (twin - truth) * (twin - truth);
    s->truth += truth * truth;
}

/* f32 by itself; bf16 by the twin, whose result is rounded as well. */
static void expect_near(const struct problem *p, const struct squares *s, const char *what)
{
    const double error = sqrt(s->error), norm = sqrt(s->truth), twin = sqrt(s->twin);
    const double limit = p->shape.type == LS_F32 ? 2e-6 * norm : 1.15 * twin + 1e-4 * norm;

    cr_expect(error <= limit + 1e-12,
              "%s %s, b %ld h %ld/%ld s %ld d %ld, %s%s: error %g, limit %g", variant->name, what,
              (long)p->shape.b, (long)p->shape.h, (long)p->shape.h_kv, (long)p->shape.s,
              (long)p->shape.d, ls_dtype_name(p->shape.type), p->shape.causal ? " causal" : "",
              error / norm, limit / norm);
}

static double stored(const struct problem *p, double value)
{
    return ls_reference_rounded(p->shape.type, value);
}

static void expect_rows(const struct problem *p, const struct exact *truth,
                        const struct exact *twin)
{
    const struct ls_materialized_shape *n = &p->shape;
    const int64_t hd = n->h * n->d;
    struct squares o = {0}, dq = {0};

    for (int64_t i = 0; i < n->b * n->rows * hd; i++) {
        const int64_t row = i / hd, column = i % hd;
        const int64_t at = row / n->rows * n->s + position_of(p, row % n->rows);

        add_square(&o, element(p, p->o, i), stored(p, twin->o[at * hd + column]),
                   truth->o[at * hd + column]);
        add_square(&dq, element(p, p->dq, i), stored(p, twin->dqkv[at * p->width + column]),
                   truth->dqkv[at * p->width + column]);
    }
    expect_near(p, &o, "o");
    expect_near(p, &dq, "dq");
}

/* dk [b, h, s, d], whose groups of heads are added. */
static void expect_keys(const struct problem *p, const float *sums, int64_t column,
                        const struct exact *truth, const struct exact *twin, const char *what)
{
    const struct ls_materialized_shape *n = &p->shape;
    const int64_t group = n->h / n->h_kv, d = n->d;
    struct squares squares = {0};

    for (int64_t i = 0; i < n->b * n->s * n->h_kv * d; i++) {
        const int64_t row = i / (n->h_kv * d), kv = i / d % n->h_kv, e = i % d;
        const int64_t at = row * p->width + column + kv * d + e;
        double sum = 0;

        for (int64_t head = kv * group; head < (kv + 1) * group; head++)
            sum += (double)sums[((row / n->s * n->h + head) * n->s + row % n->s) * d + e];
        add_square(&squares, sum, twin->dqkv[at], truth->dqkv[at]);
    }
    expect_near(p, &squares, what);
}

/* What is kept: a row of probabilities adds up to 1 where it sees, the mask is that of dropout, and
 * what is dropped is made of both. */
static void expect_kept_row(const struct problem *p, int64_t pair, int64_t row)
{
    const struct ls_materialized_shape *n = &p->shape;
    const struct ls_scores scores = {.dropout = n->dropout, .seed = p->seed, .heads = n->heads};
    const int64_t at = (pair * n->rows + row) * n->s, position = position_of(p, row);
    const int64_t seen = n->causal ? position + 1 : n->s;
    const double keep = (double)(1 / (1 - n->dropout));
    bool *kept = malloc((size_t)n->s);
    double sum = 0;

    ls_dropout_kept(kept, &scores, pair / n->h, n->first_head + pair % n->h, position, 0,
                    (int)n->s);
    for (int64_t j = 0; j < n->s; j++) {
        const double softmax = element(p, p->softmax, at + j);

        cr_assert(j < seen ? softmax >= 0 : softmax == 0, "key %ld of row %ld", (long)j, (long)row);
        sum += softmax;
        if (n->dropout == 0) continue;
        cr_assert_eq(p->mask[at + j], j < seen && kept[j], "%s: mask of key %ld", variant->name,
                     (long)j);
        cr_assert_float_eq(element(p, p->dropped, at + j),
                           p->mask[at + j] ? stored(p, softmax * keep) : 0, 2e-7 * softmax,
                           "what is dropped of key %ld", (long)j);
    }
    cr_assert_float_eq(sum, 1, n->type == LS_F32 ? 2e-6 : 3e-3, "row %ld adds up to %g", (long)row,
                       sum);
    free(kept);
}

static void expect_exact(const struct problem *p)
{
    const struct ls_materialized_shape *n = &p->shape;
    struct exact truth = solve(p, LS_F64), twin = solve(p, n->type);

    for (int64_t i = 0; i < n->b * n->h * n->rows; i++)
        expect_kept_row(p, i / n->rows, i % n->rows);
    expect_rows(p, &truth, &twin);
    if (p->step == 1) {
        expect_keys(p, p->dk, n->h * n->d, &truth, &twin, "dk");
        expect_keys(p, p->dv, (n->h + n->h_kv) * n->d, &truth, &twin, "dv");
    }
    exact_close(&twin);
    exact_close(&truth);
}

/* ---- tests */

static const struct problem cases[] = {
    {.shape = {.type = LS_F32, .b = 1, .h = 1, .h_kv = 1, .d = 1, .s = 1}, .step = 1, .threads = 2},
    {.shape = {.type = LS_F32, .b = 2, .h = 2, .h_kv = 2, .d = 8, .s = 33, .causal = true},
     .step = 1,
     .threads = 3},
    {.shape = {.type = LS_BF16, .b = 1, .h = 4, .h_kv = 2, .d = 48, .s = 300, .dropout = 0.2F},
     .step = 1,
     .threads = 2},
    {.shape = {.type = LS_F32,
               .b = 1,
               .h = 6,
               .h_kv = 2,
               .d = 40,
               .s = 530,
               .dropout = 0.1F,
               .causal = true},
     .step = 1,
     .threads = 4},
    {.shape = {.type = LS_BF16, .b = 2, .h = 1, .h_kv = 1, .d = 70, .s = 290, .causal = true},
     .step = 1,
     .threads = 1},
    {.shape = {.type = LS_BF16,
               .b = 1,
               .h = 1,
               .h_kv = 1,
               .d = 33,
               .s = 1100,
               .dropout = 0.5F,
               .causal = true},
     .step = 2,
     .first = 1,
     .threads = 2},
    {.shape = {.type = LS_F32, .b = 1, .h = 1, .h_kv = 1, .d = 8, .s = 700},
     .step = 2,
     .threads = 2},
};

static void results_are_exact(void)
{
    for (int i = 0; i < LENGTH(cases); i++) {
        struct problem p = cases[i];

        p.seed = 1 + (uint64_t)i;
        problem_open(&p);
        run(&p);
        expect_exact(&p);
        problem_close(&p);
    }
}

TEST_EACH_VARIANT(materialized, results_are_exact)

/* Parts of the queries: rows have the bits that they have among all, and dk and dv add up. */
static void parts_are_those_of_the_whole(void)
{
    struct problem whole = cases[3], part = cases[3];

    whole.threads = part.threads = 2;
    part.step = 2;
    problem_open(&whole);
    run(&whole);
    const struct ls_materialized_shape *n = &whole.shape;
    const int64_t keys = n->b * n->h * n->s * n->d, row = n->h * n->d;
    double *sum = calloc((size_t)keys, sizeof *sum);

    for (part.first = 0; part.first < 2; part.first++) {
        problem_open(&part);
        run(&part);
        for (int64_t i = 0; i < part.shape.rows; i++) {
            const size_t at = (size_t)(position_of(&part, i) * row) * 4,
                         here = (size_t)(i * row) * 4;

            cr_assert_eq(memcmp(part.o + here, whole.o + at, (size_t)row * 4), 0, "o");
            cr_assert_eq(memcmp(part.dq + here, whole.dq + at, (size_t)row * 4), 0, "dq");
        }
        for (int64_t i = 0; i < keys; i++) sum[i] += (double)part.dk[i];
        problem_close(&part);
    }
    for (int64_t i = 0; i < keys; i++)
        cr_assert_float_eq(sum[i], (double)whole.dk[i], 1e-5 + 1e-5 * fabs(sum[i]), "dk %ld",
                           (long)i);
    free(sum);
    problem_close(&whole);
}

TEST_EACH_VARIANT(materialized, parts_are_those_of_the_whole)

static void expect_sum(const struct problem *p, int64_t sum, struct problem part)
{
    const int64_t n = sum_elements(p);

    problem_open(&part);
    run(&part);
    cr_assert_eq(memcmp(p->dk + sum * n, part.dk, (size_t)n * sizeof(float)), 0, "dk %ld",
                 (long)sum);
    cr_assert_eq(memcmp(p->dv + sum * n, part.dv, (size_t)n * sizeof(float)), 0, "dv %ld",
                 (long)sum);
    problem_close(&part);
}

/* Several sums of one call: each has the bits that it has alone, that of no queries is 0. */
static void sums_are_of_their_queries(void)
{
    struct problem p = cases[3], first = cases[3], others = cases[3];

    p.sums = 3;
    memcpy(p.first_run, (int64_t[]){0, 1, 3, 3}, 4 * sizeof *p.first_run);
    problem_open(&p);
    run(&p);
    first.step = p.runs.count;
    others.first = 1;
    expect_sum(&p, 0, first);
    expect_sum(&p, 1, others);
    for (int64_t i = 2 * sum_elements(&p); i < 3 * sum_elements(&p); i++)
        cr_assert(p.dk[i] == 0 && p.dv[i] == 0, "%ld", (long)i);
    problem_close(&p);
}

TEST_EACH_VARIANT(materialized, sums_are_of_their_queries)

/* Heads of a rank are some of the model's. */
static void masks_are_of_heads_of_the_whole(void)
{
    struct problem p = {
        .shape = {.type = LS_F32, .b = 2, .h = 2, .h_kv = 1, .d = 8, .s = 140, .dropout = 0.4F},
        .step = 1,
        .threads = 1};

    p.shape.first_head = 3;
    problem_open(&p);
    run(&p);
    for (int64_t i = 0; i < p.shape.b * p.shape.h * p.shape.rows; i++)
        expect_kept_row(&p, i / p.shape.rows, i % p.shape.rows);
    problem_close(&p);
}

TEST_EACH_VARIANT(materialized, masks_are_of_heads_of_the_whole)

/* Whatever the threads, and whether o is wanted: what is kept has the same bits. */
static void bits_do_not_depend_on_threads(void)
{
    for (int i = 2; i < 5; i++) {
        struct problem one = cases[i], many = cases[i];
        const struct ls_materialized_shape *n = &one.shape;

        one.threads = 1;
        many.threads = 5;
        problem_open(&one);
        problem_open(&many);
        run(&one);
        run(&many);
        const size_t kept = (size_t)(n->b * n->h * n->rows * n->s);
        const size_t rows = (size_t)(n->b * n->rows * n->h * n->d) * size_of(&one);
        const size_t keys = (size_t)(n->b * n->h * n->s * n->d) * sizeof(float);

        cr_assert_eq(memcmp(one.o, many.o, rows), 0, "o");
        cr_assert_eq(memcmp(one.dq, many.dq, rows), 0, "dq");
        cr_assert_eq(memcmp(one.dk, many.dk, keys), 0, "dk");
        cr_assert_eq(memcmp(one.dv, many.dv, keys), 0, "dv");
        struct ls_device *device = open_device(2);
        struct ls_materialized_kernel *kernel = open_kernel(&many, device);

        memset(many.softmax, 0xff, kept * size_of(&many));
        memset(many.o, 0xff, rows);
        run_forward(&many, device, kernel, false);
        cr_assert_eq(memcmp(one.softmax, many.softmax, kept * size_of(&many)), 0, "softmax");
        cr_assert_eq(memcmp(one.dropped, many.dropped, kept * size_of(&many)), 0, "dropped");
        for (size_t j = 0; j < rows; j++)
            cr_assert_eq((unsigned char)many.o[j], 0xff, "o is alone");
        ls_materialized_kernel_destroy(device, kernel);
        ls_device_close(device);
        problem_close(&many);
        problem_close(&one);
    }
}

TEST_EACH_VARIANT(materialized, bits_do_not_depend_on_threads)

/* The device's own gradient: sum (d_o o) along a direction in q, k and v. */
static double value(struct problem *p)
{
    const int64_t n = p->shape.b * p->shape.rows * p->shape.h * p->shape.d;
    double sum = 0;

    run(p);
    for (int64_t i = 0; i < n; i++) sum += element(p, p->o, i) * p->exact_d[i];
    return sum;
}

static double slope(const struct problem *p, const float *direction)
{
    const struct ls_materialized_shape *n = &p->shape;
    const int64_t d = n->d, h = n->h;
    double sum = 0;

    for (int64_t i = 0; i < n->s * h * d; i++)
        sum += element(p, p->dq, i) * (double)direction[i / (h * d) * p->width + i % (h * d)];
    for (int64_t i = 0; i < h * n->s * d; i++) {
        const int64_t head = i / (n->s * d), row = i / d % n->s;
        const float *at = direction + row * p->width + (h + head) * d + i % d;

        sum += (double)p->dk[i] * (double)at[0] + (double)p->dv[i] * (double)at[h * d];
    }
    return sum;
}

static void gradients_are_derivatives(void)
{
    struct problem p = {.shape = {.type = LS_F32,
                                  .b = 1,
                                  .h = 2,
                                  .h_kv = 2,
                                  .d = 16,
                                  .s = 40,
                                  .dropout = 0.3F,
                                  .causal = true},
                        .step = 1,
                        .threads = 2};
    const float h = 0x1p-7F;

    problem_open(&p);
    const int64_t n = p.shape.s * p.width;
    float *at = (float *)(void *)p.qkv, *direction = malloc((size_t)n * sizeof *direction);

    ls_random_normal(direction, 23, 0, 0, n);
    run(&p);
    const double expected = slope(&p, direction);
    for (int64_t i = 0; i < n; i++) at[i] += h * direction[i];
    const double above = value(&p);
    for (int64_t i = 0; i < n; i++) at[i] -= 2 * h * direction[i];
    const double found = (above - value(&p)) / (2 * (double)h);
    cr_assert_float_eq(found, expected, 2e-3 * fabs(expected) + 2e-3, "%s: %g, not %g",
                       variant->name, found, expected);
    free(direction);
    problem_close(&p);
}

TEST_EACH_VARIANT(materialized, gradients_are_derivatives)

/* Large logits neither overflow nor lose their key; NaN of a key that is seen stays. */
static void extremes_are_kept(void)
{
    struct problem p = {.shape = {.type = LS_F32, .b = 1, .h = 1, .h_kv = 1, .d = 4, .s = 40},
                        .step = 1,
                        .threads = 1};

    problem_open(&p);
    float *row = (float *)(void *)p.qkv;
    for (int64_t i = 0; i < 40; i++)
        for (int e = 0; e < 4; e++) {
            row[i * 12 + e] = 1e4F;
            row[i * 12 + 4 + e] = (float)i;
        }
    run(&p);
    for (int64_t i = 0; i < 40 * 40; i++)
        cr_assert_eq(element(&p, p.softmax, i), i % 40 == 39, "%s: key %ld", variant->name,
                     (long)(i % 40));
    row[5 * 12] = NAN;
    run(&p);
    for (int64_t i = 0; i < 40 * 40; i++)
        cr_assert_eq(isnan(element(&p, p.softmax, i)), i / 40 == 5, "row %ld", (long)(i / 40));
    problem_close(&p);
}

TEST_EACH_VARIANT(materialized, extremes_are_kept)

static void kernels_take_what_they_say(void)
{
    for (int i = 0; i < LENGTH(cases); i++) {
        struct problem p = cases[i];
        struct ls_device *device = open_device(p.threads);

        problem_open(&p);
        const size_t before = ls_ledger_live_total(ls_device_ledger(device));
        struct ls_materialized_kernel *kernel = open_kernel(&p, device);
        const size_t taken = ls_ledger_live_total(ls_device_ledger(device)) - before;

        cr_assert_eq(taken, ls_materialized_kernel_bytes(device, &p.shape));
        ls_materialized_kernel_destroy(device, kernel);
        cr_assert_eq(ls_ledger_live_total(ls_device_ledger(device)), before);
        problem_close(&p);
        ls_device_close(device);
    }
}

TEST_EACH_DEVICE(materialized, kernels_take_what_they_say)

static void other_types_are_refused(void)
{
    const struct ls_materialized_shape shape = {
        .type = LS_F16, .b = 1, .h = 1, .h_kv = 1, .d = 4, .rows = 3, .s = 3};
    struct ls_device *device = open_device(1);
    struct ls_materialized_kernel *kernel;

    need_family(device->ops->materialized, "materialized attention");
    cr_assert_eq(ls_materialized_kernel_create(&kernel, device, &shape), LS_ETYPE);
    cr_assert(strstr(ls_message(), "not of f16"), "%s", ls_message());
    ls_device_close(device);
}

TEST_EACH_DEVICE(materialized, other_types_are_refused)
