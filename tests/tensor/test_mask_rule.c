/* The bands of a rule against its definition, key by key, over all small cases. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

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

/* Of more keys than some rules have. */
static const struct ls_slice none[] = {{0, 0, 0, 0, 0}},
                             blocks[] = {{4, 6, 3, 7, LS_SLICE_BOTH},
                                         {0, 2, 0, 4, LS_SLICE_CAUSAL},
                                         {2, 6, 0, 3, LS_SLICE_INVERSE_CAUSAL},
                                         {0, 3, 4, 7, LS_SLICE_FULL}};

static const struct {
    const struct ls_slice *list;
    int64_t count;
} slices[] = {{NULL, 0}, {none, 0}, {blocks, LENGTH(blocks)}};

#define BEHIND 2 /* queries and keys that are asked about and are not there */

static const int64_t sides[] = {0, 1, 3, (int64_t)1 << 60, INT64_MAX};

static int64_t document_of(const struct ls_mask_rule *rule, int64_t position)
{
    for (int64_t i = 0; i < rule->document_count; i++)
        if (rule->documents[i] <= position && position < rule->documents[i + 1]) return i;
    return -1;
}

static bool slice_has(const struct ls_slice *s, int64_t i, int64_t j)
{
    const bool last = j - (s->k1 - 1) <= i - (s->q1 - 1), first = j - s->k0 >= i - s->q0;

    if (i < s->q0 || i >= s->q1 || j < s->k0 || j >= s->k1) return false;
    return s->type == LS_SLICE_FULL || (s->type == LS_SLICE_CAUSAL && last) ||
           (s->type == LS_SLICE_INVERSE_CAUSAL && first) ||
           (s->type == LS_SLICE_BOTH && last && first);
}

static bool is_in_a_slice(const struct ls_mask_rule *rule, int64_t i, int64_t j)
{
    for (int64_t n = 0; n < rule->slice_count; n++)
        if (slice_has(&rule->slices[n], i, j)) return true;
    return rule->slices == NULL;
}

/* The definition, in the words of tensor/mask_rule.h. */
static bool sees(const struct ls_mask_rule *rule, int64_t i, int64_t j)
{
    const int64_t at = i + rule->shift;

    if (i >= rule->s_q || j >= rule->s_k || !is_in_a_slice(rule, i, j)) return false;
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

    snprintf(name, sizeof name,
             "%ld x %ld, shift %ld, window %ld, %ld, prefix %ld, documents %ld, slices %ld",
             (long)m->s_q, (long)m->s_k, (long)m->shift, (long)m->left, (long)m->right,
             (long)m->prefix, (long)m->document_count, (long)m->slice_count);
    return name;
}

/* A pair that two bands shared would be counted twice. */
static void check_rule(const struct ls_mask_rule *rule)
{
    struct ls_band *bands = NULL;
    int64_t room = 0;
    struct ls_mask mask;

    cr_assert_eq(ls_mask_rule_make(&mask, &bands, &room, rule), LS_OK);
    for (int64_t i = 0; i < rule->s_q + BEHIND; i++)
        for (int64_t j = 0; j < rule->s_k + BEHIND; j++)
            cr_assert_eq(ls_mask_count(&mask, i, j, 1), sees(rule, i, j), "%s: row %ld, key %ld",
                         name_of(rule), (long)i, (long)j);
    free(bands);
}

static void check_places(struct ls_mask_rule rule)
{
    for (rule.shift = -7; rule.shift <= 9; rule.shift++)
        for (rule.prefix = 0; rule.prefix <= rule.s_k; rule.prefix += rule.prefix ? 3 : 1)
            check_rule(&rule);
}

Test(mask_rule, its_bands_are_what_the_definition_says)
{
    for (int c = 0; c < LENGTH(keys); c++)
        for (int side = 0; side < LENGTH(sides) * LENGTH(sides); side++)
            for (int list = 0; list < LENGTH(slices); list++)
                check_places((struct ls_mask_rule){.s_q = 6,
                                                   .s_k = keys[c].s_k,
                                                   .left = sides[side % LENGTH(sides)],
                                                   .right = sides[side / LENGTH(sides)],
                                                   .documents = keys[c].documents,
                                                   .document_count = keys[c].count,
                                                   .slices = slices[list].list,
                                                   .slice_count = slices[list].count});
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
