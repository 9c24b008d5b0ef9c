/* Norms are those of the oracle to the last places of f32, and the bits of a row, as those of sums
 * over rows, depend on nothing but the rows. */
#include <fenv.h>
#include <math.h>
#include <stdio.h>

#include "norm_harness.h"
#include "reference/norm.h"

#define U 0x1p-24

static double *row_in_double(const struct sheet *x, int64_t row)
{
    double *const out = malloc((size_t)x->t.dim[2] * sizeof *out);

    for (int64_t k = 0; k < x->t.dim[2]; k++)
        out[k] = sheet_load(x, row / x->t.dim[1], row % x->t.dim[1], k);
    return out;
}

static void expect_near(double value, double exact, double bound, const struct problem *p,
                        const char *what, int64_t row, int64_t column)
{
    const int64_t *dim = p->x.t.dim;

    cr_assert(fabs(value - exact) <= bound,
              "%s %s%s b %ld s %ld e %ld: %s [%ld, %ld] is %.9g for %.9g, error / bound %.3g",
              variant->name, ls_dtype_name(p->x.t.type), p->rms ? " rms" : "", (long)dim[0],
              (long)dim[1], (long)dim[2], what, (long)row, (long)column, value, exact,
              fabs(value - exact) / bound);
}

/* What sums over rows should be, and the sizes of their terms. */
struct totals {
    double *dgamma, *dbeta, *dgamma_size, *dbeta_size;
};

/* Errors are counted in roundings of f32 of the terms as they stand in the formulas; x - mean errs
 * by that of the mean, too. */
static void check_row(const struct result *r, const struct problem *p, int64_t row,
                      struct totals *total)
{
    const int64_t s = p->x.t.dim[1], e = p->x.t.dim[2];
    const double u = p->x.t.type == LS_BF16 ? 0x1p-8 : U;
    double *const x = row_in_double(&p->x, row), *const dy = row_in_double(&p->dy, row);
    double *const gamma = row_in_double(&p->gamma, 0), *const beta = row_in_double(&p->beta, 0);
    double *const y = malloc((size_t)e * sizeof *y), *const dx = malloc((size_t)e * sizeof *dx);
    const struct ls_reference_norm norm = {e, (double)p->epsilon, p->rms, gamma,
                                           p->rms ? NULL : beta};
    const struct ls_reference_statistics exact = ls_reference_norm_statistics(&norm, x);
    const double offset = fabs(exact.mean) * exact.rstd; /* in units of the deviation */
    double size_of_g = 0, size_of_product = 0;

    ls_reference_norm_forward(y, &norm, x);
    ls_reference_norm_backward(dx, total->dgamma, p->rms ? NULL : total->dbeta, &norm, dy, x);
    if (!p->rms)
        expect_near((double)r->mean[row], exact.mean, 2 * U * (fabs(exact.mean) + 1 / exact.rstd),
                    p, "mean", row, 0);
    expect_near((double)r->rstd[row], exact.rstd, 5 * U * exact.rstd, p, "rstd", row, 0);
    for (int64_t k = 0; k < e; k++) {
        const double xhat = (x[k] - exact.mean) * exact.rstd, g = dy[k] * gamma[k];

        size_of_g += p->rms ? 0 : fabs(g) / (double)e;
        size_of_product += fabs(g * xhat) / (double)e;
        total->dgamma_size[k] += fabs(dy[k]) * (fabs(xhat) + offset);
        total->dbeta_size[k] += fabs(dy[k]);
    }
    for (int64_t k = 0; k < e; k++) {
        const double xhat = fabs(x[k] - exact.mean) * exact.rstd + offset;
        const double g = fabs(dy[k] * gamma[k]);
        const double terms =
            exact.rstd * (g + size_of_g + xhat * (size_of_product + offset * size_of_g));
        const double old = p->add ? sheet_load(&p->old, row / s, row % s, k) : 0;

        expect_near(sheet_load(&r->y, row / s, row % s, k), y[k],
                    u * fabs(y[k]) + 5 * U * (xhat * fabs(gamma[k]) + fabs(p->rms ? 0 : beta[k])),
                    p, "y", row, k);
        expect_near(sheet_load(&r->dx, row / s, row % s, k), dx[k] + old,
                    u * fabs(dx[k] + old) + 5 * U * terms, p, "dx", row, k);
    }
    free(x);
    free(dy);
    free(gamma);
    free(beta);
    free(y);
    free(dx);
}

static void check_sums(const struct result *r, const struct problem *p, const struct totals *total)
{
    for (int64_t k = 0; k < p->x.t.dim[2]; k++) {
        expect_near((double)r->dgamma[k], total->dgamma[k], 5 * U * total->dgamma_size[k], p,
                    "dgamma", 0, k);
        if (!p->rms)
            expect_near((double)r->dbeta[k], total->dbeta[k], 4 * U * total->dbeta_size[k], p,
                        "dbeta", 0, k);
    }
}

static void check(const struct problem *p, int threads)
{
    const size_t e = (size_t)p->x.t.dim[2];
    struct totals total = {calloc(e, sizeof(double)), calloc(e, sizeof(double)),
                           calloc(e, sizeof(double)), calloc(e, sizeof(double))};
    struct result r = run(p, 0, 1, threads);

    for (int64_t row = 0; row < p->x.t.dim[0] * p->x.t.dim[1]; row++) check_row(&r, p, row, &total);
    check_sums(&r, p, &total);
    result_destroy(&r);
    free(total.dgamma);
    free(total.dbeta);
    free(total.dgamma_size);
    free(total.dbeta_size);
}

static void are_those_of_the_oracle(void)
{
    static const int64_t lengths[] = {1, 3, 257}, widths[] = {1, 5, 77, 768, 1000};

    for (int i = 0; i < LENGTH(lengths) * LENGTH(widths); i++)
        for (int kind = 0; kind < 8; kind++) {
            struct problem p =
                problem_create(kind & 1 ? LS_BF16 : LS_F32, i % 2 + 1, lengths[i / LENGTH(widths)],
                               widths[i % LENGTH(widths)], kind & 2);

            p.add = kind & 4;
            check(&p, i % 3 + 1);
            problem_destroy(&p);
        }
}

/* The mean of squares less the square of the mean would be lost in rounding. */
static void have_the_variance_of_rows_far_from_zero(void)
{
    static const float means[] = {1000, -1e6F};

    for (int i = 0; i < LENGTH(means); i++)
        for (int64_t e = 100; e <= 4100; e += 4000) {
            struct problem p = problem_create(LS_F32, 1, 9, e, false);

            sheet_fill(&p.x, 6, 1, means[i]);
            check(&p, 1);
            problem_destroy(&p);
        }
}

/* Whose deviation is 0: y is beta. */
static void of_constant_rows_are_beta(void)
{
    for (int type = 0; type <= 1; type++) {
        struct problem p = problem_create(type ? LS_BF16 : LS_F32, 1, 5, 333, false);

        sheet_fill(&p.x, 1, 0, 0.1F);
        struct result r = run(&p, 0, 1, 1);
        for (int64_t k = 0; k < 333; k++)
            cr_assert_eq(sheet_load(&r.y, 0, 4, k), sheet_load(&p.beta, 0, 0, k));
        result_destroy(&r);
        problem_destroy(&p);
    }
}

static void may_be_in_place(void)
{
    for (int kind = 0; kind < 4; kind++) {
        struct problem p = problem_create(kind & 1 ? LS_BF16 : LS_F32, 1, 5, 333, kind & 2);
        struct part_result r = {.rstd = malloc(5 * sizeof(float)),
                                .mean = malloc(5 * sizeof(float))};
        struct result whole = run(&p, 0, 1, 1);
        struct sheet x = sheet_create(p.x.t.type, 1, 5, 333, 3);

        memcpy(x.memory, p.x.memory, x.bytes);
        r.y = x;
        run_forward(&r, &p, &r.y, 2);
        sheet_expect_equal(&whole.y, &x, "in place");
        free(x.memory);
        free(r.mean);
        free(r.rstd);
        result_destroy(&whole);
        problem_destroy(&p);
    }
}

static bool row_is_nan(const struct sheet *x, int64_t i, int64_t j)
{
    bool all = true;

    for (int64_t k = 0; k < x->t.dim[2]; k++) all = all && isnan(sheet_load(x, i, j, k));
    return all;
}

static void have_the_nan_of_their_row_only(void)
{
    for (int kind = 0; kind < 4; kind++) {
        struct problem p = problem_create(kind & 1 ? LS_BF16 : LS_F32, 2, 21, 50, kind & 2);
        struct result clean = run(&p, 0, 1, 2);

        sheet_store(&p.x, 1, 13, 48, NAN);
        struct result r = run(&p, 0, 1, 2);
        cr_expect(row_is_nan(&r.y, 1, 13) && row_is_nan(&r.dx, 1, 13), "kind %d", kind);
        for (int k = 0; k < 50; k++) cr_expect(isnan(r.dgamma[k]), "kind %d", kind);
        memcpy(sheet_at(&r.y, 1, 13, 0), sheet_at(&clean.y, 1, 13, 0), sheet_row_bytes(&r.y));
        memcpy(sheet_at(&r.dx, 1, 13, 0), sheet_at(&clean.dx, 1, 13, 0), sheet_row_bytes(&r.dx));
        sheet_expect_equal(&r.y, &clean.y, "y");
        sheet_expect_equal(&r.dx, &clean.dx, "dx");
        cr_expect(p.rms || memcmp(r.dbeta, clean.dbeta, 50 * sizeof(float)) == 0);
        result_destroy(&r);
        result_destroy(&clean);
        problem_destroy(&p);
    }
}

static void expect_same_bits(const struct result *r, const struct result *other,
                             const struct problem *p, const char *what)
{
    const size_t e = (size_t)p->x.t.dim[2] * sizeof(float);
    const size_t rows = (size_t)(p->x.t.dim[0] * p->x.t.dim[1]) * sizeof(float);

    sheet_expect_equal(&r->y, &other->y, what);
    sheet_expect_equal(&r->dx, &other->dx, what);
    cr_assert_eq(memcmp(r->mean, other->mean, rows), 0, "%s: mean", what);
    cr_assert_eq(memcmp(r->rstd, other->rstd, rows), 0, "%s: rstd", what);
    cr_assert_eq(memcmp(r->dgamma, other->dgamma, e), 0, "%s: dgamma", what);
    cr_assert(p->rms || memcmp(r->dbeta, other->dbeta, e) == 0, "%s: dbeta", what);
}

static void do_not_depend_on_cut_and_threads(void)
{
    for (int kind = 0; kind < 4; kind++) {
        struct problem p = problem_create(kind & 1 ? LS_BF16 : LS_F32, 2, 157, 45, kind & 2);
        struct result r = run(&p, 0, 1, 1);

        for (int i = 0; i < CUTS * MOST_PARTS; i++) {
            char what[80];
            const int cut = i % CUTS, parts = i / CUTS + 1, threads = i % 5 + 1;
            struct result other = run(&p, cut, parts, threads);

            snprintf(what, sizeof what, "kind %d cut %d of %d, %d threads", kind, cut, parts,
                     threads);
            expect_same_bits(&r, &other, &p, what);
            result_destroy(&other);
        }
        result_destroy(&r);
        problem_destroy(&p);
    }
}

static void do_not_depend_on_the_callers_float_mode(void)
{
    struct problem p = problem_create(LS_F32, 1, 40, 33, false);
    struct result r = run(&p, 0, 1, 2);

    fesetround(FE_UPWARD);
    struct result other = run(&p, 0, 1, 2);
    cr_expect_eq(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    expect_same_bits(&r, &other, &p, "rounding");
    result_destroy(&r);
    result_destroy(&other);
    problem_destroy(&p);
}

TEST_EACH_VARIANT(norm, are_those_of_the_oracle)
TEST_EACH_VARIANT(norm, have_the_variance_of_rows_far_from_zero)
TEST_EACH_VARIANT(norm, of_constant_rows_are_beta)
TEST_EACH_DEVICE(norm, may_be_in_place)
TEST_EACH_VARIANT(norm, have_the_nan_of_their_row_only)
TEST_EACH_VARIANT(norm, do_not_depend_on_cut_and_threads)
TEST_EACH_DEVICE(norm, do_not_depend_on_the_callers_float_mode)
