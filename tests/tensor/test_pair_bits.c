/* Bits of pairs, asked for one by one and in runs. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "masks.h"

static bool has(const struct ls_pair_bits *bits, int64_t i, int64_t j)
{
    return bits->first_row[i * bits->row_bytes + j / 8] >> j % 8 & 1;
}

static void check_run(const struct ls_pair_bits *bits, int64_t i, int64_t from, int64_t to)
{
    int64_t count = 0, next[2] = {to, to};

    for (int64_t j = to - 1; j >= from; j--) {
        next[has(bits, i, j)] = j;
        count += has(bits, i, j);
    }
    cr_assert_eq(ls_pair_bits_count(bits, i, from, to), count);
    for (int present = 0; present < 2; present++)
        cr_assert_eq(ls_pair_bits_next(bits, i, from, to, present), next[present],
                     "row %ld of %ld bytes, [%ld, %ld): %ld, not %ld", (long)i,
                     (long)bits->row_bytes, (long)from, (long)to,
                     (long)ls_pair_bits_next(bits, i, from, to, present), (long)next[present]);
}

static void check_leaf(const struct ls_pair_bits *bits, int64_t i, int64_t leaf)
{
    const struct ls_leaf_keys keys = ls_pair_bits_leaf(bits, i, leaf);

    for (int64_t j = 0; j < LS_LEAF; j++)
        cr_assert_eq(ls_leaf_keys_have(&keys, (int)j),
                     leaf * LS_LEAF + j < 8 * bits->row_bytes && has(bits, i, leaf * LS_LEAF + j));
}

/* The rows are all the memory that there is. */
Test(pair_bits, runs_counts_and_leaves_are_those_of_the_bits)
{
    enum { ROWS = 3 };
    static const int64_t lengths[] = {1, 7, 8, 9, 63, 64, 65, 200, 256, 257, 300, 1030};

    for (int n = 0; n < 12; n++) {
        const int64_t s_k = lengths[n], step = s_k > 100 ? 13 : 1;
        uint8_t *room = malloc(pair_bytes(ROWS, s_k));
        const struct ls_pair_bits bits = draw_pairs(room, ROWS, s_k, (uint64_t)n + 3);

        for (int64_t i = 0; i < ROWS; i++) {
            for (int64_t from = 0; from <= s_k; from += step)
                for (int64_t to = from; to <= s_k; to += 1 + (to > from + 3 ? step - 1 : 0))
                    check_run(&bits, i, from, to);
            for (int64_t leaf = 0; leaf * LS_LEAF < s_k; leaf++) check_leaf(&bits, i, leaf);
        }
        free(room);
    }
}

/* Leaves that hold a bit, the last ones short. */
Test(pair_bits, leaves_that_have_some_are_known)
{
    static const int64_t lengths[] = {1, 255, 256, 257, 800};
    static uint8_t room[800 * 101];
    static bool some[16];

    for (int n = 0; n < 25; n++) {
        const int64_t s_q = lengths[n / 5], s_k = lengths[n % 5] / 8 * 8 + 8;
        struct ls_pair_bits bits = draw_pairs(room, s_q, s_k, (uint64_t)n);
        const int64_t k_leaves = (s_k + LS_LEAF - 1) / LS_LEAF;

        ls_pair_bits_map(some, &bits);
        bits.some = some;
        bits.k_leaves = k_leaves;
        for (int64_t i = 0; i < (s_q + LS_LEAF - 1) / LS_LEAF * k_leaves; i++) {
            const int64_t first = i / k_leaves * LS_LEAF, key = i % k_leaves * LS_LEAF;
            const int64_t end = first + LS_LEAF < s_q ? first + LS_LEAF : s_q;
            const int64_t to = key + LS_LEAF < s_k ? key + LS_LEAF : s_k;
            int64_t pairs = 0;

            for (int64_t row = first; row < end; row++)
                pairs += ls_pair_bits_count(&bits, row, key, to);
            cr_expect_eq(some[i], pairs > 0, "%ld x %ld, leaf %ld", (long)s_q, (long)s_k, (long)i);
            cr_expect_eq(ls_pair_bits_may_meet(&bits, first, end - first, key, to - key),
                         pairs > 0);
            cr_expect(ls_pair_bits_may_meet(&bits, first, LS_LEAF + 1, key, to - key));
        }
    }
}

Test(pair_bits, without_rows_there_are_all)
{
    const struct ls_pair_bits all = {.first_row = NULL};

    cr_expect(ls_pair_bits_have(&all, 5, 7));
    cr_expect_eq(ls_pair_bits_count(&all, 5, 3, 10), 7);
    cr_expect_eq(ls_pair_bits_next(&all, 5, 3, 10, true), 3);
    cr_expect_eq(ls_pair_bits_next(&all, 5, 3, 10, false), 10);
}
