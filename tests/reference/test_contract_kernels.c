#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "plain.h"
#include "reference/contract.h"
#include "tensor/dtype.h"

enum { ROWS = 256, KEYS = 256, D = 16 };

static const ls_dtype storages[] = {LS_F32, LS_BF16, LS_F16};

/* Queries, keys and values, the oracle's rows for them, and a result to judge. */
static struct problem {
    ls_dtype storage;
    double q[ROWS][D], k[KEYS][D], v[KEYS][D];
    struct ls_reference_row exact[ROWS];
    double o[ROWS][D], lse[ROWS];
} p;

static double rounded(ls_dtype type, double x)
{
    union {
        double f64;
        float f32;
        uint16_t f16;
    } element;

    ls_dtype_store(type, &element, x);
    return ls_dtype_load(type, &element);
}

static void draw(double *out, int64_t n, uint32_t stream, double factor)
{
    for (int64_t i = 0; i < n; i++) {
        float x;

        ls_random_normal(&x, 11, stream, (uint64_t)i, 1);
        out[i] = rounded(p.storage, factor * x);
    }
}

static void ask_oracle(void)
{
    for (int i = 0; i < ROWS; i++) {
        ls_reference_row_init(&p.exact[i]);
        add_plain(&p.exact[i], p.q[i], p.k[0], p.v[0], KEYS, D, D, 1 / sqrt(D));
    }
}

/* The best result there can be: the exact one, rounded once. */
static void store_exact(void)
{
    for (int i = 0; i < ROWS; i++) {
        ls_reference_row_finish(p.o[i], &p.lse[i], &p.exact[i], D);
        for (int e = 0; e < D; e++) p.o[i][e] = rounded(p.storage, p.o[i][e]);
        p.lse[i] = (float)p.lse[i];
    }
}

static void setup(ls_dtype storage, double q_factor)
{
    p.storage = storage;
    draw(p.q[0], ROWS * D, 0, q_factor);
    draw(p.k[0], KEYS * D, 1, 1);
    draw(p.v[0], KEYS * D, 2, 1);
    ask_oracle();
    store_exact();
}

/* A kernel in double that rounds where ours do: P before it meets V, and O. `last` keys are seen,
 * scores come with a relative error, exponentials as well. */
static void run_twin(int last, double score_error, double exp_error)
{
    for (int i = 0; i < ROWS; i++) {
        double score[KEYS], top = -INFINITY, l = 0, acc[D] = {0};

        for (int j = 0; j < last; j++) {
            score[j] = 0;
            for (int e = 0; e < D; e++) score[j] += p.q[i][e] * p.k[j][e] / sqrt(D);
            score[j] *= 1 + score_error;
            top = fmax(top, score[j]);
        }
        for (int j = 0; j < last; j++) {
            const double weight = exp(score[j] - top) * (1 + exp_error);

            l += weight;
            for (int e = 0; e < D; e++) acc[e] += rounded(p.storage, weight) * p.v[j][e];
        }
        for (int e = 0; e < D; e++) p.o[i][e] = rounded(p.storage, acc[e] / l);
        p.lse[i] = (float)(top + log(l));
    }
}

static struct ls_errors gather(int begin, int end)
{
    struct ls_errors errors;

    ls_errors_init(&errors);
    for (int i = begin; i < end; i++) {
        ls_errors_add_row(&errors, p.storage, p.o[i], p.lse[i], &p.exact[i], D, D,
                          (const int64_t[]){1, i, 3});
    }
    return errors;
}

static struct ls_verdict judge(void)
{
    const struct ls_errors errors = gather(0, ROWS);
    struct ls_verdict verdict;

    ls_errors_judge(&verdict, &errors, p.storage, 1);
    return verdict;
}

Test(contract_kernels, n01_inputs_are_held_to_the_table)
{
    for (int c = 0; c < 3; c++) {
        static const double rel[] = {2e-6, 3e-3, 5e-4};

        setup(storages[c], 1);
        const double growth = storages[c] == LS_F32 ? 1.1 : 1; /* kappa is 15 to 33 */

        cr_expect_lt(judge().rel_o_limit, 1.2 * growth * rel[c], "%s: %g",
                     ls_dtype_name(storages[c]), judge().rel_o_limit);
    }
}

Test(contract_kernels, the_exact_result_rounded_once_is_good)
{
    for (int c = 0; c < 3; c++) {
        setup(storages[c], 1);
        const struct ls_verdict verdict = judge();

        cr_expect(verdict.ok, "%s", ls_dtype_name(storages[c]));
        cr_expect_gt(verdict.rel_o, 0);
        cr_expect_lt(verdict.max_units, 1);
    }
}

/* All of V has alternating signs: exact sums nearly cancel, their roundings do not. */
static void balance_values(void)
{
    for (int j = 1; j < KEYS; j += 2) {
        for (int e = 0; e < D; e++) p.v[j][e] = -p.v[j - 1][e];
    }
}

Test(contract_kernels, a_kernel_that_rounds_p_is_good_for_any_input)
{
    for (int c = 0; c < 3 * 6; c++) {
        static const double q_factors[] = {1, 32, 0.01};

        setup(storages[c % 3], q_factors[c / 3 % 3]);
        if (c >= 9) balance_values();
        ask_oracle();
        run_twin(KEYS, 0, 0);
        const struct ls_verdict verdict = judge();

        cr_expect(verdict.ok, "%s, q x %g, balanced %d: rel %g of %g, units %g",
                  ls_dtype_name(p.storage), q_factors[c / 3 % 3], c >= 9, verdict.rel_o,
                  verdict.rel_o_limit, verdict.max_units);
    }
}

static void lose_last_key(void)
{
    run_twin(KEYS - 1, 0, 0);
}

static void scale_wrongly(void)
{
    run_twin(KEYS, 0.01, 0);
}

static void use_poor_exponential(void)
{
    run_twin(KEYS, 0, 7.5e-4);
}

static void shift_lse(void)
{
    for (int i = 0; i < ROWS; i++) p.lse[i] += 7.5e-5 * fmax(1, fabs(p.lse[i]));
}

static void take_logarithm_of_base_2(void)
{
    for (int i = 0; i < ROWS; i++) p.lse[i] /= log(2);
}

static void lose_last_key_in_lse(void)
{
    double o[ROWS][D];

    memcpy(o, p.o, sizeof o);
    lose_last_key();
    memcpy(p.o, o, sizeof o);
}

static void disturb_by_half_a_bf16_place(void)
{
    for (int i = 0; i < ROWS; i++) {
        for (int e = 0; e < D; e++) p.o[i][e] *= 1 + (e % 2 ? 1 : -1) * 0x1p-8;
    }
}

static void put_nan_in_o(void)
{
    p.o[ROWS - 1][D - 1] = NAN;
}

static void put_infinity_in_o(void)
{
    p.o[3][0] = -INFINITY;
}

static void put_nan_in_lse(void)
{
    p.lse[0] = NAN;
}

static void empty_a_row(void)
{
    memset(p.o[5], 0, sizeof p.o[5]);
    p.lse[5] = -INFINITY;
}

static void swap_two_rows(void)
{
    double row[D];

    memcpy(row, p.o[1], sizeof row);
    memcpy(p.o[1], p.o[2], sizeof row);
    memcpy(p.o[2], row, sizeof row);
}

Test(contract_kernels, wrong_kernels_fail)
{
    static const struct {
        const char *name;
        void (*spoil)(void);
    } cases[] = {
        {"last key lost", lose_last_key},
        {"scale 1 % too large", scale_wrongly},
        {"exponential of 7.5e-4", use_poor_exponential},
        {"lse off by 7.5e-5", shift_lse},
        {"lse in units of 2", take_logarithm_of_base_2},
        {"lse without the last key", lose_last_key_in_lse},
        {"o off by 2^-8", disturb_by_half_a_bf16_place},
        {"NaN in o", put_nan_in_o},
        {"infinity in o", put_infinity_in_o},
        {"NaN in lse", put_nan_in_lse},
        {"a row taken for empty", empty_a_row},
        {"two rows swapped", swap_two_rows},
    };

    for (size_t c = 0; c < 3 * sizeof cases / sizeof *cases; c++) {
        setup(storages[c % 3], 1);
        cases[c / 3].spoil();
        cr_expect_not(judge().ok, "%s, %s", cases[c / 3].name, ls_dtype_name(p.storage));
    }
}

Test(contract_kernels, the_worst_element_is_named)
{
    setup(LS_BF16, 1);
    p.o[17][5] += 1;
    const struct ls_errors errors = gather(0, ROWS);

    cr_expect_arr_eq(errors.worst, ((const int64_t[]){1, 17, 3, 5}), sizeof errors.worst);
    cr_expect_eq(errors.rows, ROWS);
    cr_expect_gt(errors.max_units, 1);
}

Test(contract_kernels, rows_judged_apart_and_merged_are_rows_judged_together)
{
    setup(LS_F16, 1);
    const struct ls_errors together = gather(0, ROWS);

    for (int cut = 0; cut <= ROWS; cut += 32) {
        const struct ls_errors head = gather(0, cut);
        struct ls_errors merged = gather(cut, ROWS);

        ls_errors_merge(&merged, &head);
        cr_expect_float_eq(merged.diff2, together.diff2, 1e-12 * together.diff2);
        cr_expect_float_eq(merged.norm2, together.norm2, 1e-12 * together.norm2);
        cr_expect_float_eq(merged.round2, together.round2, 1e-12 * together.round2);
        cr_expect_float_eq(merged.spread2, together.spread2, 1e-12 * together.spread2);
        cr_expect_eq(merged.row2, together.row2, "cut at %d", cut);
        cr_expect_eq(merged.max_units, together.max_units, "cut at %d", cut);
        cr_expect_eq(merged.max_lse, together.max_lse, "cut at %d", cut);
        cr_expect_eq(merged.abs_lse, together.abs_lse, "cut at %d", cut);
        cr_expect_eq(merged.kappa, together.kappa, "cut at %d", cut);
        cr_expect_eq(merged.rows, ROWS, "cut at %d", cut);
        cr_expect_arr_eq(merged.worst, together.worst, sizeof together.worst);
    }
}
