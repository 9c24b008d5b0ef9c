/* The order of merging is the binary tree over the numbers of what is pushed. */
#include <criterion/criterion.h>

#include "cpu/attention/forest.h"

enum { MOST = 70, MERGES = 2 * MOST };

/* A result here is a run of numbers: m its first, l its length. */
struct run {
    float first, length;
};

static struct merge {
    struct run into, from;
} merges[MERGES];
static int merge_count;

static void record_merge(struct ls_row_states into, struct ls_row_states from, int rows, int d)
{
    cr_expect_eq(rows, 3);
    cr_expect_eq(d, 5);
    cr_assert_lt(merge_count, MERGES);
    merges[merge_count++] = (struct merge){{into.m[0], into.l[0]}, {from.m[0], from.l[0]}};
    cr_expect_eq(into.m[0] + into.l[0], from.m[0], "runs [%g, %g) and %g are not neighbours",
                 into.m[0], into.m[0] + into.l[0], from.m[0]);
    into.l[0] += from.l[0];
}

/* Two runs of anything that was pushed, the left one first. */
static void record_order(struct ls_row_states into, struct ls_row_states from, int rows, int d)
{
    (void)rows;
    (void)d;
    cr_assert_lt(merge_count, MERGES);
    merges[merge_count++] = (struct merge){{into.m[0], into.l[0]}, {from.m[0], from.l[0]}};
    cr_expect_leq(into.m[0] + into.l[0], from.m[0]);
    into.l[0] = from.m[0] + from.l[0] - into.m[0];
}

static const struct simd recorder = {.merge = record_merge}, orderer = {.merge = record_order};

static struct forest forest;
static float m[FOREST_DEPTH][3], l[FOREST_DEPTH];

static void start(void)
{
    forest = (struct forest){.simd = &recorder, .d = 5};
    for (int i = 0; i < FOREST_DEPTH; i++)
        forest.node[i] = (struct ls_row_states){.m = m[i], .l = &l[i]};
    forest_start(&forest, 3);
    merge_count = 0;
}

static void push(int number)
{
    const struct ls_row_states next = forest_next(&forest);

    next.m[0] = (float)number;
    next.l[0] = 1;
    forest_push(&forest);
}

/* Node (level, i) of the tree covers numbers [i 2^level, (i + 1) 2^level): its left half is whole,
 * its right half may be cut short by the end. */
static bool is_tree_merge(const struct merge *merge)
{
    const int first = (int)merge->into.first, left = (int)merge->into.length;
    const int right = (int)merge->from.length;

    return (left & (left - 1)) == 0 && first % (2 * left) == 0 && right <= left;
}

Test(forest, merges_by_the_tree)
{
    for (int count = 1; count <= MOST; count++) {
        start();
        for (int i = 0; i < count; i++) push(i);
        const struct ls_row_states all = forest_fold(&forest);

        cr_expect_eq(all.m[0], 0, "%d pushed: begins at %g", count, all.m[0]);
        cr_expect_eq(all.l[0], count, "%d pushed: %g folded", count, all.l[0]);
        cr_expect_eq(merge_count, count - 1);
        for (int i = 0; i < merge_count; i++)
            cr_expect(is_tree_merge(&merges[i]), "%d pushed: [%g, +%g) met +%g", count,
                      merges[i].into.first, merges[i].into.length, merges[i].from.length);
    }
}

Test(forest, merges_as_soon_as_both_halves_are_there)
{
    start();
    for (int i = 0; i < MOST; i++) {
        int waiting = 0;

        push(i);
        for (int left = i + 1; left > 0; left /= 2) waiting += left % 2;
        cr_expect_eq(forest.top, waiting, "after %d: %d subtrees wait", i + 1, forest.top);
        cr_expect_leq(forest.top, forest_depth(i + 1));
    }
}

/* forest_next is the place above all that waits. */
Test(forest, depth_leaves_room_for_the_next)
{
    for (int count = 1; count <= MOST; count++) {
        int most = 0;

        start();
        for (int i = 0; i < count; i++) {
            if (forest.top > most) most = forest.top;
            push(i);
        }
        cr_expect_lt(most, forest_depth(count), "%d pushed: %d waited", count, most);
    }
}

/* Where numbers hold nothing, each merge is one of the whole tree's, and none is left out: the left
 * and right parts lie in the two halves of one node, and are all that these halves hold. */
static void check_merges_of_some(uint32_t some, int count)
{
    for (int i = 0; i < merge_count; i++) {
        const uint32_t a = (uint32_t)merges[i].into.first, b = (uint32_t)merges[i].from.first;
        const int level = 31 - __builtin_clz(a ^ b);
        const uint32_t half = UINT32_C(1) << level, node = a / (2 * half) * (2 * half);
        const uint32_t left = (some >> node) & ((UINT32_C(1) << half) - 1),
                       right = some >> (node + half);

        cr_expect_eq(a, node + (uint32_t)__builtin_ctz(left), "%x of %d", some, count);
        cr_expect_eq(b, node + half + (uint32_t)__builtin_ctz(right), "%x of %d", some, count);
    }
    cr_expect_eq(merge_count, __builtin_popcount(some) - 1, "%x of %d", some, count);
}

/* All subsets of so many numbers; runs of nothing are skipped at once. */
Test(forest, merges_with_nothing_are_left_out)
{
    for (int count = 1; count <= 11; count++) {
        for (uint32_t some = 1; some < UINT32_C(1) << count; some++) {
            int next = 0;

            start();
            forest.simd = &orderer;
            for (int i = 0; i < count; i++) {
                if (!(some >> i & 1)) continue;
                forest_skip(&forest, i - next);
                push(i);
                next = i + 1;
            }
            forest_skip(&forest, count - next);
            cr_expect_eq(forest.pushed, count);
            const struct ls_row_states all = forest_fold(&forest);
            cr_expect_eq(all.m[0], __builtin_ctz(some));
            check_merges_of_some(some, count);
        }
    }
}

Test(forest, nothing_at_all_is_empty_rows)
{
    start();
    forest_skip(&forest, 13);
    for (int r = 0; r < 3; r++) cr_expect_eq(forest_fold(&forest).m[r], -INFINITY);
    cr_expect_eq(merge_count, 0);
}

/* However far, without a step for each number. */
Test(forest, skips_far)
{
    start();
    forest.simd = &orderer;
    push(0);
    forest_skip(&forest, ((int64_t)1 << 38) - 1);
    push(7);
    forest_skip(&forest, ((int64_t)1 << 38) - 1);
    cr_expect_eq(merge_count, 1, "both halves of level 39 are there");
    cr_expect_eq(forest.top, 1);
}

Test(forest, can_be_used_again)
{
    start();
    for (int i = 0; i < 5; i++) push(i);
    forest_start(&forest, 3);
    for (int i = 0; i < 4; i++) push(10 + i);
    cr_expect_eq(forest_fold(&forest).m[0], 10);
    cr_expect_eq(forest_fold(&forest).l[0], 4);
}
