/* The oracle's gradients against differences of its own forward, and properties that hold for any
 * input. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "whole.h"

/* A whole problem on the way back. */
struct back {
    struct whole w;
    struct ls_tensor d_o, dlse, dq, dk, dv, dsinks, ddistance, dbias;
    double d_o_data[B * S_Q * H * VALUE], dlse_data[B * H * S_Q];
    double dq_data[B * S_Q * H * HEAD], dk_data[B * S_K * H_KV * HEAD];
    double dv_data[B * S_K * H_KV * VALUE], dsinks_data[H], ddistance_data[H * 5];
    double dbias_data[B * H * S_Q * S_K];
    struct ls_mask mask;
    struct ls_band bands[MOST_BANDS];
    struct ls_scores scores;
    float sinks[H], biases[H][5];
};

static void open_back(struct back *p, int c)
{
    const struct ls_mask_rule rule = rule_of(c);

    setup(&p->w, LS_F64, false);
    p->d_o = random_tensor(p->d_o_data, LS_F64, S_Q, H, VALUE, false, 3);
    p->dlse = ls_tensor_view(p->dlse_data, LS_F64, 3, (const int64_t[]){B, H, S_Q});
    for (int i = 0; i < B * H * S_Q; i++) p->dlse_data[i] = 0.1 * (i % 7) - 0.3;
    p->dq = ls_tensor_view(p->dq_data, LS_F64, 4, p->w.q.dim);
    p->dk = ls_tensor_view(p->dk_data, LS_F64, 4, p->w.k.dim);
    p->dv = ls_tensor_view(p->dv_data, LS_F64, 4, p->w.v.dim);
    p->dsinks = ls_tensor_view(p->dsinks_data, LS_F64, 1, (const int64_t[]){H});
    p->ddistance = ls_tensor_view(p->ddistance_data, LS_F64, 2, (const int64_t[]){H, 5});
    p->mask = mask_by(&rule, p->bands);
    p->scores = scores_of(c);
    memcpy(p->sinks, sinks, sizeof p->sinks);
    if (p->scores.sinks) p->scores.sinks = p->sinks;
    memcpy(p->biases, biases, sizeof p->biases);
    if (p->scores.distance_bias) p->scores.distance_bias = p->biases[0];
    p->dbias = ls_tensor_view(p->dbias_data, LS_F64, 4,
                              (const int64_t[]){p->scores.bias_entry > 0 ? B : 1,
                                                p->scores.bias_head > 0 ? H : 1, S_Q, S_K});
}

static void run_back(struct back *p)
{
    const struct ls_attention_gradients out = {.dq = &p->dq,
                                               .dk = &p->dk,
                                               .dv = &p->dv,
                                               .dsinks = p->scores.sinks ? &p->dsinks : NULL,
                                               .ddistance_bias =
                                                   p->scores.distance_bias ? &p->ddistance : NULL,
                                               .dbias = p->scores.bias ? &p->dbias : NULL};
    const struct ls_attention_saved saved = {
        .q = &p->w.q, .k = &p->w.k, .v = &p->w.v, .d_o = &p->d_o, .dlse = &p->dlse};

    cr_assert_eq(ls_reference_attention_backward(&out, &saved, ALONE(&p->mask), &p->scores), LS_OK);
}

/* sum d_o o + sum dlse lse, of which the gradients are taken; rows that see nothing have no lse. */
static double loss(struct back *p)
{
    struct whole *w = &p->w;
    double sum = 0;

    cr_assert_eq(
        ls_reference_attention(&w->o, &w->lse, &w->q, &w->k, &w->v, ALONE(&p->mask), &p->scores),
        LS_OK);
    for (int i = 0; i < B * S_Q * H * VALUE; i++) sum += p->d_o_data[i] * w->o_data[i];
    for (int i = 0; i < B * H * S_Q; i++)
        if (w->lse_data[i] != -INFINITY) sum += p->dlse_data[i] * w->lse_data[i];
    return sum;
}

#define STEP 1e-4 /* the error of a difference is some STEP^2, and 1e-15 / STEP */

static void expect_slopes(struct back *p, double *x, const double *dx, int n, const char *what,
                          const char *name)
{
    for (int i = 0; i < n; i++) {
        const double x0 = x[i];

        x[i] = x0 + STEP;
        const double up = loss(p);

        x[i] = x0 - STEP;
        const double slope = (up - loss(p)) / (2 * STEP);

        x[i] = x0;
        cr_expect_float_eq(dx[i], slope, 1e-6, "%s: %s[%d] is %g, by difference %g", name, what, i,
                           dx[i], slope);
    }
}

/* Of sinks and biases, which are f32. */
static void expect_slopes_f32(struct back *p, float *x, const double *dx, int n, const char *what,
                              const char *name)
{
    for (int i = 0; i < n; i++) {
        const float x0 = x[i];

        x[i] = x0 + 0x1p-10f;
        const double up = loss(p);

        x[i] = x0 - 0x1p-10f;
        const double slope = (up - loss(p)) * 0x1p9;

        x[i] = x0;
        cr_expect_float_eq(dx[i], slope, 1e-5, "%s: %s[%d] is %g, not %g", name, what, i, dx[i],
                           slope);
    }
}

Test(gradient_reference, is_the_slope_of_forward_for_every_mask_and_score)
{
    for (int c = 0; c < CASES; c++) {
        static struct back p;

        open_back(&p, c);
        run_back(&p);
        expect_slopes(&p, p.w.q_data, p.dq_data, B * S_Q * H * HEAD, "dq", cases[c].name);
        expect_slopes(&p, p.w.k_data, p.dk_data, B * S_K * H_KV * HEAD, "dk", cases[c].name);
        expect_slopes(&p, p.w.v_data, p.dv_data, B * S_K * H_KV * VALUE, "dv", cases[c].name);
        if (p.scores.sinks)
            expect_slopes_f32(&p, p.sinks, p.dsinks_data, H, "dsinks", cases[c].name);
        if (p.scores.distance_bias)
            expect_slopes_f32(&p, p.biases[0], p.ddistance_data, H * 5, "ddistance_bias",
                              cases[c].name);
        if (p.scores.bias)
            expect_slopes_f32(&p, pair_biases, p.dbias_data,
                              (int)(p.dbias.dim[0] * p.dbias.dim[1]) * S_Q * S_K, "dbias",
                              cases[c].name);
    }
}

/* o stays where it is, lse moves by scale q.c */
Test(gradient_reference, moving_all_keys_moves_dq_by_dlse)
{
    static struct back p, moved;

    open_back(&p, 0);
    open_back(&moved, 0);
    for (int i = 0; i < B * S_K * H_KV * HEAD; i++) moved.w.k_data[i] += 0.1 * (i % HEAD);
    run_back(&p);
    run_back(&moved);
    for (int i = 0; i < B * S_Q * H * HEAD; i++) {
        const int e = i % HEAD, h = i / HEAD % H, at = i / HEAD / H % S_Q, b = i / HEAD / H / S_Q;
        const double dlse = p.dlse_data[(b * H + h) * S_Q + at];

        cr_expect_float_eq(moved.dq_data[i], p.dq_data[i] + p.scores.scale * dlse * 0.1 * e, 1e-13,
                           "dq[%d]", i);
    }
}

/* Sums over positions of one head's rows. */
static void sum_rows(double *out, const struct ls_tensor *t, int b, int first_head, int heads)
{
    memset(out, 0, (size_t)t->dim[3] * sizeof *out);
    for (int h = first_head; h < first_head + heads; h++)
        for (int s = 0; s < t->dim[1]; s++)
            for (int e = 0; e < t->dim[3]; e++) out[e] += element(t, b, s, h, e);
}

/* Every row's probabilities add up to 1, and what moves one logit up moves the others down. */
Test(gradient_reference, sums_over_keys_are_known)
{
    static struct back p;

    open_back(&p, 1);
    p.dlse.data = memset(p.dlse_data, 0, sizeof p.dlse_data);
    for (int i = HEAD; i < B * S_Q * H * HEAD; i++) p.w.q_data[i] = p.w.q_data[i % HEAD];
    run_back(&p);
    for (int i = 0; i < B * H_KV; i++) {
        double dk[HEAD], dv[VALUE], d_o[VALUE];

        sum_rows(dk, &p.dk, i / H_KV, i % H_KV, 1);
        sum_rows(dv, &p.dv, i / H_KV, i % H_KV, 1);
        sum_rows(d_o, &p.d_o, i / H_KV, i % H_KV * (H / H_KV), H / H_KV);
        for (int e = 0; e < HEAD; e++) cr_expect_float_eq(dk[e], 0, 1e-13, "sum of dk: %g", dk[e]);
        for (int e = 0; e < VALUE; e++)
            cr_expect_float_eq(dv[e], d_o[e], 1e-13, "sum of dv: %g, of d_o: %g", dv[e], d_o[e]);
    }
}

Test(gradient_reference, keys_that_nobody_sees_do_not_matter_and_get_nothing)
{
    static struct back p, spoilt;
    const int unseen = 3; /* window 0, 0 from the start: queries see the first S_Q keys */

    cr_assert_str_eq(cases[5].name, "window 0, 0");
    open_back(&p, 5);
    open_back(&spoilt, 5);
    p.mask.one.low = p.mask.one.high = S_K - S_Q;
    spoilt.mask.one = p.mask.one;
    for (int b = 0; b < B; b++) {
        for (int i = 0; i < (S_K - S_Q) * H_KV * HEAD; i++)
            spoilt.w.k_data[b * S_K * H_KV * HEAD + i] = i % unseen ? NAN : INFINITY;
        for (int i = 0; i < (S_K - S_Q) * H_KV * VALUE; i++)
            spoilt.w.v_data[b * S_K * H_KV * VALUE + i] = i % unseen ? INFINITY : NAN;
    }
    run_back(&p);
    run_back(&spoilt);
    cr_expect_arr_eq(p.dq_data, spoilt.dq_data, sizeof p.dq_data);
    cr_expect_arr_eq(p.dk_data, spoilt.dk_data, sizeof p.dk_data);
    cr_expect_arr_eq(p.dv_data, spoilt.dv_data, sizeof p.dv_data);
    for (int i = 0; i < (S_K - S_Q) * H_KV * HEAD; i++) cr_expect_eq(p.dk_data[i], 0);
    for (int i = 0; i < (S_K - S_Q) * H_KV * VALUE; i++) cr_expect_eq(p.dv_data[i], 0);
}

/* ---- rows, cut and merged */

#define EACH_ARRAY(x)                                                                              \
    x(value) x(majorant) x(strained) x(factors) x(flushed) x(spread) x(base) x(pull)

static void expect_same_sum(const struct ls_reference_sum *a, const struct ls_reference_sum *b,
                            const char *what)
{
    for (int e = 0; e < HEAD; e++) {
#define EXPECT_CLOSE(array)                                                                        \
    cr_expect_float_eq(a->array[e], b->array[e], 1e-13 * fmax(1, fabs(b->array[e])),               \
                       "%s: " #array "[%d] is %g, not %g", what, e, a->array[e], b->array[e]);
        EACH_ARRAY(EXPECT_CLOSE)
#undef EXPECT_CLOSE
    }
    cr_expect_eq(a->pulled2, b->pulled2, "%s", what);
    cr_expect_eq(a->kappa, b->kappa, "%s", what);
    cr_expect_eq(a->terms, b->terms, "%s", what);
}

Test(gradient_reference, a_row_of_dq_is_the_sum_over_any_cut_of_the_keys)
{
    static struct back p;
    static struct ls_reference_sum whole, head, tail;

    open_back(&p, CASES - 1);
    struct ls_reference_backward row = {
        .query = {p.w.q_data, &p.mask, &p.scores, 0, 1, 2}, .d_o = p.d_o_data, .rounded_o = true};

    ls_reference_backward_set(&row, p.w.v_data, 1.5, 0.25, VALUE);
    ls_reference_sum_init(&whole);
    ls_reference_add_dq(&whole, &row, p.w.k_data, p.w.v_data, 0, S_K, HEAD, VALUE);
    cr_expect_gt(whole.terms, 1);
    for (int cut = 0; cut <= S_K; cut++) {
        ls_reference_sum_init(&head);
        ls_reference_sum_init(&tail);
        ls_reference_add_dq(&head, &row, p.w.k_data, p.w.v_data, 0, cut, HEAD, VALUE);
        ls_reference_add_dq(&tail, &row, p.w.k_data + cut * HEAD, p.w.v_data + cut * VALUE, cut,
                            S_K - cut, HEAD, VALUE);
        ls_reference_sum_merge(&head, &tail, HEAD);
        expect_same_sum(&head, &whole, "dq");
    }
}
