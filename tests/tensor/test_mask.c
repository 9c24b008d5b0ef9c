/* What a query sees, against the definition of a mask, key by key, over all small cases. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tensor/mask.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static const int64_t documents_of_7[] = {0, 2, 2, 6, 7}, one_of_4[] = {0, 4},
                     late_of_1[] = {0, 0, 1};

static const struct {
    int64_t s_k;
    const int64_t *documents;
    int64_t count;
} keys[] = {{1, NULL, 0},     {4, NULL, 0},           {7, NULL, 0},
            {4, one_of_4, 1}, {7, documents_of_7, 4}, {1, late_of_1, 2}};

#define BEHIND 2 /* rows that are asked about and are not there */

static const int64_t sides[] = {0, 1, 3, (int64_t)1 << 60, INT64_MAX};

static int64_t document_of(const struct ls_mask *mask, int64_t position)
{
    for (int64_t i = 0; i < mask->document_count; i++)
        if (mask->documents[i] <= position && position < mask->documents[i + 1]) return i;
    return -1;
}

/* The definition, in the words of tensor/mask.h. */
static bool sees(const struct ls_mask *mask, int64_t i, int64_t j)
{
    const int64_t at = i + mask->shift;

    if (i >= mask->s_q) return false;
    if (j < mask->prefix) return true;
    if (mask->left != INT64_MAX && j < at - mask->left) return false;
    if (mask->right != INT64_MAX && j > at + mask->right) return false;
    if (!mask->documents) return true;
    return document_of(mask, at) >= 0 && document_of(mask, at) == document_of(mask, j);
}

static bool is_visible(struct ls_visible visible, int64_t j)
{
    return j < visible.prefix || (j >= visible.from && j < visible.to);
}

static const char *name_of(const struct ls_mask *m)
{
    static char name[200];

    snprintf(name, sizeof name, "%ld x %ld, shift %ld, window %ld, %ld, prefix %ld, documents %ld",
             (long)m->s_q, (long)m->s_k, (long)m->shift, (long)m->left, (long)m->right,
             (long)m->prefix, (long)m->document_count);
    return name;
}

/* Calls test with every mask of the tables above. */
static void each_mask(void (*test)(const struct ls_mask *mask))
{
    for (int c = 0; c < LENGTH(keys); c++)
        for (int side = 0; side < LENGTH(sides) * LENGTH(sides); side++)
            for (int64_t shift = -7; shift <= 9; shift++)
                for (int64_t prefix = 0; prefix <= keys[c].s_k; prefix += prefix ? 3 : 1) {
                    const struct ls_mask mask = {.s_q = 6,
                                                 .s_k = keys[c].s_k,
                                                 .shift = shift,
                                                 .left = sides[side % LENGTH(sides)],
                                                 .right = sides[side / LENGTH(sides)],
                                                 .prefix = prefix,
                                                 .documents = keys[c].documents,
                                                 .document_count = keys[c].count};
                    test(&mask);
                }
}

static void check_rows(const struct ls_mask *mask)
{
    struct ls_visible before = {0}, list[6 + BEHIND];
    const int64_t rows = mask->s_q + BEHIND;

    for (int64_t i = 0; i < rows; i++) {
        const struct ls_visible row = ls_mask_row(mask, i);

        ls_mask_list(list, mask, i % 3, rows - i % 3);
        cr_assert_eq(memcmp(&list[i - i % 3], &row, sizeof row), 0, "%s: row %ld in a list",
                     name_of(mask), (long)i);
        cr_assert(0 <= row.prefix && row.prefix <= row.from && row.from <= row.to &&
                      row.to <= mask->s_k,
                  "%s: row %ld: %ld, %ld to %ld", name_of(mask), (long)i, (long)row.prefix,
                  (long)row.from, (long)row.to);
        cr_assert(i == 0 || i >= mask->s_q || (row.from >= before.from && row.to >= before.to),
                  "%s: row %ld", name_of(mask), (long)i);
        for (int64_t j = 0; j < mask->s_k; j++)
            cr_assert_eq(is_visible(row, j), sees(mask, i, j), "%s: row %ld, key %ld",
                         name_of(mask), (long)i, (long)j);
        before = row;
    }
}

Test(mask, a_row_sees_what_the_definition_says)
{
    each_mask(check_rows);
}

/* Of queries [first, first + rows): how many see key j. */
static int64_t seers(const struct ls_mask *mask, int64_t first, int64_t rows, int64_t j)
{
    int64_t n = 0;

    for (int64_t i = first; i < first + rows; i++) n += sees(mask, i, j);
    return n;
}

static void check_runs(const struct ls_mask *mask)
{
    for (int64_t first = 0; first < mask->s_q + BEHIND; first++) {
        for (int64_t rows = 1; first + rows <= mask->s_q + BEHIND; rows++) {
            const struct ls_visible some = ls_mask_rows(mask, first, rows);
            const struct ls_visible all = ls_mask_common(mask, first, rows);

            for (int64_t j = 0; j < mask->s_k; j++) {
                const int64_t n = seers(mask, first, rows, j);

                cr_assert_eq(is_visible(some, j), n > 0, "%s: rows %ld + %ld, key %ld",
                             name_of(mask), (long)first, (long)rows, (long)j);
                cr_assert_eq(is_visible(all, j), n == rows, "%s: rows %ld + %ld, key %ld",
                             name_of(mask), (long)first, (long)rows, (long)j);
            }
        }
    }
}

Test(mask, rows_together_see_what_one_of_them_or_all_of_them_see)
{
    each_mask(check_runs);
}

static void check_counts(const struct ls_mask *mask)
{
    for (int64_t key = 0; key < mask->s_k; key++) {
        for (int64_t n = 1; key + n <= mask->s_k; n++) {
            int64_t pairs = 0;

            for (int64_t i = 0; i < 3; i++) {
                int64_t count = 0;

                for (int64_t j = key; j < key + n; j++) count += sees(mask, i, j);
                cr_assert_eq(ls_visible_count(ls_mask_row(mask, i), key, n), count,
                             "%s: row %ld, keys %ld + %ld", name_of(mask), (long)i, (long)key,
                             (long)n);
                pairs += count;
            }
            cr_assert_eq(ls_mask_is_full(mask, 0, 3, key, n), pairs == 3 * n, "%s: keys %ld + %ld",
                         name_of(mask), (long)key, (long)n);
        }
    }
}

Test(mask, keys_are_counted)
{
    each_mask(check_counts);
}

/* Runs that end and begin everywhere around the borders of three leaves. */
Test(mask, a_leaf_has_its_share_of_what_is_seen)
{
    static const int64_t at[] = {0, 1, 255, 256, 257, 300, 511, 512, 513, 700};

    for (int c = 0; c < LENGTH(at) * LENGTH(at) * LENGTH(at); c++) {
        const struct ls_visible visible = {at[c / 100], at[c / 10 % 10], at[c % 10]};

        if (visible.prefix > visible.from || visible.from > visible.to) continue;
        for (int64_t leaf = 0; leaf < 3; leaf++) {
            const struct ls_leaf_keys share = ls_visible_in_leaf(visible, leaf);

            for (int64_t j = 0; j < LS_LEAF; j++)
                cr_assert_eq(ls_leaf_keys_have(&share, (int)j),
                             is_visible(visible, leaf * LS_LEAF + j), "case %d leaf %ld key %ld", c,
                             (long)leaf, (long)j);
        }
    }
}
