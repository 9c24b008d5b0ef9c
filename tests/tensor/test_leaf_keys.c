/* Sets of keys of a leaf, key by key. */
#include <criterion/criterion.h>

#include "tensor/leaf_keys.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof(array)[0]))

static const int borders[] = {-300, -1, 0, 1, 31, 63, 64, 65, 127, 128, 192, 255, 256, 257, 900};

/* About half of the keys, which ones depends on the row. */
static struct ls_leaf_keys scattered(int row)
{
    struct ls_leaf_keys keys;

    for (int i = 0; i < LS_LEAF_WORDS; i++)
        keys.word[i] = UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(4 * row + i + 1);
    return keys;
}

Test(leaf_keys, a_run_has_the_keys_between_its_ends)
{
    for (int c = 0; c < LENGTH(borders) * LENGTH(borders); c++) {
        const int from = borders[c % LENGTH(borders)], to = borders[c / LENGTH(borders)];
        const struct ls_leaf_keys run = ls_leaf_keys_run(from, to);

        for (int j = 0; j < LS_LEAF; j++)
            cr_assert_eq(ls_leaf_keys_have(&run, j), j >= from && j < to, "[%d, %d): %d", from, to,
                         j);
    }
}

Test(leaf_keys, what_is_none_or_all_is_called_so)
{
    for (int j = 0; j < LS_LEAF; j++) {
        const struct ls_leaf_keys one = ls_leaf_keys_run(j, j + 1);
        struct ls_leaf_keys others = ls_leaf_keys_first[LS_LEAF];

        others.word[j / 64] ^= one.word[j / 64];
        cr_assert(!ls_leaf_keys_are_none(&one) && !ls_leaf_keys_are_all(&one));
        cr_assert(!ls_leaf_keys_are_none(&others) && !ls_leaf_keys_are_all(&others));
        cr_assert_eq(ls_leaf_keys_last(&one), j);
        cr_assert_eq(ls_leaf_keys_next(&one, 0, true), j);
        cr_assert_eq(ls_leaf_keys_next(&others, 0, false), j);
    }
    cr_assert(ls_leaf_keys_are_all(&ls_leaf_keys_first[LS_LEAF]));
    cr_assert_eq(ls_leaf_keys_last(&(struct ls_leaf_keys){0}), -1);
}

Test(leaf_keys, the_next_one_is_found)
{
    const struct ls_leaf_keys keys = scattered(0);

    for (int from = 0; from <= LS_LEAF; from++)
        for (int present = 0; present < 2; present++) {
            int next = from;

            while (next < LS_LEAF && ls_leaf_keys_have(&keys, next) != present) next++;
            cr_assert_eq(ls_leaf_keys_next(&keys, from, present), next, "from %d", from);
        }
}

Test(leaf_keys, some_of_them_are_read_as_bits)
{
    const struct ls_leaf_keys keys = scattered(3);

    for (int n = 1; n <= 64; n *= 2)
        for (int first = 0; first < LS_LEAF; first += n) {
            const uint64_t bits = ls_leaf_keys_bits(&keys, first, n);

            for (int j = 0; j < 64; j++)
                cr_assert_eq(bits >> j & 1, j < n && ls_leaf_keys_have(&keys, first + j));
        }
}
