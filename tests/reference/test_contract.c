#include <criterion/criterion.h>
#include <float.h>
#include <math.h>

#include "plain.h"
#include "reference/contract.h"
#include "tensor/dtype.h"

Test(contract, limits_are_the_table)
{
    static const struct {
        ls_dtype storage;
        double kappa, rnd, factor, rel_o;
    } cases[] = {
        {LS_F32, 10, 0, 1, 2e-6},    {LS_F32, 60, 0, 1, 4e-6},  {LS_F32, 60, 0, 2, 8e-6},
        {LS_BF16, 60, 0, 1, 3e-3},   {LS_BF16, 60, 0, 2, 6e-3}, {LS_BF16, 1, 3e-3, 1, 3.9e-3},
        {LS_BF16, 1, 2e-3, 1, 3e-3}, {LS_F16, 60, 0, 1, 5e-4},  {LS_F16, 1, 1e-3, 1, 1.3e-3},
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct ls_verdict verdict;
        struct ls_errors errors;

        ls_errors_init(&errors);
        errors.norm2 = errors.spread2 = 25;
        errors.round2 = 25 * cases[c].rnd * cases[c].rnd;
        errors.kappa = cases[c].kappa;
        errors.compared = 1;
        ls_errors_judge(&verdict, &errors, cases[c].storage, cases[c].factor);
        cr_expect_float_eq(verdict.rel_o_limit, cases[c].rel_o, 1e-9 * cases[c].rel_o, "case %zu",
                           c);
        cr_expect(verdict.ok);
    }
}

/* Judges one row of 64 elements whose lse errs. */
static struct ls_verdict judge_lse(ls_dtype storage, double kappa, double bias, double exact,
                                   double error, double factor)
{
    static const double o[LS_MAX_HEAD_DIM];
    const struct ls_reference_row row = {.m = exact, .l = 1, .kappa = kappa, .bias = bias};
    struct ls_verdict verdict;
    struct ls_errors errors;

    ls_errors_init(&errors);
    ls_errors_add_row(&errors, storage, o, exact + error, &row, 64, 64, (const int64_t[]){0, 0, 0});
    ls_errors_judge(&verdict, &errors, storage, factor);
    return verdict;
}

/* Against docs/NUMERICS.md for 64 elements, each of its terms in turn the largest. */
Test(contract, the_limit_of_lse_is_the_formula)
{
    static const struct {
        ls_dtype storage;
        double kappa, bias, lse, limit;
    } cases[] = {
        {LS_F32, 0, 0, 0.5, 1e-6},
        {LS_F32, 0, 0, -20, 20e-6},
        {LS_F32, 30, 0, 1, 302 * 0x1p-24},
        {LS_F32, 30, 0, -9, 302 * 0x1p-24},
        {LS_F32, 30, 0, 100, 1e-4},
        {LS_F32, 10, 20, 3, 302 * 0x1p-24},
        {LS_BF16, 30, 0, 1, 2e-5},
        {LS_BF16, 30, 0, 40, 8e-4},
        {LS_F16, 3e4, 0, 1, 300002 * 0x1p-24},
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (int factor = 1; factor <= 2; factor++) {
            for (int over = -1; over <= 1; over += 2) {
                const double error = factor * cases[c].limit * (1 + 1e-3 * over);
                const struct ls_verdict verdict = judge_lse(
                    cases[c].storage, cases[c].kappa, cases[c].bias, cases[c].lse, error, factor);

                cr_expect_eq(verdict.ok, over < 0, "case %zu: %g of %g", c, verdict.max_lse,
                             verdict.lse_limit);
                cr_expect_float_eq(verdict.max_lse / verdict.lse_limit, 1 + 1e-3 * over, 1e-6);
                cr_expect_float_eq(verdict.abs_lse, error, 1e-6 * error);
            }
        }
    }
}

/* A small row is not lent the limit of one with large logits, whichever comes first. */
Test(contract, every_lse_has_the_limit_of_its_own_row)
{
    static const double o = 0;
    const struct ls_reference_row large = {.m = 1, .l = 1, .kappa = 1000},
                                  small = {.m = 1, .l = 1, .kappa = 1};

    for (int order = 0; order < 4; order++) {
        const bool swapped = order % 2, wrong = order / 2;
        const double lse[2] = {1 + 1e-4, 1 + (wrong ? 2e-6 : 0)};
        struct ls_verdict verdict;
        struct ls_errors errors, other;

        ls_errors_init(&errors);
        ls_errors_init(&other);
        ls_errors_add_row(swapped ? &other : &errors, LS_F32, &o, lse[0], &large, 1, 1,
                          (const int64_t[]){0, 0, 0});
        ls_errors_add_row(swapped ? &errors : &other, LS_F32, &o, lse[1], &small, 1, 1,
                          (const int64_t[]){0, 1, 0});
        ls_errors_merge(&errors, &other);
        ls_errors_judge(&verdict, &errors, LS_F32, 1);
        cr_expect_eq(verdict.ok, !wrong, "order %d: %g of %g", order, verdict.max_lse,
                     verdict.lse_limit);
        cr_expect_float_eq(verdict.max_lse, wrong ? 2e-6 : 1e-4, 1e-9);
    }
}

Test(contract, each_limit_is_enforced_at_its_value)
{
    for (int c = 0; c < 3; c++) {
        for (int over = 0; over < 2; over++) {
            const double by = over ? 1.001 : 0.999;
            struct ls_verdict verdict;
            struct ls_errors errors;

            ls_errors_init(&errors);
            errors.norm2 = 4;
            errors.compared = 1;
            if (c == 0) errors.diff2 = 4 * 3e-3 * by * 3e-3 * by;
            if (c == 1) errors.max_units = by;
            errors.lse_limit = 2e-5;
            if (c == 2) errors.max_lse = 2e-5 * by;
            ls_errors_judge(&verdict, &errors, LS_BF16, 1);
            cr_expect_eq(verdict.ok, !over, "limit %d", c);
        }
    }
}

/* One row of one element, every rounding but that of the largest p against it: nothing averages
 * out. */
Test(contract, a_single_small_row_is_not_judged_by_the_mean)
{
    for (int i = 0; i < 64; i++) {
        const double q = 0, k[3] = {0}, v[3] = {1, -1 + 0x1p-7 * i, 0x1p-9 * i};
        const double exact = (v[0] + v[1] + v[2]) / 3;
        const double result = exact + 0x1p-8 * ((fabs(v[1]) + v[2]) / 3 + fabs(exact));
        struct ls_reference_row row;
        struct ls_verdict verdict;
        struct ls_errors errors;

        ls_reference_row_init(&row);
        add_plain(&row, &q, k, v, 3, 1, 1, 1);
        ls_errors_init(&errors);
        ls_errors_add_row(&errors, LS_BF16, &result, log(3), &row, 1, 1,
                          (const int64_t[]){0, 0, 0});
        ls_errors_judge(&verdict, &errors, LS_BF16, 1);
        cr_expect(verdict.ok, "row %d: rel %g of %g", i, verdict.rel_o, verdict.rel_o_limit);
    }
}

/* Against the formula of docs/NUMERICS.md, each of its terms in turn the largest. */
Test(contract, the_element_wise_bound_is_the_formula)
{
    static const struct {
        ls_dtype storage;
        double kappa, majorant, v_abs, o, bound;
    } cases[] = {
        {LS_F32, 0, 3, 1e9, 0, 12 * 0x1p-24},
        {LS_F32, 1000, 3, 1e9, 0, 3 * 8004 * 0x1p-24},
        {LS_F32, 0, 0, 1e9, 3, 3 * 0x1p-24},
        {LS_BF16, 0, 3, 1e9, 0, 6 * 0x1p-8 + 12 * 0x1p-24},
        {LS_BF16, 0, 0, 1e9, 3, 3 * 0x1p-8},
        {LS_BF16, 0, 0, 256, 0, 256 * 0x1p-126 + 0x1p-133},
        {LS_BF16, 0, 0, 0, 0, 0x1p-133},
        {LS_F32, 0, 0, 256, 0, 256 * 0x1p-126},
        {LS_F16, 0, 3, 0, 0, 6 * 0x1p-11 + 12 * 0x1p-24},
        {LS_F16, 0, 0, 4096, 0, 4096 * 0x1p-25 + 0x1p-24},
        {LS_F16, 0, 0, 0, 0, 0x1p-24},
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct ls_reference_row row = {.l = 2,
                                             .kappa = cases[c].kappa,
                                             .majorant = {2 * cases[c].majorant},
                                             .v_abs = {cases[c].v_abs},
                                             .acc = {2 * cases[c].o}};
        const double result = cases[c].o + 0.5 * cases[c].bound;
        struct ls_errors errors;

        ls_errors_init(&errors);
        ls_errors_add_row(&errors, cases[c].storage, &result, log(2), &row, 1, 1,
                          (const int64_t[]){0, 0, 0});
        cr_expect_float_eq(errors.max_units, 0.5, 1e-4, "case %zu: %g", c, errors.max_units);
    }
}

/* A bias counts as much as its key weighs: by the mean over keys, and with each key's value. */
Test(contract, the_bound_grows_with_the_bias)
{
    const struct ls_reference_row row = {
        .l = 2, .kappa = 1, .bias = 2 * 50, .majorant = {2 * 3}, .biased = {2 * 70}};
    const double bound = ((4 + 8 * (1 + 50)) * 3 + 8 * 70) * 0x1p-24, result = 0.5 * bound;
    struct ls_errors errors;

    ls_errors_init(&errors);
    ls_errors_add_row(&errors, LS_F32, &result, log(2), &row, 1, 1, (const int64_t[]){0, 0, 0});
    cr_expect_float_eq(errors.max_units, 0.5, 1e-4, "%g", errors.max_units);
    cr_expect_eq(errors.kappa, 51);
}

/* One key, o = v = 1: a place is 2 u, the bound 3 u and a little. */
Test(contract, two_units_in_the_last_place_fail)
{
    static const ls_dtype storages[] = {LS_BF16, LS_F16};

    for (int c = 0; c < 2; c++) {
        const double one = 1, up = 1 + 2 * 2 * ls_dtype_unit(storages[c]);
        struct ls_reference_row row;
        struct ls_errors errors;

        ls_reference_row_init(&row);
        add_plain(&row, &one, &one, &one, 1, 1, 1, 1);
        ls_errors_init(&errors);
        ls_errors_add_row(&errors, storages[c], &up, 1, &row, 1, 1, (const int64_t[]){0, 0, 0});
        cr_expect_gt(errors.max_units, 1, "%s", ls_dtype_name(storages[c]));
    }
}

/* Judges one row of two elements as a bf16 result. */
static struct ls_verdict judge_row(const struct ls_reference_row *row, double o0, double o1,
                                   double lse)
{
    struct ls_verdict verdict;
    struct ls_errors errors;

    ls_errors_init(&errors);
    ls_errors_add_row(&errors, LS_BF16, (const double[]){o0, o1}, lse, row, 2, 2,
                      (const int64_t[]){0, 0, 0});
    ls_errors_judge(&verdict, &errors, LS_BF16, 1);
    return verdict;
}

Test(contract, a_row_without_keys_must_be_exactly_empty)
{
    struct ls_reference_row row;

    ls_reference_row_init(&row);
    const struct ls_verdict good = judge_row(&row, 0, -0.0, -INFINITY);

    cr_expect(good.ok);
    cr_expect_eq(good.rel_o, 0);
    cr_expect_not(judge_row(&row, 0, DBL_MIN, -INFINITY).ok, "a tiny o");
    cr_expect_not(judge_row(&row, 0, NAN, -INFINITY).ok, "NaN");
    cr_expect_not(judge_row(&row, 0, 0, -FLT_MAX).ok, "a finite lse");
}

Test(contract, zero_values_ask_for_zero)
{
    const double q[2] = {1, 1}, k[2] = {1, 1}, v[2] = {0, 0};
    struct ls_reference_row row;

    ls_reference_row_init(&row);
    add_plain(&row, q, k, v, 1, 2, 2, 1);
    cr_expect(judge_row(&row, 0, 0, 2).ok);
    cr_expect_not(judge_row(&row, 0, 1e-30, 2).ok);
}

Test(contract, what_is_no_number_must_be_the_same_in_both)
{
    static const double bad[] = {INFINITY, NAN}, others[] = {-INFINITY, 3};
    const double q[2] = {1, 1}, k[2] = {1, 1};

    for (int c = 0; c < 2; c++) {
        const double v[2] = {bad[c], 1};
        struct ls_reference_row row;

        ls_reference_row_init(&row);
        add_plain(&row, q, k, v, 1, 2, 2, 1);
        cr_expect(judge_row(&row, bad[c], 1, 2).ok, "%g", bad[c]);
        cr_expect_not(judge_row(&row, bad[1 - c], 1, 2).ok, "%g", bad[c]);
        for (int i = 0; i < 2; i++)
            cr_expect_not(judge_row(&row, others[i], 1, 2).ok, "%g for %g", others[i], bad[c]);
    }
}

/* A result of nothing but NaN is the right one, and tells nothing. */
Test(contract, nothing_finite_is_not_ok)
{
    const double q[2] = {1, 1}, k[2] = {1, 1}, v[2] = {INFINITY, NAN};
    struct ls_reference_row row;

    ls_reference_row_init(&row);
    add_plain(&row, q, k, v, 1, 2, 2, 1);
    const struct ls_verdict verdict = judge_row(&row, INFINITY, NAN, 2);

    cr_expect_not(verdict.ok);
    cr_expect_str_eq(verdict.why, "nothing finite was compared");
    cr_expect_str_eq(judge_row(&row, NAN, NAN, 2).why, "an error is beyond its limit");
}

/* A soft cap makes a logit of an infinite product, whose error has no bound. */
Test(contract, an_infinite_limit_is_not_ok)
{
    const double q[2] = {1, 1}, k[2] = {INFINITY, 1}, v[2] = {1, 2};
    const struct ls_mask mask = full_mask(1, 1);
    const struct ls_scores scores = {.scale = 1, .soft_cap = 3, .heads = 1};
    const struct ls_reference_query query = {.q = q, .mask = &mask, .scores = &scores};
    struct ls_reference_row row;

    ls_reference_row_init(&row);
    ls_reference_row_add(&row, &query, k, v, 0, 1, 2, 2);
    const struct ls_verdict verdict = judge_row(&row, 1, 2, 3);

    cr_expect_not(verdict.ok);
    cr_expect_str_eq(verdict.why, "the limit is infinite");
}

/* One row with an infinite score, one without: the first must be NaN and leaves the limits of the
 * second alone. */
Test(contract, an_infinite_input_does_not_lift_the_limits)
{
    static const struct {
        double o, lse; /* of the first row */
        double error;  /* of the second row's lse */
        bool ok;
    } cases[] = {
        {NAN, NAN, 0, true},
        {NAN, NAN, 1e-3, false},
        {0, NAN, 0, false},
        {NAN, 0, 0, false},
    };
    const double q = 1, k[2] = {INFINITY, 1}, v = 1;

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const double o[2] = {cases[c].o, 1}, lse[2] = {cases[c].lse, 1 + cases[c].error};
        struct ls_verdict verdict;
        struct ls_errors errors;

        ls_errors_init(&errors);
        for (int i = 0; i < 2; i++) {
            struct ls_reference_row row;

            ls_reference_row_init(&row);
            add_plain(&row, &q, &k[i], &v, 1, 1, 1, 1);
            ls_errors_add_row(&errors, LS_F32, &o[i], lse[i], &row, 1, 1,
                              (const int64_t[]){0, i, 0});
        }
        ls_errors_judge(&verdict, &errors, LS_F32, 1);
        cr_expect_eq(verdict.ok, cases[c].ok, "case %zu", c);
        cr_expect(isfinite(verdict.lse_limit), "case %zu: limit %g", c, verdict.lse_limit);
        cr_expect(isfinite(verdict.rel_o_limit), "case %zu: limit %g", c, verdict.rel_o_limit);
    }
}
