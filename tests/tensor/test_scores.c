/* The standard slopes are those that models were trained with. Dropout keeps the right share of
 * keys, and the same ones whoever asks and in which pieces. */
#include "tensor/scores.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

enum { KEYS = 4096 };

static struct ls_scores with_dropout(float dropout)
{
    return (struct ls_scores){.scale = 1, .dropout = dropout, .seed = 7, .heads = 3};
}

static int64_t count(const bool *kept, int n)
{
    int64_t sum = 0;

    for (int i = 0; i < n; i++) sum += kept[i];
    return sum;
}

Test(scores, plain_is_nothing_but_a_scale)
{
    static const float slopes[] = {1}, sinks[] = {0};
    const struct ls_scores plain[] = {{.scale = 3}, {.scale = -1, .sinks = sinks, .seed = 4}};
    const struct ls_scores other[] = {{.soft_cap = 30}, {.alibi = slopes}, {.dropout = 0.1F}};

    for (int i = 0; i < LENGTH(plain); i++) cr_expect(ls_scores_are_plain(&plain[i]), "%d", i);
    for (int i = 0; i < LENGTH(other); i++) cr_expect_not(ls_scores_are_plain(&other[i]), "%d", i);
}

/* What get_slopes of the authors' code gives (github.com/ofirpress/attention_with_linear_biases,
 * fairseq/models/transformer.py). */
Test(scores, slopes_are_those_of_the_authors_code)
{
    static const struct {
        int heads;
        double slopes[12];
    } cases[] = {
        {1, {0.00390625}},
        {3, {0.0625, 0.00390625, 0.25}},
        {6, {0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125}},
        {8, {0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625}},
        {12,
         {0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625, 0.707106781,
          0.353553391, 0.176776695, 0.0883883476}},
    };

    for (int c = 0; c < LENGTH(cases); c++) {
        float slopes[12];

        ls_alibi_slopes(slopes, cases[c].heads);
        for (int i = 0; i < cases[c].heads; i++)
            cr_expect_float_eq(slopes[i], cases[c].slopes[i], 1e-7 * cases[c].slopes[i],
                               "head %d of %d: %g, not %g", i, cases[c].heads, (double)slopes[i],
                               cases[c].slopes[i]);
    }
}

/* Within five standard deviations of what is asked for, row by row added up. */
Test(scores, dropout_keeps_its_share)
{
    static const float rates[] = {0, 1e-3F, 0.1F, 0.5F, 0.9F, 0.999F};

    for (int c = 0; c < LENGTH(rates); c++) {
        const struct ls_scores scores = with_dropout(rates[c]);
        const double n = 64.0 * KEYS, want = n * (1 - (double)rates[c]);
        static bool kept[KEYS];
        int64_t sum = 0;

        for (int64_t row = 0; row < 64; row++) {
            ls_dropout_kept(kept, &scores, row % 2, row % 3, row * 1000, 0, KEYS);
            sum += count(kept, KEYS);
        }
        cr_expect_leq(fabs((double)sum - want), 5 * sqrt(want * (double)rates[c]) + 1e-9,
                      "dropout %g keeps %ld of %g", (double)rates[c], (long)sum, n);
    }
}

Test(scores, dropout_does_not_depend_on_how_it_is_asked_for)
{
    const struct ls_scores scores = with_dropout(0.4F);
    static bool whole[KEYS], piece[KEYS];
    const int64_t far = (int64_t)1 << 35;

    ls_dropout_kept(whole, &scores, 1, 2, far + 5, far, KEYS);
    for (int first = 0; first < KEYS; first += 252)
        for (int n = 0; n < 260 && first + n <= KEYS; n += 13) {
            ls_dropout_kept(piece, &scores, 1, 2, far + 5, far + first, n);
            cr_assert_eq(memcmp(piece, whole + first, (size_t)n), 0, "keys %d + %d", first, n);
        }
}

/* Half of the keys of two independent draws agree. */
Test(scores, dropout_of_other_rows_heads_and_seeds_is_another)
{
    const struct ls_scores scores = with_dropout(0.5F);
    struct ls_scores reseeded = scores;
    static bool one[KEYS], other[5][KEYS];

    reseeded.seed = 8;
    ls_dropout_kept(one, &scores, 0, 1, 10, 0, KEYS);
    ls_dropout_kept(other[0], &scores, 0, 1, 11, 0, KEYS);
    ls_dropout_kept(other[1], &scores, 0, 2, 10, 0, KEYS);
    ls_dropout_kept(other[2], &scores, 1, 1, 10, 0, KEYS);
    ls_dropout_kept(other[3], &scores, 0, 1, 10, KEYS, KEYS);
    ls_dropout_kept(other[4], &reseeded, 0, 1, 10, 0, KEYS);
    for (int i = 0; i < 5; i++) {
        int same = 0;

        for (int j = 0; j < KEYS; j++) same += one[j] == other[i][j];
        cr_expect_leq(abs(same - KEYS / 2), 5 * 32, "draw %d: %d of %d agree", i, same, KEYS);
    }
}
