/* The contract of gradients: kernels that round where ours do are good, each classic mistake is
 * not. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "reference/measure.h"
#include "reference/whole.h"

enum { ROWS = 160, KEYS = 160, D = 16, HEADS = 2 };

static const ls_dtype storages[] = {LS_F32, LS_BF16, LS_F16};
static const char *const names[] = {"dq", "dk", "dv", "dsinks"};

/* A mistake that the kernel below can be told to make. */
typedef enum {
    NONE,
    DELTA_LEFT_OUT,
    DELTA_OF_ROUNDED_O,
    DLSE_LEFT_OUT,
    DLSE_ADDED,
    SCALE_LEFT_OUT_OF_DK,
    SLOPE_LEFT_OUT,
    SINK_NOT_IN_P,
    DSINK_LEFT_OUT,
    QUERY_LOST,
    KEY_LOST,
    HEAD_LOST,
    WINDOW_OFF_BY_ONE,
    DROPOUT_NOT_IN_DV,
    DROPOUT_NOT_IN_DP,
    BIAS_OFF_BY_ONE,
    SUMS_ROUNDED,
    NAN_IN_DK,
} mistake;

/* Inputs and results, [rows, heads, D] with one head of keys, in double but of numbers of the
 * storage type. */
static struct problem {
    ls_dtype storage;
    double q[ROWS][HEADS][D], k[KEYS][D], v[KEYS][D], d_o[ROWS][HEADS][D], dlse[HEADS][ROWS];
    double dq[ROWS][HEADS][D], dk[KEYS][D], dv[KEYS][D], dsinks[HEADS];
    struct ls_mask mask;
    struct ls_scores scores;
} p;

static double rounded(double x)
{
    return x + rounding_error(p.storage, x);
}

static void draw(double *out, int64_t n, uint32_t stream, double factor, double mean)
{
    for (int64_t i = 0; i < n; i++) {
        float x;

        ls_random_normal(&x, 12, stream, (uint64_t)i, 1);
        out[i] = rounded(factor * x + mean);
    }
}

static void setup(ls_dtype storage, double q_factor, double v_mean)
{
    memset(&p, 0, sizeof p);
    p.storage = storage;
    draw(p.q[0][0], ROWS * HEADS * D, 0, q_factor, 0);
    draw(p.k[0], KEYS * D, 1, 1, 0);
    draw(p.v[0], KEYS * D, 2, 1, v_mean);
    draw(p.d_o[0][0], ROWS * HEADS * D, 3, 1, 0);
    p.mask = ls_mask_full(ROWS, KEYS);
    p.scores = (struct ls_scores){.scale = 0.25f, .heads = HEADS};
}

/* Window, soft cap, ALiBi, sinks, dropout and dlse at once. */
static void setup_all(ls_dtype storage)
{
    static const float slopes[HEADS] = {0.125f, 0.25f}, sinks[HEADS] = {1, 2};

    setup(storage, 1, 0);
    for (int i = 0; i < HEADS * ROWS; i++) p.dlse[i / ROWS][i % ROWS] = (float)(0.3 * (i % 5 - 2));
    p.mask.left = 60;
    p.mask.right = 40;
    p.scores = (struct ls_scores){.scale = 0.25f,
                                  .soft_cap = 1.5f,
                                  .alibi = slopes,
                                  .sinks = sinks,
                                  .dropout = 0.1f,
                                  .seed = 3,
                                  .heads = HEADS};
}

/* What a query and a key are to each other. */
struct pair {
    double logit, slope, drop;
    bool seen;
};

static struct pair pair_of(int h, int i, int j, mistake m)
{
    const struct ls_scores *s = &p.scores;
    const struct ls_visible seen = ls_mask_row(&p.mask, i);
    struct pair pair = {.slope = 1, .drop = 1};
    bool kept[4] = {true, true, true, true};

    for (int e = 0; e < D; e++) {
        pair.logit += s->scale * p.q[i][h][e] * p.k[j][e];
        if (p.storage == LS_F32) pair.logit = (float)pair.logit;
    }
    if (s->soft_cap > 0) {
        const double part = pair.logit / s->soft_cap;

        pair.logit = s->soft_cap * tanh(part);
        if (m != SLOPE_LEFT_OUT) pair.slope = 1 / square(cosh(part));
    }
    if (s->alibi) pair.logit -= s->alibi[h] * abs(i - j + (m == BIAS_OFF_BY_ONE));
    if (s->dropout > 0) {
        ls_dropout_kept(kept, s, 0, h, i, j / 4 * 4, 4);
        pair.drop = kept[j % 4] ? 1 / (1 - (double)s->dropout) : 0;
    }
    pair.seen = j >= seen.from + (m == WINDOW_OFF_BY_ONE) && j < seen.to - (m == KEY_LOST);
    return pair;
}

struct row {
    double lse, delta;
};

/* Forward of one row as a kernel saves it. */
static struct row forward(int h, int i, mistake m)
{
    double l = 0, o[D] = {0};
    struct row row = {.delta = m == DLSE_LEFT_OUT ? 0
                               : m == DLSE_ADDED  ? p.dlse[h][i]
                                                  : -p.dlse[h][i]};

    for (int j = 0; j < KEYS; j++) {
        const struct pair pair = pair_of(h, i, j, NONE);

        if (!pair.seen) continue;
        l += exp(pair.logit);
        for (int e = 0; e < D; e++) o[e] += exp(pair.logit) * pair.drop * p.v[j][e];
    }
    if (p.scores.sinks && m != SINK_NOT_IN_P) l += exp(p.scores.sinks[h]);
    row.lse = (float)log(l);
    for (int e = 0; e < D && m != DELTA_LEFT_OUT; e++)
        row.delta += p.d_o[i][h][e] * (m == DELTA_OF_ROUNDED_O ? rounded(o[e] / l) : o[e] / l);
    return row;
}

/* A running sum of a kernel that keeps its sums in the storage type. */
static void add(double *sum, double x, mistake m)
{
    *sum = m == SUMS_ROUNDED ? rounded(*sum + x) : *sum + x;
}

static void backward_row(int h, int i, mistake m)
{
    const struct row row = forward(h, i, m);

    for (int j = 0; j < KEYS; j++) {
        const struct pair pair = pair_of(h, i, j, m);
        double dp = 0;

        if (!pair.seen) continue;
        for (int e = 0; e < D; e++) dp += p.d_o[i][h][e] * p.v[j][e];
        if (m != DROPOUT_NOT_IN_DP) dp *= pair.drop;
        const double prob = exp(pair.logit - row.lse);
        const double ds = rounded(prob * (dp - row.delta) * pair.slope);
        const double dropped = rounded(m == DROPOUT_NOT_IN_DV ? prob : prob * pair.drop);

        for (int e = 0; e < D; e++) {
            add(&p.dq[i][h][e], p.scores.scale * ds * p.k[j][e], m);
            add(&p.dk[j][e], (m == SCALE_LEFT_OUT_OF_DK ? 1 : p.scores.scale) * ds * p.q[i][h][e],
                m);
            add(&p.dv[j][e], dropped * p.d_o[i][h][e], m);
        }
    }
    if (p.scores.sinks && m != DSINK_LEFT_OUT)
        p.dsinks[h] -= exp(p.scores.sinks[h] - row.lse) * row.delta;
}

/* A kernel in double that rounds where ours do. */
static void run_twin(mistake m)
{
    memset(p.dq, 0, sizeof p.dq);
    memset(p.dk, 0, sizeof p.dk);
    memset(p.dv, 0, sizeof p.dv);
    memset(p.dsinks, 0, sizeof p.dsinks);
    for (int h = 0; h < HEADS - (m == HEAD_LOST); h++)
        for (int i = 0; i < ROWS - (m == QUERY_LOST); i++) backward_row(h, i, m);
    double *const all[] = {p.dq[0][0], p.dk[0], p.dv[0]};
    static const int counts[] = {ROWS * HEADS * D, KEYS * D, KEYS * D};

    for (int t = 0; t < 3; t++)
        for (int i = 0; i < counts[t]; i++) all[t][i] = rounded(all[t][i]);
    if (m == NAN_IN_DK) p.dk[KEYS - 1][D - 1] = NAN;
}

static struct ls_tensor view(const void *data, int64_t rows, int64_t heads)
{
    return ls_tensor_view((void *)(uintptr_t)data, LS_F64, 4, (const int64_t[]){1, rows, heads, D});
}

/* Asks the oracle; residual: the kernel claims to have taken delta from o and its residual. */
static void judge(struct ls_gradient_verdict out[LS_GRADIENTS], bool residual)
{
    const struct ls_tensor q = view(p.q, ROWS, HEADS), d_o = view(p.d_o, ROWS, HEADS);
    const struct ls_tensor k = view(p.k, KEYS, 1), v = view(p.v, KEYS, 1);
    const struct ls_tensor dlse =
        ls_tensor_view(p.dlse, LS_F64, 3, (const int64_t[]){1, HEADS, ROWS});
    struct ls_tensor dq = view(p.dq, ROWS, HEADS), dk = view(p.dk, KEYS, 1);
    struct ls_tensor dv = view(p.dv, KEYS, 1);
    struct ls_tensor dsinks = ls_tensor_view(p.dsinks, LS_F64, 1, (const int64_t[]){HEADS});
    const struct ls_attention_gradients gradients = {&dq, &dk, &dv,
                                                     p.scores.sinks ? &dsinks : NULL};
    const struct ls_attention_saved saved = {.q = &q,
                                             .k = &k,
                                             .v = &v,
                                             .d_o = &d_o,
                                             .dlse = &dlse,
                                             .o = &q,
                                             .o_lo = residual ? &q : NULL};

    cr_assert_eq(
        ls_reference_judge_gradients(out, &gradients, p.storage, &saved, &p.mask, &p.scores),
        LS_OK);
}

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
        if (cases[c / 3].causal) p.mask = ls_mask_causal(ROWS, KEYS);
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
        double majorant, strained, factors, value, bound;
    } cases[] = {
        {LS_F32, 1e9, 3, 1e9, 0, 3 * 0x1p-24},
        {LS_F32, 0, 0, 1e9, 3, 3 * 0x1p-24},
        {LS_BF16, 3, 0, 1e9, 0, 6 * 0x1p-8},
        {LS_BF16, 0, 0, 1e9, 3, 3 * 0x1p-8},
        {LS_BF16, 0, 0, 256, 0, 256 * 0x1p-126 + 0x1p-133},
        {LS_BF16, 0, 0, 0, 0, 0x1p-133},
        {LS_F32, 0, 0, 256, 0, 256 * 0x1p-126},
        {LS_F16, 3, 0, 0, 0, 6 * 0x1p-11},
        {LS_F16, 0, 0, 4096, 0, 4096 * 0x1p-25 + 0x1p-24},
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct ls_reference_sum sum = {.value = {cases[c].value},
                                             .majorant = {cases[c].majorant},
                                             .strained = {cases[c].strained},
                                             .factors = {cases[c].factors},
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
