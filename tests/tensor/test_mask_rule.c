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

static int64_t document_at(const int64_t *documents, int64_t count, int64_t position)
{
    for (int64_t i = 0; i < count; i++)
        if (documents[i] <= position && position < documents[i + 1]) return i;
    return -1;
}

/* The document of a query; none: -1. */
static int64_t document_of_query(const struct ls_mask_rule *rule, int64_t i)
{
    const int64_t at = i + rule->shift;

    if (!rule->documents) return -1;
    if (rule->q_documents)
        return document_at(rule->q_documents, rule->document_count, i - rule->q_first);
    return at < rule->s_k ? document_at(rule->documents, rule->document_count, at - rule->k_first)
                          : -1; /* beside all keys, not in the rest of a document that is longer */
}

/* Where query i stands among the keys. */
static int64_t place_of(const struct ls_mask_rule *rule, int64_t i)
{
    const int64_t n = rule->q_documents ? document_of_query(rule, i) : -1;

    if (n < 0) return i + rule->shift;
    const int64_t *q = rule->q_documents + n, *k = rule->documents + n;

    if (rule->align_start)
        return rule->k_first + k[0] + (i - rule->q_first - q[0]) + rule->pair_offset;
    return rule->k_first + k[1] - 1 - (rule->q_first + q[1] - 1 - i);
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
    const int64_t at = place_of(rule, i), document = document_of_query(rule, i);

    if (i < rule->q_first || i >= rule->s_q || j < rule->k_first || j >= rule->s_k) return false;
    if (!is_in_a_slice(rule, i, j)) return false;
    if (j < rule->k_first + rule->prefix) return true;
    if (rule->left != INT64_MAX && j < at - rule->left) return false;
    if (rule->right != INT64_MAX && j > at + rule->right) return false;
    return !rule->documents ||
           (document >= 0 &&
            document == document_at(rule->documents, rule->document_count, j - rule->k_first));
}

static const char *name_of(const struct ls_mask_rule *m)
{
    static char name[240];

    snprintf(name, sizeof name,
             "%ld to %ld x %ld to %ld, shift %ld, window %ld, %ld, prefix %ld, documents %ld, of "
             "queries %s, %s, offset %ld, slices %ld",
             (long)m->q_first, (long)m->s_q, (long)m->k_first, (long)m->s_k, (long)m->shift,
             (long)m->left, (long)m->right, (long)m->prefix, (long)m->document_count,
             m->q_documents ? "too" : "by place", m->align_start ? "start" : "end",
             (long)m->pair_offset, (long)m->slice_count);
    return name;
}

/* A pair that two bands shared would be counted twice. A query that sees nothing is nowhere. */
static void check_query(const struct ls_mask *mask, const struct ls_mask_rule *rule, int64_t i)
{
    bool sees_any = false;

    for (int64_t j = 0; j < rule->s_k + BEHIND; j++) {
        const bool seen = sees(rule, i, j);

        sees_any |= seen;
        cr_assert_eq(ls_mask_count(mask, i, j, 1), seen, "%s: row %ld, key %ld", name_of(rule),
                     (long)i, (long)j);
    }
    cr_assert(!sees_any || ls_mask_place(mask, i) == place_of(rule, i), "%s: row %ld is at %ld",
              name_of(rule), (long)i, (long)ls_mask_place(mask, i));
    cr_assert_eq(ls_mask_has(mask, i), rule->q_first <= i && i < rule->s_q);
}

static void check_rule(const struct ls_mask_rule *rule)
{
    static struct ls_mask_set set;
    struct ls_masks masks = {NULL, 1, 1, 0};

    cr_assert_eq(ls_mask_set_make(&masks, &set, rule), LS_OK);
    for (int64_t i = 0; i < rule->s_q + BEHIND; i++) check_query(masks.mask, rule, i);
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

/* ---- what is there of a padded entry, and documents of queries and of keys */

static const int64_t of_queries[][4] = {{0, 2, 2, 5}, {0, 1, 4, 5}, {0, 0, 3, 4}},
                     of_keys[][4] = {{0, 3, 3, 6}, {0, 2, 4, 5}, {0, 0, 0, 4}};

/* What is not there before the first and behind the last. */
static void check_padded(struct ls_mask_rule rule)
{
    for (int padding = 0; padding < 4; padding++) {
        rule.q_first = padding % 2;
        rule.k_first = padding / 2 * 2;
        rule.s_q = 5 + rule.q_first;
        rule.s_k = 6 + rule.k_first;
        for (rule.shift = -1; rule.shift <= 2; rule.shift += 3)
            for (rule.prefix = 0; rule.prefix <= 4; rule.prefix += 2) check_rule(&rule);
    }
}

Test(mask_rule, what_is_not_there_is_not_seen)
{
    for (int c = 0; c < LENGTH(sides) * LENGTH(sides) * LENGTH(slices) * 2; c++)
        check_padded((struct ls_mask_rule){.left = sides[c % LENGTH(sides)],
                                           .right = sides[c / LENGTH(sides) % LENGTH(sides)],
                                           .documents = c % 2 ? of_keys[0] : NULL,
                                           .document_count = c % 2 ? 3 : 0,
                                           .slices = slices[c % LENGTH(slices)].list,
                                           .slice_count = slices[c % LENGTH(slices)].count});
}

Test(mask_rule, documents_of_queries_see_those_of_keys)
{
    for (int c = 0; c < LENGTH(sides) * LENGTH(sides) * 9 * 4; c++)
        check_padded((struct ls_mask_rule){.left = sides[c % LENGTH(sides)],
                                           .right = sides[c / LENGTH(sides) % LENGTH(sides)],
                                           .documents = of_keys[c % 3],
                                           .q_documents = of_queries[c / 3 % 3],
                                           .document_count = 3,
                                           .align_start = c % 4 > 0,
                                           .pair_offset = c % 4 > 0 ? c % 4 - 2 : 0,
                                           .slices = slices[c % 7 == 0].list,
                                           .slice_count = slices[c % 7 == 0].count});
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
