/* Dropout keeps the elements that their index says, whoever holds them and whether the mask is
 * stored; sums of two tensors and of what is kept are exact to the rounding. */
#include <fenv.h>
#include <math.h>
#include <stdio.h>

#include "device/pointwise.h"
#include "sheet.h"

enum { E = 301, S = 37, B = 2 };

static const struct ls_dropout dropout = {
    .rate = 0.3F, .seed = UINT64_C(0x123456789abcdef), .stream = 70001};

/* ---- which elements are kept */

static int64_t count_kept(const struct ls_dropout *d, int64_t first_row, int64_t first_column)
{
    int64_t kept = 0;

    for (int64_t row = 0; row < 300; row++)
        for (int64_t k = 0; k < 400; k++)
            kept += ls_dropout_keeps(d, first_row + row, first_column + k);
    return kept;
}

/* Within 4.5 standard deviations, near the origin and where indices need more than 32 bits. */
Test(dropout, keeps_the_right_share)
{
    static const float rates[] = {0.001F, 0.1F, 0.5F, 0.9F};

    for (int i = 0; i < LENGTH(rates); i++)
        for (int far = 0; far <= 1; far++) {
            const struct ls_dropout d = {rates[i], 3, 5};
            const double n = 120000, p = 1 - (double)rates[i];
            const double kept =
                (double)count_kept(&d, far ? INT64_C(1) << 33 : 0, far ? INT64_C(1) << 35 : 0);

            cr_expect_leq(fabs(kept - n * p), 4.5 * sqrt(n * p * (1 - p)), "rate %g: %g kept",
                          (double)rates[i], kept);
        }
}

/* How many of N elements two of them keep alike; half, at a rate of 1/2. */
static int64_t count_alike(const struct ls_dropout *a, const struct ls_dropout *b, int64_t row,
                           int64_t other_row, int64_t column)
{
    int64_t alike = 0;

    for (int64_t k = 0; k < 10000; k++)
        alike += ls_dropout_keeps(a, row, k) == ls_dropout_keeps(b, other_row, k + column);
    return alike;
}

Test(dropout, depends_on_all_of_the_index)
{
    const struct ls_dropout d = {0.5F, 3, 5};
    const struct ls_dropout others[] = {
        {0.5F, 4, 5}, {0.5F, 3 + (UINT64_C(1) << 32), 5}, {0.5F, 3, 6}, {0.5F, 3, 5 + (1u << 31)}};
    const struct {
        int64_t row, column;
    } places[] = {{1, 0}, {INT64_C(1) << 32, 0}, {INT64_C(1) << 45, 0}, {0, 1},
                  {0, 4}, {0, INT64_C(1) << 34}, {0, INT64_C(1) << 40}};

    cr_expect_eq(count_alike(&d, &d, 7, 7, 0), 10000);
    for (int i = 0; i < LENGTH(others); i++)
        cr_expect_float_eq((double)count_alike(&d, &others[i], 7, 7, 0), 5000, 230, "%d", i);
    for (int i = 0; i < LENGTH(places); i++)
        cr_expect_float_eq((double)count_alike(&d, &d, 7, 7 + places[i].row, places[i].column),
                           5000, 230, "place %d", i);
}

/* ---- on the device */

static void run_mask(uint8_t *mask, const struct part *p, int threads)
{
    const int64_t dim[] = {B, p->rows, E};
    const size_t bytes = (size_t)(B * p->rows * E);
    uint8_t *const around = malloc(bytes + 2);
    struct mirror m = {.device = open_device(threads)};

    need_family(m.device->ops->pointwise, "pointwise operations");
    memset(around, SHEET_FILL, bytes + 2);
    ls_dropout_mask(&m.device->queue, (uint8_t *)mirror_result(&m, around, bytes + 2) + 1, dim,
                    &dropout, &p->runs);
    cr_assert_eq(ls_queue_finish(NULL, &m.device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(&m);
    cr_assert(around[0] == SHEET_FILL && around[bytes + 1] == SHEET_FILL);
    memcpy(mask, around + 1, bytes);
    free(around);
    ls_device_close(m.device);
}

static void check_mask(const uint8_t *mask, const struct part *p, const char *what)
{
    for (int64_t i = 0; i < B; i++)
        for (int64_t r = 0; r < p->runs.count; r++)
            for (int64_t j = 0; j < p->run[r].count; j++)
                for (int64_t k = 0; k < E; k++) {
                    const int64_t row = p->run[r].row + j, position = p->run[r].position + j;

                    cr_assert_eq(mask[(i * p->rows + row) * E + k],
                                 ls_dropout_keeps(&dropout, i * p->runs.s + position, k),
                                 "%s: batch %ld row %ld column %ld", what, (long)i, (long)row,
                                 (long)k);
                }
}

static void run_dropout(struct sheet *out, const struct sheet *residual, const struct sheet *x,
                        const uint8_t *mask, const struct ls_dropout *d,
                        const struct ls_row_runs *runs, int threads)
{
    struct mirror m = {.device = open_device(threads)};
    struct ls_tensor there, residual_there, x_there;
    const struct ls_dropout_call call = {
        .out = sheet_result(&there, &m, out),
        .residual = residual == out ? &there
                    : residual      ? mirror_input(&residual_there, &m, &residual->t)
                                    : NULL,
        .x = mirror_input(&x_there, &m, &x->t),
        .mask = mirror_operand(&m, mask, (size_t)(x->t.dim[0] * x->t.dim[1] * x->t.dim[2])),
        .dropout = d,
        .runs = runs,
    };

    ls_dropout(&m.device->queue, &call);
    cr_assert_eq(ls_queue_finish(NULL, &m.device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(&m);
    ls_device_close(m.device);
}

/* What it should be, in f32, rounded once; position[j] of a row. */
static void expect_dropped(const struct sheet *out, const struct sheet *residual,
                           const struct sheet *x, const struct part *p, const char *what)
{
    const float factor = (float)(1 / (1 - (double)dropout.rate));
    struct sheet plain = sheet_create(x->t.type, B, p->rows, E, 0);

    for (int64_t i = 0; i < B; i++)
        for (int64_t r = 0; r < p->runs.count; r++)
            for (int64_t j = p->run[r].row; j < p->run[r].row + p->run[r].count; j++)
                for (int64_t k = 0; k < E; k++) {
                    const int64_t position = p->run[r].position + j - p->run[r].row;
                    const float kept = (float)sheet_load(x, i, j, k) * factor;
                    const float value =
                        ls_dropout_keeps(&dropout, i * p->runs.s + position, k) ? kept : 0;

                    sheet_store(&plain, i, j, k,
                                residual ? (double)((float)sheet_load(residual, i, j, k) + value)
                                         : (double)value);
                }
    sheet_expect_equal(out, &plain, what);
    free(plain.memory);
}

static void check_part(ls_dtype type, const struct part *p, const char *what, int threads)
{
    uint8_t *const mask = malloc((size_t)(B * p->rows * E) + 1);
    struct sheet x = sheet_create(type, B, p->rows, E, 3);
    struct sheet residual = sheet_create(type, B, p->rows, E, 0);
    struct sheet out = sheet_create(type, B, p->rows, E, 5);

    sheet_fill(&x, 1, 1, 0);
    sheet_fill(&residual, 2, 1, 0);
    run_mask(mask, p, threads);
    check_mask(mask, p, what);
    for (int form = 0; form < 4; form++) {
        const struct sheet *const added = form & 1 ? &residual : NULL;

        memset(out.memory, SHEET_FILL, out.bytes);
        run_dropout(&out, added, &x, form & 2 ? mask : NULL, &dropout, &p->runs, threads);
        expect_dropped(&out, added, &x, p, what);
        sheet_expect_untouched_around(&out, what);
    }
    free(mask);
    free(x.memory);
    free(residual.memory);
    free(out.memory);
}

static void is_of_the_index_whatever_the_cut(void)
{
    for (int i = 0; i < CUTS * MOST_PARTS; i++) {
        const int cut = i % CUTS, parts = i / CUTS + 1;

        for (int part = 0; part < parts; part++) {
            struct part p;
            char what[60];

            snprintf(what, sizeof what, "cut %d, part %d of %d", cut, part, parts);
            part_init(&p, S, cut, part, parts);
            check_part(i % 2 ? LS_BF16 : LS_F32, &p, what, i % 5 + 1);
        }
    }
}

/* Rows whose numbers need more than 32 bits. */
static void is_of_the_index_far_into_a_sequence(void)
{
    struct part p = {.runs = {.s = INT64_C(1) << 41}};

    p.runs.run = p.run;
    p.run[p.runs.count++] = (struct ls_row_run){0, 3, (INT64_C(1) << 40) + 5};
    p.rows = 3;
    check_part(LS_BF16, &p, "far", 2);
}

/* Longer than a block, in place of the residual, in the caller's rounding. */
static void may_be_in_place(void)
{
    for (int type = 0; type <= 1; type++) {
        struct sheet x = sheet_create(type ? LS_BF16 : LS_F32, 1, 3, 2500, 1);
        struct sheet residual = sheet_create(x.t.type, 1, 3, 2500, 0);
        struct sheet out = sheet_create(x.t.type, 1, 3, 2500, 0);
        const struct ls_row_run run = {0, 3, 90};
        const struct ls_row_runs runs = {&run, 1, 100};

        need_family(open_device(1)->ops->pointwise, "pointwise operations");
        sheet_fill(&x, 1, 1, 0);
        sheet_fill(&residual, 2, 1, 0);
        run_dropout(&out, &residual, &x, NULL, &dropout, &runs, 1);
        fesetround(FE_UPWARD);
        run_dropout(&residual, &residual, &x, NULL, &dropout, &runs, 2);
        fesetround(FE_TONEAREST);
        sheet_expect_equal(&out, &residual, "in place");
        for (int k = 0; k < 2500; k++)
            cr_assert_eq(sheet_load(&out, 0, 1, k) == sheet_load(&residual, 0, 1, k), true);
        free(x.memory);
        free(residual.memory);
        free(out.memory);
    }
}

/* NaN and infinity that are dropped are gone; those that are kept stay. */
static void drops_what_is_no_number(void)
{
    for (int type = 0; type <= 1; type++) {
        struct sheet x = sheet_create(type ? LS_BF16 : LS_F32, 1, 1, E, 0);
        struct sheet out = sheet_create(x.t.type, 1, 1, E, 0);
        const struct ls_row_run run = {0, 1, 4};
        const struct ls_row_runs runs = {&run, 1, S};

        need_family(open_device(1)->ops->pointwise, "pointwise operations");
        for (int k = 0; k < E; k++) sheet_store(&x, 0, 0, k, k % 2 ? NAN : INFINITY);
        run_dropout(&out, NULL, &x, NULL, &dropout, &runs, 1);
        for (int k = 0; k < E; k++) {
            const double value = sheet_load(&out, 0, 0, k);

            if (ls_dropout_keeps(&dropout, 4, k))
                cr_assert(k % 2 ? isnan(value) : isinf(value), "%d", k);
            else
                cr_assert(value == 0 && !signbit(value), "%d", k);
        }
        free(x.memory);
        free(out.memory);
    }
}

/* Rows that stand nowhere are left as they are; a rate of 0 changes nothing. */
static void leaves_other_rows_alone(void)
{
    static const struct ls_row_run run[] = {{4, 2, 1}, {1, 1, 9}};
    const struct ls_row_runs runs = {run, 2, 30};
    const struct ls_dropout none = {0, 1, 2};
    struct sheet x = sheet_create(LS_BF16, B, 7, E, 0), out = sheet_create(LS_BF16, B, 7, E, 0);

    need_family(open_device(1)->ops->pointwise, "pointwise operations");
    sheet_fill(&x, 1, 1, 0);
    run_dropout(&out, NULL, &x, NULL, &none, &runs, 2);
    for (int i = 0; i < B; i++)
        for (int j = 0; j < 7; j++) {
            const bool is_there = j == 1 || j == 4 || j == 5;
            const uint8_t *const row = sheet_at(&out, i, j, 0);

            for (size_t k = 0; k < sheet_row_bytes(&out); k++)
                cr_assert_eq(row[k], is_there ? ((uint8_t *)sheet_at(&x, i, j, 0))[k] : SHEET_FILL);
        }
    free(x.memory);
    free(out.memory);
}

/* ---- a + b */

static void sums_are_rounded_once(void)
{
    for (int i = 0; i < 20; i++) {
        const ls_dtype type = i % 2 ? LS_BF16 : LS_F32;
        const int64_t e = (const int64_t[]){1, 5, 77, 2100}[i / 2 % 4], gap = i % 3;
        struct sheet a = sheet_create(type, 2, 9, e, gap), b = sheet_create(type, 2, 9, e, 0);
        struct sheet out = sheet_create(type, 2, 9, e, gap);
        struct sheet plain = sheet_create(type, 2, 9, e, 0);
        struct mirror m = {.device = open_device(i % 5 + 1)};
        struct ls_tensor a_there, b_there, out_there;

        need_family(m.device->ops->pointwise, "pointwise operations");
        sheet_fill(&a, 1, 1, 0);
        sheet_fill(&b, 2, 1, 0);
        for (int64_t j = 0; j < 18 * e; j++)
            sheet_store(&plain, j / e / 9, j / e % 9, j % e,
                        (double)((float)sheet_load(&a, j / e / 9, j / e % 9, j % e) +
                                 (float)sheet_load(&b, j / e / 9, j / e % 9, j % e)));
        fesetround(i % 3 ? FE_TONEAREST : FE_UPWARD);
        ls_tensor_add(&m.device->queue, sheet_result(&out_there, &m, &out),
                      mirror_input(&a_there, &m, &a.t), mirror_input(&b_there, &m, &b.t));
        fesetround(FE_TONEAREST);
        cr_assert_eq(ls_queue_finish(NULL, &m.device->queue), LS_OK);
        mirror_read_back(&m);
        sheet_expect_equal(&out, &plain, "a sum");
        sheet_expect_untouched_around(&out, "a sum");
        free(a.memory);
        free(b.memory);
        free(out.memory);
        free(plain.memory);
    }
}

TEST_EACH_VARIANT(dropout, is_of_the_index_whatever_the_cut)
TEST_EACH_VARIANT(dropout, is_of_the_index_far_into_a_sequence)
TEST_EACH_VARIANT(dropout, may_be_in_place)
TEST_EACH_VARIANT(dropout, drops_what_is_no_number)
TEST_EACH_DEVICE(dropout, leaves_other_rows_alone)
TEST_EACH_VARIANT(dropout, sums_are_rounded_once)
