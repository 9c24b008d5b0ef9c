/* The contract of gradients: kernels that round where ours do are good, each classic mistake is
 * not. */
#include "gradient_twin.h"

Test(gradient_contract, n01_inputs_are_held_to_the_table)
{
    static const double rel[] = {4e-6, 4e-3, 8e-4};

    for (int c = 0; c < 3; c++) {
        struct ls_gradient_verdict verdict[LS_GRADIENTS];

        setup(storages[c], 1, 0);
        run_twin(NONE);
        judge(verdict, true);
        for (int t = 0; t < 3; t++)
            cr_expect(verdict[t].rel_limit < 1.3 * rel[c] && verdict[t].rel_limit >= rel[c],
                      "%s of %s: %g", names[t], ls_dtype_name(storages[c]), verdict[t].rel_limit);
    }
}

Test(gradient_contract, a_kernel_that_rounds_as_ours_is_good_for_any_input)
{
    static const struct {
        double q_factor, v_mean;
        bool causal, residual;
    } cases[] = {
        {1, 0, false, true},   {1, 0, true, true},   {32, 0, false, true}, {0.01, 0, false, true},
        {1, 2, false, true},   {1, 2, true, true},   {1, 0, false, false}, {4, 0, true, false},
        {32, 0, false, false}, {1, 2, false, false}, {1, 2, true, false},
    };

    for (size_t c = 0; c < 3 * sizeof cases / sizeof *cases; c++) {
        struct ls_gradient_verdict verdict[LS_GRADIENTS];

        setup(storages[c % 3], cases[c / 3].q_factor, cases[c / 3].v_mean);
        if (cases[c / 3].causal) p.mask = causal_mask(ROWS, KEYS);
        run_twin(cases[c / 3].residual ? NONE : DELTA_OF_ROUNDED_O);
        judge(verdict, cases[c / 3].residual);
        for (int t = 0; t < 3; t++)
            cr_expect(verdict[t].ok, "case %zu, %s of %s: rel %g of %g, units %g", c / 3, names[t],
                      ls_dtype_name(p.storage), verdict[t].rel, verdict[t].rel_limit,
                      verdict[t].max_units);
    }
}

Test(gradient_contract, all_masks_and_scores_at_once_are_good)
{
    for (int c = 0; c < 3; c++) {
        struct ls_gradient_verdict verdict[LS_GRADIENTS];

        setup_all(storages[c]);
        run_twin(NONE);
        judge(verdict, true);
        for (int t = 0; t < LS_GRADIENTS; t++)
            cr_expect(verdict[t].ok, "%s of %s: rel %g of %g, units %g", names[t],
                      ls_dtype_name(p.storage), verdict[t].rel, verdict[t].rel_limit,
                      verdict[t].max_units);
    }
}

/* Only the last queries count, and these are so far from the first keys that probabilities get down
 * to 2^-140. */
static void setup_far_keys(ls_dtype storage)
{
    static const float slopes[HEADS] = {0.6f, 0.57f};

    setup(storage, 1, 0);
    p.scores.alibi = slopes;
    memset(p.d_o, 0, sizeof p.d_o[0] * (ROWS - 4));
    draw(p.d_o[ROWS - 4][0], (int64_t)4 * HEADS * D, 4, 64, 0);
}

Test(gradient_contract, keys_may_be_lost_that_are_too_far_but_no_others)
{
    for (int c = 0; c < 2 * 3; c++) {
        const ls_dtype storage = storages[c / 2];
        struct ls_gradient_verdict verdict[LS_GRADIENTS];

        setup_far_keys(storage);
        run_twin(c % 2 == 0 ? NONE : FAR_KEYS_LOST);
        judge(verdict, true);
        for (int t = DK; t <= DV && (storage != LS_F16 || c % 2 == 0); t++)
            cr_expect_eq(verdict[t].ok, c % 2 == 0, "%s of %s: rel %g of %g, units %g", names[t],
                         ls_dtype_name(storage), verdict[t].rel, verdict[t].rel_limit,
                         verdict[t].max_units);
    }
}

/* Neither o nor its residual has digits below the smallest f16. */
Test(gradient_contract, delta_of_an_o_that_is_subnormal_is_good)
{
    struct ls_gradient_verdict verdict[LS_GRADIENTS];

    setup(LS_F16, 1, 0);
    draw(p.v[0], (int64_t)3 * D, 2, 0x1p-20, 0);
    draw(p.d_o[0][0], ROWS * HEADS * D, 3, 64, 0);
    p.mask = causal_mask(ROWS, KEYS);
    run_twin(NONE);
    judge(verdict, true);
    for (int t = 0; t < 3; t++)
        cr_expect(verdict[t].ok, "%s: rel %g of %g, units %g", names[t], verdict[t].rel,
                  verdict[t].rel_limit, verdict[t].max_units);
}

/* What the product errs by is much for the slope of a small cap. */
Test(gradient_contract, soft_caps_of_any_size_are_good)
{
    static const float caps[] = {0.01f, 0.1f, 1, 50};

    for (int c = 0; c < 4 * 3; c++) {
        struct ls_gradient_verdict verdict[LS_GRADIENTS];

        setup(storages[c % 3], 4, 0);
        p.scores.soft_cap = caps[c / 3];
        run_twin(NONE);
        judge(verdict, true);
        for (int t = 0; t < 3; t++)
            cr_expect(verdict[t].ok, "cap %g, %s of %s: rel %g of %g, units %g",
                      (double)caps[c / 3], names[t], ls_dtype_name(p.storage), verdict[t].rel,
                      verdict[t].rel_limit, verdict[t].max_units);
    }
}

/* 1 - tanh^2 x, where tanh x is 1 but for its last bits or to all of them. */
Test(gradient_contract, slopes_of_a_soft_cap_are_exact_where_it_is_flat)
{
    const struct ls_scores scores = {.scale = 0.5f, .soft_cap = 2, .heads = 1};
    const double one = 1;

    for (double x = 0.25; x < 300; x *= 1.5) {
        const double q = 4 * x, e = exp(-2 * x), exact = 4 * e / square(1 + e);
        const struct ls_reference_query query = {.q = &q, .scores = &scores};
        const double slope = ls_reference_logit(&query, &one, 0, 1).slope;

        cr_expect(fabs(slope - exact) <= 1e-14 * exact, "%g: %g, not %g", x, slope, exact);
    }
}

Test(gradient_contract, wrong_kernels_fail)
{
    static const char *const mistakes[] = {
        [DELTA_LEFT_OUT] = "delta left out",
        [DLSE_LEFT_OUT] = "dlse left out",
        [DLSE_ADDED] = "dlse added to delta",
        [SCALE_LEFT_OUT_OF_DK] = "scale left out of dk",
        [SLOPE_LEFT_OUT] = "slope of the soft cap left out",
        [SINK_NOT_IN_P] = "sink not in lse",
        [DSINK_LEFT_OUT] = "dsinks left out",
        [QUERY_LOST] = "last query lost",
        [KEY_LOST] = "last key of each window lost",
        [HEAD_LOST] = "last head lost",
        [WINDOW_OFF_BY_ONE] = "window off by one",
        [DROPOUT_NOT_IN_DV] = "dropout not in dv",
        [DROPOUT_NOT_IN_DP] = "dropout not in dp",
        [BIAS_OFF_BY_ONE] = "ALiBi off by one",
        [NAN_IN_DK] = "NaN in dk",
    };

    for (int m = 0; m < 3 * (int)(sizeof mistakes / sizeof *mistakes); m++) {
        struct ls_gradient_verdict verdict[LS_GRADIENTS];
        bool ok = true;

        if (!mistakes[m / 3]) continue;
        setup_all(storages[m % 3]);
        run_twin((mistake)(m / 3));
        judge(verdict, true);
        for (int t = 0; t < LS_GRADIENTS; t++) ok &= verdict[t].ok;
        cr_expect_not(ok, "%s, %s", mistakes[m / 3], ls_dtype_name(p.storage));
    }
}

/* What the residual of o is for. */
Test(gradient_contract, delta_from_rounded_o_fails_where_more_is_promised)
{
    for (int c = 0; c < 2; c++) {
        struct ls_gradient_verdict verdict[LS_GRADIENTS];

        setup(storages[1 + c], 1, 2);
        run_twin(DELTA_OF_ROUNDED_O);
        judge(verdict, true);
        cr_expect_not(verdict[0].ok && verdict[1].ok, "%s: %g of %g, %g of %g",
                      ls_dtype_name(p.storage), verdict[0].rel, verdict[0].rel_limit,
                      verdict[1].rel, verdict[1].rel_limit);
    }
}

Test(gradient_contract, sums_in_the_storage_type_fail)
{
    struct ls_gradient_verdict verdict[LS_GRADIENTS];

    setup(LS_BF16, 1, 0);
    run_twin(SUMS_ROUNDED);
    judge(verdict, true);
    for (int t = 0; t < 3; t++) cr_expect_not(verdict[t].ok, "%s", names[t]);
}

/* ---- the bound and the limits themselves */

Test(gradient_contract, the_element_wise_bound_is_the_formula)
{
    static const struct {
        ls_dtype storage;
        double majorant, strained, factors, flushed, value, bound;
    } cases[] = {
        {LS_F32, 1e9, 3, 1e9, 1e9, 0, 3 * 0x1p-24},
        {LS_F32, 0, 0, 1e9, 1e9, 3, 3 * 0x1p-24},
        {LS_BF16, 3, 0, 1e9, 1e9, 0, 6 * 0x1p-8},
        {LS_BF16, 0, 0, 1e9, 1e9, 3, 3 * 0x1p-8},
        {LS_BF16, 0, 0, 1e9, 256, 0, 256 * 0x1p-126 + 0x1p-133},
        {LS_BF16, 0, 0, 1e9, 0, 0, 0x1p-133},
        {LS_F32, 0, 0, 1e9, 256, 0, 256 * 0x1p-126},
        {LS_F16, 3, 0, 0, 1e9, 0, 6 * 0x1p-11},
        {LS_F16, 0, 0, 4096, 1e9, 0, 4096 * 0x1p-25 + 0x1p-24},
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct ls_reference_sum sum = {.value = {cases[c].value},
                                             .majorant = {cases[c].majorant},
                                             .strained = {cases[c].strained},
                                             .factors = {cases[c].factors},
                                             .flushed = {cases[c].flushed},
                                             .terms = 1};
        const double result = cases[c].value + 0.5 * cases[c].bound;
        struct ls_gradient_errors errors;

        ls_gradient_errors_init(&errors);
        ls_gradient_errors_add_row(&errors, cases[c].storage, &result, &sum, 1,
                                   (const int64_t[]){0, 0, 0});
        cr_expect_float_eq(errors.max_units, 0.5, 1e-4, "case %zu: %g", c, errors.max_units);
    }
}

Test(gradient_contract, limits_are_the_table_and_1_5_times_the_roundings)
{
    static const struct {
        ls_dtype storage;
        double kappa, spread, base, rnd, factor, rel;
    } cases[] = {
        {LS_F32, 10, 1, 1, 0, 1, 4e-6},
        {LS_F32, 60, 1, 1, 0, 1, 8e-6},
        {LS_F32, 60, 1, 1, 0, 2, 16e-6},
        {LS_F32, 10, 1, 5, 0, 1, 20e-6},
        {LS_BF16, 60, 1, 1, 0, 1, 4e-3},
        {LS_BF16, 60, 1, 1, 0, 2, 8e-3},
        {LS_BF16, 1, 4, 1, 0, 1, 6 * 0.425 * 0x1p-8},
        {LS_BF16, 1, 0, 0, 6e-3, 1, 9e-3},
        {LS_F16, 60, 1, 1, 0, 1, 8e-4},
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct ls_gradient_verdict verdict;
        struct ls_gradient_errors errors;

        ls_gradient_errors_init(&errors);
        errors.norm2 = 25;
        errors.spread2 = 25 * square(cases[c].spread);
        errors.base2 = 25 * square(cases[c].base);
        errors.round2 = 25 * square(cases[c].rnd);
        errors.kappa = cases[c].kappa;
        errors.compared = 1;
        for (int over = 0; over < 2; over++) {
            errors.diff2 = 25 * square(cases[c].rel * (over ? 1.001 : 0.999));
            ls_gradient_errors_judge(&verdict, &errors, cases[c].storage, cases[c].factor);
            cr_expect_float_eq(verdict.rel_limit, cases[c].rel, 1e-9 * cases[c].rel, "case %zu", c);
            cr_expect_eq(verdict.ok, !over, "case %zu", c);
        }
        errors.diff2 = 0;
        errors.max_units = 1.001 * cases[c].factor;
        ls_gradient_errors_judge(&verdict, &errors, cases[c].storage, cases[c].factor);
        cr_expect_not(verdict.ok);
    }
}

Test(gradient_contract, a_row_without_terms_must_be_zero)
{
    const struct ls_reference_sum none = {0};

    for (int wrong = 0; wrong < 2; wrong++) {
        const double value[2] = {-0.0, wrong ? 1e-300 : 0};
        struct ls_gradient_errors errors;

        ls_gradient_errors_init(&errors);
        ls_gradient_errors_add_row(&errors, LS_F32, value, &none, 2, (const int64_t[]){0, 0, 0});
        cr_expect_eq(errors.max_units, wrong ? INFINITY : 0);
    }
}

/* Nothing is judged ok that was held to no limit; a gradient of exactly 0 has one. */
Test(gradient_contract, a_verdict_needs_something_finite_and_a_finite_limit)
{
    static const struct {
        double exact, strained, value;
        const char *why;
    } cases[] = {
        {0, 4, 0, NULL},
        {0, 4, 1e-7, NULL},
        {1, 4, 1, NULL},
        {0, 4, 1e-3, "an error is beyond its limit"},
        {1, 0x1p20, 1, NULL},
        {1, 0x1p24, 1, "the limit is infinite"},
        {1, INFINITY, 1, "the limit is infinite"},
        {NAN, 4, NAN, "nothing finite was compared"},
        {INFINITY, 4, INFINITY, "nothing finite was compared"},
        {NAN, 4, 1, "an error is beyond its limit"},
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct ls_reference_sum sum = {.value = {cases[c].exact},
                                             .majorant = {1},
                                             .strained = {cases[c].strained},
                                             .base = {1},
                                             .terms = 1};
        struct ls_gradient_verdict verdict;
        struct ls_gradient_errors errors;

        ls_gradient_errors_init(&errors);
        ls_gradient_errors_add_row(&errors, LS_F32, &cases[c].value, &sum, 1,
                                   (const int64_t[]){0, 0, 0});
        ls_gradient_errors_judge(&verdict, &errors, LS_F32, 1);
        cr_expect_eq(verdict.ok, !cases[c].why, "case %zu", c);
        cr_expect(verdict.why == cases[c].why || strcmp(verdict.why, cases[c].why) == 0,
                  "case %zu: %s", c, verdict.why);
        cr_expect(isfinite(verdict.rel_limit), "case %zu", c);
    }
}

Test(gradient_contract, rows_judged_apart_and_merged_are_rows_judged_together)
{
    struct ls_reference_sum sum = {.value = {1, 2},
                                   .majorant = {1, 1},
                                   .strained = {4, 4},
                                   .spread = {1, 1},
                                   .base = {1, 1},
                                   .kappa = 3,
                                   .terms = 1};
    struct ls_gradient_errors parts[2], together;

    ls_gradient_errors_init(&together);
    for (int i = 0; i < 2; i++) {
        const double value[2] = {1, 2 + (i + 1) * 1e-7};
        const int64_t where[3] = {0, i, 5};

        sum.spread[0] += 9;
        ls_gradient_errors_init(&parts[i]);
        ls_gradient_errors_add_row(&parts[i], LS_F32, value, &sum, 2, where);
        ls_gradient_errors_add_row(&together, LS_F32, value, &sum, 2, where);
    }
    ls_gradient_errors_merge(&parts[0], &parts[1]);
    cr_expect_eq(memcmp(&parts[0], &together, sizeof together), 0);
    cr_expect_arr_eq(together.worst, ((const int64_t[]){0, 1, 5, 1}), sizeof together.worst);
}
