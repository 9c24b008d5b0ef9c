/* What holds of attention whatever the numbers are: properties that find mistakes in masks, sums
 * and lse for free. */
#include "harness.h"

static const ls_dtype types[] = {LS_BF16, LS_F16, LS_F32};

/* Several leaves of both sides, a group, keys that do not end with the queries' leaves. */
static const struct {
    int64_t s_q, s_k;
} lengths[] = {{300, 400}, {260, 260}, {400, 300}, {20, 530}};

/* Calls test with a problem of each type, length and mask; it is closed afterwards. */
static void each_problem(void (*test)(struct problem *p))
{
    for (int i = 0; i < LENGTH(types) * LENGTH(lengths) * 2; i++) {
        const int len = i / 2 % LENGTH(lengths);
        struct problem p = {.shape = {.b = 1,
                                      .h = 2,
                                      .h_kv = 1,
                                      .s_q = lengths[len].s_q,
                                      .s_k = lengths[len].s_k,
                                      .d = i % 3 == 0 ? 40 : 64,
                                      .type = types[i / 2 / LENGTH(lengths)]},
                            .options = {.causal = i % 2, .threads = 1 + i % 2}};

        problem_open(&p);
        test(&p);
        problem_close(&p);
    }
}

static int64_t keys_of(const struct problem *p, int64_t i)
{
    struct ls_band bands[MOST_BANDS];
    const struct ls_mask mask = problem_mask(p, bands);

    return ls_mask_count(&mask, i, 0, p->shape.s_k);
}

static float lse_at(const struct problem *p, int64_t head, int64_t i)
{
    return ((float *)p->lse.data)[head * p->shape.s_q + i];
}

static void values_of_one_give_one(struct problem *p)
{
    fill_constant(&p->v, 1);
    problem_run(p);
    for (int64_t i = 0; i < p->shape.s_q; i++) {
        const double want = keys_of(p, i) > 0;

        for (int64_t e = 0; e < p->shape.d; e++) {
            const double o = load_at(&p->o, 0, i, 1, e);

            cr_assert_leq(fabs(o - want), 2 * ls_dtype_unit(p->shape.type) * want + 1e-6 * want,
                          "%s: o[%ld][%ld] = %g", problem_name(p), (long)i, (long)e, o);
        }
        if (want == 0) cr_assert_eq(lse_at(p, 1, i), -INFINITY, "%s", problem_name(p));
    }
}

/* Eighths up to 4 in size: sums with a small constant are exact in every type. */
static void coarsen(struct ls_tensor *t)
{
    for (int64_t j = 0; j < t->dim[1]; j++)
        for (int64_t e = 0; e < t->dim[3]; e++)
            store_at(t, 0, j, 0, e, round(8 * fmax(-4, fmin(4, load_at(t, 0, j, 0, e)))) / 8);
}

static void shifted_keys_shift_lse(struct problem *p)
{
    const int64_t d = p->shape.d;
    void *o, *lse;

    coarsen(&p->k);
    problem_results(&o, &lse, p);
    for (int64_t j = 0; j < p->shape.s_k; j++)
        for (int64_t e = 0; e < d; e++)
            store_at(&p->k, 0, j, 0, e, load_at(&p->k, 0, j, 0, e) + (e % 2 ? 2 : -1));
    problem_run(p);
    expect_oracle(p, 10);
    for (int64_t i = 0; i < p->shape.s_q; i++) {
        double shift = 0;

        for (int64_t e = 0; e < d; e++) shift += load_at(&p->q, 0, i, 1, e) * (e % 2 ? 2 : -1);
        const double before = ((float *)lse)[p->shape.s_q + i], now = lse_at(p, 1, i);
        const double want = before + problem_scale(p) * shift;

        if (keys_of(p, i) == 0) continue;
        cr_assert_leq(fabs(now - want), 5e-5 * fmax(1, fabs(want)), "%s: lse[%ld] %g, not %g",
                      problem_name(p), (long)i, now, want);
        for (int64_t e = 0; e < d; e++) {
            const double was = ls_dtype_load(
                p->shape.type, (char *)o + ((i * 2 + 1) * d + e) * ls_dtype_size(p->shape.type));
            const double is = load_at(&p->o, 0, i, 1, e);
            const double limit = 4 * (ls_dtype_unit(p->shape.type) + 1e-6) * fmax(1, fabs(was));

            cr_assert_leq(fabs(is - was), limit, "%s: o[%ld][%ld] %g was %g", problem_name(p),
                          (long)i, (long)e, is, was);
        }
    }
    free(o);
    free(lse);
}

/* Exchanges rows i and j of a [1, s, 1, d] tensor. */
static void swap_rows(struct ls_tensor *t, int64_t i, int64_t j)
{
    for (int64_t e = 0; e < t->dim[3]; e++) {
        const double kept = load_at(t, 0, i, 0, e);

        store_at(t, 0, i, 0, e, load_at(t, 0, j, 0, e));
        store_at(t, 0, j, 0, e, kept);
    }
}

/* Its own inverse: pairs of keys `distance` apart change places. */
static void permute(struct problem *p, int64_t distance)
{
    for (int64_t j = 0; j + distance < p->shape.s_k; j++) {
        if (j / distance % 2 != 0) continue;
        swap_rows(&p->k, j, j + distance);
        swap_rows(&p->v, j, j + distance);
    }
}

/* Whole leaves, keys inside a leaf, and keys anywhere. */
static void order_of_keys_hardly_matters(struct problem *p)
{
    static const int64_t distances[] = {LS_LEAF, 1, 100};

    if (p->options.causal) return;
    for (int c = 0; c < LENGTH(distances); c++) {
        permute(p, distances[c]);
        problem_run(p);
        permute(p, distances[c]);
        expect_oracle(p, 20);
    }
}

static bool same_number(double a, double b, bool bits, double tolerance)
{
    if (bits) return a == b && signbit(a) == signbit(b);
    return a == b || fabs(a - b) <= tolerance * fmax(1, fabs(b));
}

static void expect_row(const struct problem *p, int64_t i, const struct problem *want,
                       int64_t want_i, const char *what)
{
    const double tolerance = 4 * (ls_dtype_unit(p->shape.type) + 1e-6);
    const bool bits = variant->rows_keep_bits && has_few_rows(p) == has_few_rows(want);

    for (int64_t head = 0; head < p->shape.h; head++) {
        bool same = same_number(lse_at(p, head, i), lse_at(want, head, want_i), bits, tolerance);

        for (int64_t e = 0; e < p->shape.d; e++)
            same &= same_number(load_at(&p->o, 0, i, head, e),
                                load_at(&want->o, 0, want_i, head, e), bits, tolerance);
        cr_expect(same, "%s: row %ld head %ld %s", problem_name(p), (long)i, (long)head, what);
    }
}

/* A row of causal attention is that of one query that sees only its keys. */
static void causal_is_full_with_fewer_keys(struct problem *p)
{
    static const int64_t rows[] = {0, 1, 19, 155, 156, 255, 256, 259, 399};

    if (!p->options.causal) return;
    problem_run(p);
    for (int c = 0; c < LENGTH(rows) && rows[c] < p->shape.s_q; c++) {
        const int64_t i = rows[c], keys = keys_of(p, i);
        struct problem one = *p;

        one.options.causal = false;
        one.shape.s_q = 1;
        one.shape.s_k = keys;
        problem_open(&one);
        memcpy(one.q.data, element_at(&p->q, 0, i, 0), tensor_bytes(&one.q));
        memcpy(one.k.data, p->k.data, tensor_bytes(&one.k));
        memcpy(one.v.data, p->v.data, tensor_bytes(&one.v));
        problem_run(&one);
        expect_row(p, i, &one, 0, "differs from full attention over its keys");
        problem_close(&one);
    }
}

static void poison(struct ls_tensor *t, int64_t from, double value)
{
    for (int64_t j = from; j < t->dim[1]; j++)
        for (int64_t e = 0; e < t->dim[3]; e++) store_at(t, 0, j, 0, e, value);
}

/* Rows that do not see the keys from `from` on keep their bits whatever these hold; a NaN that is
 * seen shows. */
static void check_poison(struct problem *p, const struct problem *clean, int64_t from, double value,
                         bool in_k, bool in_v)
{
    memcpy(p->k.data, clean->k.data, tensor_bytes(&p->k));
    memcpy(p->v.data, clean->v.data, tensor_bytes(&p->v));
    if (in_k) poison(&p->k, from, value);
    if (in_v) poison(&p->v, from, value);
    problem_run(p);
    for (int64_t i = 0; i < p->shape.s_q; i++) {
        if (keys_of(p, i) <= from) {
            expect_row(p, i, clean, i, "changed by a key that it does not see");
            continue;
        }
        for (int64_t e = 0; isnan(value) && e < p->shape.d; e++)
            cr_assert(isnan(load_at(&p->o, 0, i, 1, e)), "%s: row %ld hides NaN of key %ld (%s%s)",
                      problem_name(p), (long)i, (long)from, in_k ? "k" : "", in_v ? "v" : "");
        if (isnan(value) && in_k)
            cr_assert(isnan(lse_at(p, 1, i)), "%s: lse of row %ld hides NaN of key %ld",
                      problem_name(p), (long)i, (long)from);
    }
}

static void masked_keys_change_nothing(struct problem *p)
{
    static const struct {
        int64_t from;
        double value;
        bool in_k, in_v;
    } cases[] = {{100, NAN, true, true},
                 {1, NAN, false, true},
                 {255, INFINITY, false, true},
                 {270, NAN, true, false}};
    struct problem clean = *p;

    if (!p->options.causal || p->shape.s_q < 260) return;
    problem_open(&clean);
    problem_run(&clean);
    for (int c = 0; c < LENGTH(cases); c++)
        check_poison(p, &clean, cases[c].from, cases[c].value, cases[c].in_k, cases[c].in_v);
    problem_close(&clean);
}

/* Logits far beyond what exp takes. */
static void huge_logits(struct problem *p)
{
    fill_normal(&p->q, 0, 100);
    fill_normal(&p->k, 1, 100);
    problem_run(p);
    expect_oracle(p, 20);
}

static void flat_logits(struct problem *p)
{
    fill_constant(&p->q, 0);
    problem_run(p);
    expect_oracle(p, 20);
    for (int64_t i = 0; i < p->shape.s_q; i++) {
        const double want = log((double)keys_of(p, i));

        cr_assert(want == lse_at(p, 0, i) || fabs(lse_at(p, 0, i) - want) <= 1e-5 * fmax(1, want),
                  "%s: lse[%ld] = %g, not %g", problem_name(p), (long)i, lse_at(p, 0, i), want);
    }
}

/* One key far above the others: o is its v. */
static void one_hot_logits(struct problem *p)
{
    const int64_t hot = p->shape.s_k - 3;

    fill_constant(&p->q, 100);
    fill_constant(&p->k, -1);
    for (int64_t e = 0; e < p->shape.d; e++) store_at(&p->k, 0, hot, 0, e, 1);
    problem_run(p);
    expect_oracle(p, 10);
    for (int64_t e = 0; e < p->shape.d; e++) {
        const double o = load_at(&p->o, 0, p->shape.s_q - 1, 0, e);
        const double v = load_at(&p->v, 0, hot, 0, e);

        cr_assert_leq(fabs(o - v), 2.5 * ls_dtype_unit(p->shape.type) * fabs(v), "%s: %g, not %g",
                      problem_name(p), o, v);
    }
}

static double steep_key(int64_t j, double step)
{
    if (step == INFINITY) return j % LS_LEAF < 40 ? -INFINITY : 1;
    return j % LS_LEAF < 32 ? 0 : 8 * step;
}

/* The first keys of each leaf are below or above the others, by more than exponents hold in the
 * end; and values are as large as their products allow. */
static void first_keys_are_no_measure(struct problem *p)
{
    static const double steps[] = {2, -2, 6, -6, 14, -14, INFINITY};
    const double width = 1 / sqrt((double)p->shape.d);
    const int power = p->shape.type == LS_F16 ? 10 : p->options.causal ? 33 : 110;

    fill_constant(&p->q, 1);
    for (int64_t i = 0; i < elements(&p->v); i++) {
        char *v = (char *)p->v.data + i * ls_dtype_size(p->shape.type);
        ls_dtype_store(p->shape.type, v, ldexp(ls_dtype_load(p->shape.type, v), power));
    }
    for (int c = 0; c < LENGTH(steps); c++) {
        for (int64_t j = 0; j < p->shape.s_k; j++)
            for (int64_t e = 0; e < p->shape.d; e++)
                store_at(&p->k, 0, j, 0, e, steep_key(j, steps[c]) * width);
        problem_run(p);
        expect_oracle(p, 10);
    }
}

/* A key with a score of -inf counts as not seen, a row of nothing else sees nothing. */
static void infinitely_small_logits(struct problem *p)
{
    for (int64_t i = 0; i < p->shape.s_q; i++)
        for (int64_t head = 0; head < p->shape.h; head++)
            store_at(&p->q, 0, i, head, 0, i % 4 == 3 ? 1 : fabs(load_at(&p->q, 0, i, 0, 0)) + 1);
    for (int64_t j = 0; j < p->shape.s_k; j++)
        if (j < 260 || j % 3 == 0) store_at(&p->k, 0, j, 0, 0, -INFINITY);
    problem_run(p);
    expect_oracle(p, 20);
    poison(&p->k, 0, 0);
    for (int64_t j = 0; j < p->shape.s_k; j++) store_at(&p->k, 0, j, 0, 0, -INFINITY);
    problem_run(p);
    for (int64_t i = 0; i < p->shape.s_q; i++) {
        cr_assert_eq(lse_at(p, 1, i), -INFINITY, "%s: row %ld", problem_name(p), (long)i);
        cr_assert_eq(load_at(&p->o, 0, i, 1, 0), 0, "%s: row %ld", problem_name(p), (long)i);
    }
}

/* A NaN in one query is in its row and no other. */
static void nan_in_a_query_stays_there(struct problem *p)
{
    struct problem clean = *p;
    const int64_t bad = p->shape.s_q - 2;

    problem_open(&clean);
    problem_run(&clean);
    store_at(&p->q, 0, bad, 0, 3, NAN);
    store_at(&p->q, 0, bad, 1, 3, NAN);
    problem_run(p);
    for (int64_t i = 0; i < p->shape.s_q; i++) {
        if (i != bad)
            expect_row(p, i, &clean, i, "changed by another row's NaN");
        else if (keys_of(p, i) > 0)
            cr_expect(isnan(lse_at(p, 1, i)) && isnan(load_at(&p->o, 0, i, 1, 0)), "%s",
                      problem_name(p));
    }
    problem_close(&clean);
}

/* Products positive in the first half of the elements and negative in the second: their sum rises
 * to half of all and falls back, which costs lse most, and most where a row sees one key. */
static void sums_that_rise_and_fall(void)
{
    static const int64_t widths[] = {16, 64, 128, 256}, keys[] = {1, 3, 40};

    for (int c = 0; c < LENGTH(types) * LENGTH(widths) * LENGTH(keys); c++) {
        struct problem p = {
            .shape = {1, 1, 1, 300, keys[c % 3], widths[c / 3 % 4], types[c / 12], 0},
            .options = {.has_scale = true, .scale = 1}};
        const int64_t d = p.shape.d;

        problem_open(&p);
        for (int64_t i = 0; i < elements(&p.q); i++)
            store_at(&p.q, 0, i / d, 0, i % d, fabs(load_at(&p.q, 0, i / d, 0, i % d)));
        for (int64_t j = 0; j < elements(&p.k); j++)
            store_at(&p.k, 0, j / d, 0, j % d,
                     copysign(load_at(&p.k, 0, j / d, 0, j % d), j % d < d / 2 ? 1 : -1));
        problem_run(&p);
        expect_oracle(&p, 300);
        problem_close(&p);
    }
}

static void sums(void)
{
    each_problem(values_of_one_give_one);
    each_problem(shifted_keys_shift_lse);
    each_problem(order_of_keys_hardly_matters);
    sums_that_rise_and_fall();
}

static void masks(void)
{
    each_problem(causal_is_full_with_fewer_keys);
    each_problem(masked_keys_change_nothing);
}

static void extremes(void)
{
    each_problem(huge_logits);
    each_problem(flat_logits);
    each_problem(one_hot_logits);
    each_problem(first_keys_are_no_measure);
    each_problem(infinitely_small_logits);
    each_problem(nan_in_a_query_stays_there);
}

TestSuite(attention_properties, .timeout = 600);
TEST_EACH_VARIANT(attention_properties, sums)
TEST_EACH_VARIANT(attention_properties, masks)
TEST_EACH_VARIANT(attention_properties, extremes)
