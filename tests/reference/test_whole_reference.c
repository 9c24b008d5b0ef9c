#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "whole.h"

/* Whether query i sees key j, by the words of the definition. */
static bool sees(const struct ls_mask_rule *rule, int64_t i, int64_t j)
{
    const int64_t at = i + rule->shift;
    int64_t of_query = -1, of_key = -1;

    if (j < rule->prefix) return true;
    for (int64_t n = 0; n < rule->document_count; n++) {
        if (at >= rule->documents[n] && at < rule->documents[n + 1]) of_query = n;
        if (j >= rule->documents[n] && j < rule->documents[n + 1]) of_key = n;
    }
    return (rule->left == INT64_MAX || at - rule->left <= j) &&
           (rule->right == INT64_MAX || j <= at + rule->right) &&
           (!rule->documents || (of_query >= 0 && of_query == of_key));
}

static double logit(const struct whole *w, const struct ls_mask_rule *rule,
                    const struct ls_scores *scores, int b, int h, int i, int j)
{
    double dot = 0;

    for (int e = 0; e < HEAD; e++)
        dot += element(&w->q, b, i, h, e) * element(&w->k, b, j, h / (H / H_KV), e);
    dot *= scores->scale;
    if (scores->soft_cap > 0) dot = scores->soft_cap * tanh(dot / scores->soft_cap);
    if (scores->alibi) dot -= scores->alibi[h] * fabs((double)(i + rule->shift - j));
    if (scores->distance_bias) {
        const int64_t most = scores->distances / 2, distance = j - (i + rule->shift);
        const int64_t near = distance < -most ? -most : distance > most ? most : distance;

        dot += scores->distance_bias[h * scores->distances + most + near];
    }
    if (scores->bias)
        dot += scores->bias[b * scores->bias_entry + h * scores->bias_head + i * S_K + j];
    return dot;
}

/* What dropout makes of a probability. */
static double drop(const struct ls_scores *scores, int b, int h, int i, int j)
{
    bool kept[4];

    if (scores->dropout == 0) return 1;
    ls_dropout_kept(kept, scores, b, h, i, j / 4 * 4, 4);
    return kept[j % 4] ? 1 / (1 - (double)scores->dropout) : 0;
}

static void expect_plain_formula(const struct whole *w, const struct ls_mask_rule *rule,
                                 const struct ls_scores *scores, const char *what)
{
    for (int n = 0; n < B * H * S_Q; n++) {
        const int b = n / (H * S_Q), h = n / S_Q % H, i = n % S_Q;
        double l = scores->sinks ? exp(scores->sinks[h]) : 0, o[VALUE] = {0};

        for (int j = 0; j < S_K; j++) {
            if (!sees(rule, i, j)) continue;
            const double weight = exp(logit(w, rule, scores, b, h, i, j));

            l += weight;
            for (int e = 0; e < VALUE; e++)
                o[e] += weight * drop(scores, b, h, i, j) * element(&w->v, b, j, h / (H / H_KV), e);
        }
        for (int e = 0; e < VALUE; e++)
            cr_expect_float_eq(w->o_data[((b * S_Q + i) * H + h) * VALUE + e], l > 0 ? o[e] / l : 0,
                               1e-13, "%s: o of batch %d, query %d, head %d", what, b, i, h);
        if (l > 0) cr_expect_float_eq(w->lse_data[n], log(l), 1e-13, "%s: lse %d", what, n);
        if (l == 0) cr_expect_eq(w->lse_data[n], -INFINITY, "%s: lse %d", what, n);
    }
}

Test(whole_reference, equals_the_plain_formula_for_any_type_order_mask_and_score)
{
    for (int i = 0; i < 4 * 2 * CASES; i++) {
        const ls_dtype type = i / (2 * CASES);
        const bool swapped = i & 1;
        const struct ls_mask_rule rule = rule_of(i / 2 % CASES);
        const struct ls_scores scores = scores_of(i / 2 % CASES);
        struct ls_band bands[MOST_BANDS];
        const struct ls_mask mask = mask_by(&rule, bands);
        struct whole w;
        char what[64];

        snprintf(what, sizeof what, "%s%s %s", ls_dtype_name(type), swapped ? " swapped" : "",
                 cases[i / 2 % CASES].name);
        setup(&w, type, swapped);
        cr_assert_eq(ls_reference_attention(&w.o, &w.lse, &w.q, &w.k, &w.v, ALONE(&mask), &scores),
                     LS_OK);
        expect_plain_formula(&w, &rule, &scores, what);
    }
}

Test(whole_reference, without_keys_all_rows_are_empty)
{
    const struct ls_mask mask = full_mask(S_Q, 0);
    const struct ls_scores scores = scores_of(0);
    struct whole w;

    setup(&w, LS_F64, false);
    w.k.dim[1] = w.v.dim[1] = 0;
    cr_assert_eq(ls_reference_attention(&w.o, &w.lse, &w.q, &w.k, &w.v, ALONE(&mask), &scores),
                 LS_OK);
    for (int n = 0; n < B * H * S_Q; n++) cr_expect_eq(w.lse_data[n], -INFINITY);
    for (int n = 0; n < B * H * S_Q * VALUE; n++) cr_expect_eq(w.o_data[n], 0);
}

Test(whole_reference, refuses_what_does_not_fit)
{
    static const struct {
        int64_t q[4], k[4], v[4], lse_rows;
        ls_dtype o_type;
        ls_status status;
        const char *message;
    } bad[] = {
        {{2, 5, 4, 6}, {2, 7, 2, 5}, {2, 7, 2, 5}, 5, LS_F64, LS_ESHAPE, "q has 6, k has 5"},
        {{2, 5, 4, 577}, {2, 7, 2, 577}, {2, 7, 2, 577}, 5, LS_F64, LS_ESHAPE, "1 to 576"},
        {{2, 5, 4, 6}, {2, 7, 2, 6}, {2, 7, 2, 0}, 5, LS_F64, LS_ESHAPE, "head dim of v is 0"},
        {{2, 5, 4, 6}, {2, 7, 2, 6}, {2, 7, 2, 7}, 5, LS_F64, LS_ESHAPE, "o of the reference"},
        {{2, 5, 4, 6}, {2, 7, 3, 6}, {2, 7, 3, 6}, 5, LS_F64, LS_ESHAPE, "q has 4, no multiple"},
        {{2, 5, 4, 6}, {1, 7, 2, 6}, {1, 7, 2, 6}, 5, LS_F64, LS_ESHAPE, "batch: q has 2, k has 1"},
        {{2, 5, 4, 6}, {2, 7, 2, 6}, {2, 6, 2, 6}, 5, LS_F64, LS_ESHAPE, "k and v differ"},
        {{2, 5, 4, 6}, {2, 7, 2, 6}, {2, 7, 2, 6}, 4, LS_F64, LS_ESHAPE, "lse of the reference"},
        {{2, 5, 4, 6},
         {2, 7, 2, 6},
         {2, 7, 2, 6},
         5,
         LS_F32,
         LS_ETYPE,
         "o of the reference is f32"},
    };

    const struct ls_mask mask = full_mask(S_Q, S_K);
    const struct ls_scores scores = scores_of(0);

    for (size_t c = 0; c < sizeof bad / sizeof *bad; c++) {
        const int64_t *const n = bad[c].q, lse_dim[] = {n[0], n[2], bad[c].lse_rows};
        const struct ls_tensor q = ls_tensor_view(NULL, LS_F64, 4, n);
        const struct ls_tensor k = ls_tensor_view(NULL, LS_F64, 4, bad[c].k);
        const struct ls_tensor v = ls_tensor_view(NULL, LS_F64, 4, bad[c].v);
        struct ls_tensor o = ls_tensor_view(NULL, bad[c].o_type, 4, n);
        struct ls_tensor lse = ls_tensor_view(NULL, LS_F64, 3, lse_dim);

        cr_expect_eq(ls_reference_attention(&o, &lse, &q, &k, &v, ALONE(&mask), &scores),
                     bad[c].status, "case %zu", c);
        cr_expect(strstr(ls_message(), bad[c].message), "case %zu: \"%s\"", c, ls_message());
    }
}
