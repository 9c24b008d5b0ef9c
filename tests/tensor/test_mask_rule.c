/* The bands of a rule against its definition, key by key, over all small cases. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "masks.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static const int64_t documents_of_7[] = {0, 2, 2, 6, 7}, one_of_4[] = {0, 4},
                     late_of_1[] = {0, 0, 1}, longer_than_4[] = {0, 3, 5, 9};

static const struct {
    int64_t s_k;
    const int64_t *documents;
    int64_t count;
} keys[] = {{1, NULL, 0},           {4, NULL, 0},      {7, NULL, 0},         {4, one_of_4, 1},
            {7, documents_of_7, 4}, {1, late_of_1, 2}, {4, longer_than_4, 3}};

#define BEHIND 2 /* queries and keys that are asked about and are not there */

static const int64_t sides[] = {0, 1, 3, (int64_t)1 << 60, INT64_MAX};

static int64_t document_of(const struct ls_mask_rule *rule, int64_t position)
{
    for (int64_t i = 0; i < rule->document_count; i++)
        if (rule->documents[i] <= position && position < rule->documents[i + 1]) return i;
    return -1;
}

/* The definition, in the words of tensor/mask_rule.h. */
static bool sees(const struct ls_mask_rule *rule, int64_t i, int64_t j)
{
    const int64_t at = i + rule->shift;

    if (i >= rule->s_q || j >= rule->s_k) return false;
    if (j < rule->prefix) return true;
    if (rule->left != INT64_MAX && j < at - rule->left) return false;
    if (rule->right != INT64_MAX && j > at + rule->right) return false;
    if (!rule->documents) return true;
    /* beside all keys, not in the rest of a document that is longer */
    return at < rule->s_k && document_of(rule, at) >= 0 &&
           document_of(rule, at) == document_of(rule, j);
}

static const char *name_of(const struct ls_mask_rule *m)
{
    static char name[200];

    snprintf(name, sizeof name, "%ld x %ld, shift %ld, window %ld, %ld, prefix %ld, documents %ld",
             (long)m->s_q, (long)m->s_k, (long)m->shift, (long)m->left, (long)m->right,
             (long)m->prefix, (long)m->document_count);
    return name;
}

/* A pair that two bands shared would be counted twice. */
static void check_rule(const struct ls_mask_rule *rule)
{
    struct ls_band bands[MOST_BANDS];
    const struct ls_mask mask = mask_by(rule, bands);

    for (int64_t i = 0; i < rule->s_q + BEHIND; i++)
        for (int64_t j = 0; j < rule->s_k + BEHIND; j++)
            cr_assert_eq(ls_mask_count(&mask, i, j, 1), sees(rule, i, j), "%s: row %ld, key %ld",
                         name_of(rule), (long)i, (long)j);
}

Test(mask_rule, its_bands_are_what_the_definition_says)
{
    for (int c = 0; c < LENGTH(keys); c++)
        for (int side = 0; side < LENGTH(sides) * LENGTH(sides); side++)
            for (int64_t shift = -7; shift <= 9; shift++)
                for (int64_t prefix = 0; prefix <= keys[c].s_k; prefix += prefix ? 3 : 1) {
                    const struct ls_mask_rule rule = {.s_q = 6,
                                                      .s_k = keys[c].s_k,
                                                      .shift = shift,
                                                      .left = sides[side % LENGTH(sides)],
                                                      .right = sides[side / LENGTH(sides)],
                                                      .prefix = prefix,
                                                      .documents = keys[c].documents,
                                                      .document_count = keys[c].count};
                    check_rule(&rule);
                }
}

Test(mask_rule, full_is_every_pair)
{
    for (int64_t s_q = 0; s_q < 4; s_q++)
        for (int64_t s_k = 0; s_k < 4; s_k++) {
            const struct ls_mask_rule rule = ls_mask_rule_full(s_q, s_k);

            cr_assert_eq(rule.shift, s_k - s_q);
            for (int64_t i = 0; i < s_q; i++)
                for (int64_t j = 0; j < s_k; j++) cr_assert(sees(&rule, i, j));
            check_rule(&rule);
        }
}
