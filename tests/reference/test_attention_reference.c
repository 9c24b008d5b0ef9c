#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "plain.h"

#define CLOSE 1e-13 /* what a few hundred double roundings may amount to, of numbers near 1 */

enum { D = 19, D_V = 23, KEYS = 150 };

/* One query and its keys; k [KEYS, D], v [KEYS, D_V]. */
struct problem {
    double q[D], k[KEYS * D], v[KEYS * D_V];
    double scale;
};

struct answer {
    double o[D_V], lse;
};

static void draw(double *out, int64_t n, uint32_t stream)
{
    for (int64_t i = 0; i < n; i++) {
        float x;

        ls_random_normal(&x, 7, stream, (uint64_t)i, 1);
        out[i] = x;
    }
}

static struct problem random_problem(void)
{
    struct problem p = {.scale = 0.25};

    draw(p.q, D, 0);
    draw(p.k, KEYS * D, 1);
    draw(p.v, KEYS * D_V, 2);
    return p;
}

/* The state of a row that saw keys [begin, end). */
static struct ls_reference_row see(const struct problem *p, int begin, int end)
{
    struct ls_reference_row row;

    ls_reference_row_init(&row);
    add_plain(&row, p->q, p->k + begin * D, p->v + begin * D_V, end - begin, D, D_V, p->scale);
    return row;
}

static struct answer finish(const struct ls_reference_row *row)
{
    struct answer a;

    ls_reference_row_finish(a.o, &a.lse, row, D_V);
    return a;
}

static struct answer solve(const struct problem *p)
{
    const struct ls_reference_row row = see(p, 0, KEYS);

    return finish(&row);
}

static void expect_close(const struct answer *a, const struct answer *b, const char *what)
{
    for (int e = 0; e < D_V; e++)
        cr_expect_float_eq(a->o[e], b->o[e], CLOSE, "%s: o[%d] is %.17g, expected %.17g", what, e,
                           a->o[e], b->o[e]);
    cr_expect_float_eq(a->lse, b->lse, CLOSE, "%s: lse is %.17g, expected %.17g", what, a->lse,
                       b->lse);
}

/* Two keys with scores log 3 and 0, so that the probabilities are 3/4 and 1/4. */
Test(attention_reference, two_keys_by_hand)
{
    const double q[2] = {1, 2}, k[4] = {2 * log(3), 0, 2, -1}, v[4] = {8, -4, 0, 12};
    struct ls_reference_row row;
    double o[2], lse;

    ls_reference_row_init(&row);
    add_plain(&row, q, k, v, 2, 2, 2, -0.5 * -1);
    ls_reference_row_finish(o, &lse, &row, 2);
    cr_expect_float_eq(o[0], 6, 1e-14);
    cr_expect_float_eq(o[1], 0, 1e-14);
    cr_expect_float_eq(lse, log(4), 1e-15);
    cr_expect_float_eq(row.majorant[1] / row.l, 6, 1e-14);
    cr_expect_float_eq(row.spread[1] / (row.l * row.l), 18, 1e-13);
    cr_expect_eq(row.v_abs[1], 16);
    cr_expect_float_eq(row.kappa, 2, 1e-15, "the second key has |1 x 2| + |2 x -1|, halved");
}

Test(attention_reference, kappa_of_a_negative_scale_is_positive)
{
    struct problem p = random_problem();
    const double positive = see(&p, 0, KEYS).kappa;

    p.scale = -p.scale;
    cr_expect_gt(positive, 0);
    cr_expect_eq(see(&p, 0, KEYS).kappa, positive);
}

/* The definition itself, without a maximum, in a wider type. */
Test(attention_reference, equals_the_plain_formula)
{
    const struct problem p = random_problem();
    const struct answer got = solve(&p);
    struct answer plain;
    long double l = 0, o[D_V] = {0};

    for (int j = 0; j < KEYS; j++) {
        long double dot = 0;

        for (int e = 0; e < D; e++) dot += (long double)p.q[e] * p.k[j * D + e];
        l += expl(dot * p.scale);
        for (int e = 0; e < D_V; e++) o[e] += expl(dot * p.scale) * p.v[j * D_V + e];
    }
    for (int e = 0; e < D_V; e++) plain.o[e] = (double)(o[e] / l);
    plain.lse = (double)logl(l);
    expect_close(&got, &plain, "150 keys");
}

Test(attention_reference, constant_values_come_out_unchanged)
{
    struct problem p = random_problem();

    for (int i = 0; i < KEYS * D_V; i++) p.v[i] = 1;
    const struct answer a = solve(&p);

    for (int e = 0; e < D_V; e++) cr_expect_float_eq(a.o[e], 1, CLOSE);
}

Test(attention_reference, moving_all_keys_moves_only_lse)
{
    struct problem p = random_problem();
    struct answer expected = solve(&p);

    for (int e = 0; e < D; e++) {
        const double c = 0.25 * (e % 5) - 0.5;

        for (int j = 0; j < KEYS; j++) p.k[j * D + e] += c;
        expected.lse += p.scale * p.q[e] * c;
    }
    const struct answer moved = solve(&p);

    expect_close(&moved, &expected, "K + c");
}

Test(attention_reference, order_of_keys_does_not_matter)
{
    const struct problem p = random_problem();
    struct problem mixed = p;

    for (int j = 0; j < KEYS; j++) {
        const int from = j * 77 % KEYS; /* 77 and 150 have no common factor */

        memcpy(mixed.k + j * D, p.k + from * D, D * sizeof(double));
        memcpy(mixed.v + j * D_V, p.v + from * D_V, D_V * sizeof(double));
    }
    const struct answer a = solve(&mixed), b = solve(&p);

    expect_close(&a, &b, "permuted keys");
}

static void expect_same_state(const struct ls_reference_row *a, const struct ls_reference_row *b,
                              const char *what)
{
    cr_expect_float_eq(a->m, b->m, CLOSE, "%s", what);
    cr_expect_float_eq(a->l, b->l, CLOSE * b->l, "%s", what);
    cr_expect_float_eq(a->kappa, b->kappa, CLOSE, "%s", what);
    cr_expect_float_eq(a->bias, b->bias, CLOSE * b->bias, "%s", what);
    for (int e = 0; e < D_V; e++) {
        cr_expect_float_eq(a->acc[e], b->acc[e], CLOSE * b->majorant[e], "%s: acc", what);
        cr_expect_float_eq(a->majorant[e], b->majorant[e], CLOSE * b->majorant[e], "%s: majorant",
                           what);
        cr_expect_float_eq(a->biased[e], b->biased[e], CLOSE * b->biased[e], "%s: biased", what);
        cr_expect_float_eq(a->spread[e], b->spread[e], CLOSE * b->spread[e], "%s: spread", what);
        cr_expect_float_eq(a->v_abs[e], b->v_abs[e], CLOSE * b->v_abs[e], "%s: v_abs", what);
    }
}

Test(attention_reference, any_cut_of_the_keys_gives_the_same_state)
{
    const struct problem p = random_problem();
    const struct ls_reference_row whole = see(&p, 0, KEYS);

    for (int cut = 0; cut <= KEYS; cut += cut == 0 ? 1 : 7) {
        const struct ls_reference_row head = see(&p, 0, cut), tail = see(&p, cut, KEYS);
        struct ls_reference_row forwards = head, backwards = tail, added = head;

        ls_reference_row_merge(&forwards, &tail, D_V);
        ls_reference_row_merge(&backwards, &head, D_V);
        add_plain(&added, p.q, p.k + cut * D, p.v + cut * D_V, KEYS - cut, D, D_V, p.scale);
        expect_same_state(&forwards, &whole, "merged");
        expect_same_state(&backwards, &whole, "merged the other way round");
        expect_same_state(&added, &whole, "added");
    }
}

Test(attention_reference, any_cut_gives_the_same_state_under_any_mask_and_score)
{
    const struct problem p = random_problem();
    const float slope = 0.01f, sink = 2;
    const int64_t documents[] = {0, 40, KEYS};
    const struct ls_mask_rule rule = {.s_q = 1,
                                      .s_k = KEYS,
                                      .shift = 120,
                                      .left = 60,
                                      .right = 5,
                                      .prefix = 7,
                                      .documents = documents,
                                      .document_count = 2};
    struct ls_band bands[MOST_BANDS];
    const struct ls_mask mask = mask_by(&rule, bands);
    const struct ls_scores scores = {.scale = 0.25f,
                                     .soft_cap = 2,
                                     .alibi = &slope,
                                     .sinks = &sink,
                                     .dropout = 0.3f,
                                     .heads = 1};
    const struct ls_reference_query query = {.q = p.q, .mask = &mask, .scores = &scores};
    struct ls_reference_row whole;

    ls_reference_row_init(&whole);
    ls_reference_row_add(&whole, &query, p.k, p.v, 0, KEYS, D, D_V);
    ls_reference_row_add_sink(&whole, &query, D_V);
    cr_expect_gt(whole.bias, 0);
    for (int cut = 0; cut <= KEYS; cut++) {
        struct ls_reference_row head, tail;

        ls_reference_row_init(&head);
        ls_reference_row_init(&tail);
        ls_reference_row_add(&head, &query, p.k, p.v, 0, cut, D, D_V);
        ls_reference_row_add(&tail, &query, p.k + cut * D, p.v + cut * D_V, cut, KEYS - cut, D,
                             D_V);
        ls_reference_row_merge(&head, &tail, D_V);
        ls_reference_row_add_sink(&head, &query, D_V);
        expect_same_state(&head, &whole, "merged");
    }
}

Test(attention_reference, merging_with_empty_changes_no_bit)
{
    const struct problem p = random_problem();
    const struct ls_reference_row seen = see(&p, 0, KEYS), empty = see(&p, 0, 0);
    struct ls_reference_row left = seen, right = empty, both = empty;

    ls_reference_row_merge(&left, &empty, D_V);
    ls_reference_row_merge(&right, &seen, D_V);
    ls_reference_row_merge(&both, &empty, D_V);
    cr_expect_eq(memcmp(&left, &seen, sizeof seen), 0);
    cr_expect_eq(memcmp(&right, &seen, sizeof seen), 0);
    cr_expect_eq(memcmp(&both, &empty, sizeof empty), 0);
}

static void expect_empty(const struct answer *a, const char *what)
{
    for (int e = 0; e < D_V; e++) cr_expect_eq(a->o[e], 0, "%s: o[%d] is %g", what, e, a->o[e]);
    cr_expect_eq(a->lse, -INFINITY, "%s: lse is %g", what, a->lse);
}

Test(attention_reference, no_key_gives_zero_and_minus_infinity)
{
    const struct problem p = random_problem();
    const struct ls_reference_row row = see(&p, 0, 0);
    const struct answer a = finish(&row);

    expect_empty(&a, "no key");
}

/* Makes the score of key j minus infinity, and its value something that must not be touched. */
static void mask_key(struct problem *p, int j)
{
    p->q[0] = 1;
    p->k[j * D] = -INFINITY;
    for (int e = 0; e < D_V; e++) p->v[j * D_V + e] = e % 2 ? NAN : INFINITY;
}

Test(attention_reference, a_score_of_minus_infinity_counts_as_unseen)
{
    struct problem p = random_problem(), masked;
    struct ls_reference_row row;

    p.q[0] = 1;
    masked = p;
    for (int j = 100; j < KEYS; j++) mask_key(&masked, j);
    row = see(&masked, 0, KEYS);
    const struct ls_reference_row first = see(&p, 0, 100);

    expect_same_state(&row, &first, "the last 50 keys masked");
    row = see(&masked, 100, KEYS);
    const struct answer none = finish(&row);

    expect_empty(&none, "all keys masked");
}

Test(attention_reference, a_nan_anywhere_gives_nan)
{
    static const int keys[] = {0, 63, 64, KEYS - 1};

    for (int c = 0; c < 4; c++) {
        struct problem p = random_problem();

        p.k[keys[c] * D + 3] = NAN;
        const struct answer from_k = solve(&p);
        struct ls_reference_row merged = see(&p, 0, 70), rest = see(&p, 70, KEYS);
        ls_reference_row_merge(&merged, &rest, D_V);
        const struct answer from_merge = finish(&merged);

        cr_expect(isnan(from_k.o[0]) && isnan(from_k.lse), "NaN in key %d", keys[c]);
        cr_expect(isnan(from_merge.o[0]) && isnan(from_merge.lse), "merged, key %d", keys[c]);
        p = random_problem();
        p.v[keys[c] * D_V + 3] = NAN;
        const struct answer from_v = solve(&p);

        cr_expect(isnan(from_v.o[3]), "NaN in value %d", keys[c]);
        cr_expect(!isnan(from_v.o[2]) && !isnan(from_v.lse));
    }
    struct problem p = random_problem();

    for (int e = 0; e < D; e++) p.q[e] = NAN;
    const struct answer from_q = solve(&p);

    cr_expect(isnan(from_q.o[0]) && isnan(from_q.lse), "NaN in the query");
}

Test(attention_reference, huge_scores_select_one_key)
{
    struct problem p = random_problem();

    p.scale = 1;
    for (int e = 0; e < D; e++) p.q[e] = e == 0 ? 1 : 0;
    for (int j = 0; j < KEYS; j++) p.k[j * D] = -1e4;
    p.k[97 * D] = 1e4;
    const struct answer a = solve(&p);

    cr_expect_arr_eq(a.o, p.v + 97 * D_V, sizeof a.o);
    cr_expect_eq(a.lse, 1e4);
}
