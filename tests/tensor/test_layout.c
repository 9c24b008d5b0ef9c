#include "tensor/layout.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tensor/dealing.h"

enum { MAX_P = 9, MAX_S = 3000 };

static const ls_layout_kind kinds[] = {LS_LAYOUT_CONTIGUOUS, LS_LAYOUT_ZIGZAG, LS_LAYOUT_STRIPED,
                                       LS_LAYOUT_BALANCED};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* The work of each leaf: uneven, and some leaves are none. */
static const int64_t work[MAX_S / LS_LEAF + 1] = {3, 0, 9, 9, 1, 0, 4, 40, 2, 2, 0, 7};

static struct ls_dealing *dealing_of(const struct ls_layout *layout)
{
    struct ls_dealing *dealing = NULL;

    if (layout->kind == LS_LAYOUT_BALANCED)
        cr_assert_eq(ls_dealing_create(&dealing, work, ls_layout_leaves(layout), layout->p), LS_OK);
    return dealing;
}

static void check_one(void (*check)(const struct ls_layout *layout), struct ls_layout layout)
{
    struct ls_dealing *dealing = dealing_of(&layout);

    layout.dealing = dealing;
    check(&layout);
    ls_dealing_destroy(dealing);
}

/* Calls check for every kind, p to MAX_P and s to MAX_S, in steps that share no factor with a leaf
 * and at every whole number of leaves, one more and one less. */
static void for_all_small(void (*check)(const struct ls_layout *layout))
{
    for (int k = 0; k < KINDS; k++)
        for (int p = 1; p <= MAX_P; p++)
            for (int64_t s = 0; s <= MAX_S; s++)
                if (s % 67 == 0 || (s + 1) % LS_LEAF <= 2)
                    check_one(check, (struct ls_layout){.kind = kinds[k], .s = s, .p = p});
}

static const char *describe(const struct ls_layout *layout)
{
    static char text[64];

    snprintf(text, sizeof text, "%s s=%ld p=%d", ls_layout_name(layout->kind), (long)layout->s,
             layout->p);
    return text;
}

static void check_positions(const struct ls_layout *layout)
{
    static int seen[MAX_S];
    int64_t rows = 0;

    memset(seen, 0, sizeof seen);
    for (int rank = 0; rank < layout->p; rank++) {
        const int64_t part = ls_layout_part_rows(layout, rank);
        int64_t last = -1;

        rows += part;
        for (int64_t row = 0; row < part; row++) {
            const int64_t position = ls_layout_position(layout, rank, row);

            cr_assert(position > last && position < layout->s, "%s rank %d row %ld: position %ld",
                      describe(layout), rank, (long)row, (long)position);
            seen[position]++;
            last = position;
        }
    }
    cr_assert_eq(rows, layout->s, "%s: parts have %ld rows", describe(layout), (long)rows);
    for (int64_t i = 0; i < layout->s; i++)
        cr_assert_eq(seen[i], 1, "%s: position %ld is held %d times", describe(layout), (long)i,
                     seen[i]);
}

Test(layout, every_position_is_held_once_in_increasing_order)
{
    for_all_small(check_positions);
}

static void check_rows_before(const struct ls_layout *layout)
{
    for (int rank = 0; rank < layout->p; rank++) {
        const int64_t part = ls_layout_part_rows(layout, rank);
        int64_t rows = 0;

        for (int64_t position = 0; position <= layout->s; position++) {
            while (rows < part && ls_layout_position(layout, rank, rows) < position) rows++;
            cr_assert_eq(ls_layout_rows_before(layout, rank, position), rows,
                         "%s rank %d: %ld rows before position %ld, counted %ld", describe(layout),
                         rank, (long)ls_layout_rows_before(layout, rank, position), (long)position,
                         (long)rows);
        }
    }
}

Test(layout, rows_before_a_position_are_counted)
{
    for_all_small(check_rows_before);
}

static void check_leaves(const struct ls_layout *layout)
{
    const int64_t leaves = ls_layout_leaves(layout);
    int64_t held = 0, rows = 0;

    for (int64_t leaf = 0; leaf < leaves; leaf++) {
        const int64_t leaf_rows = ls_layout_leaf_rows(layout, leaf);

        cr_assert(leaf_rows == LS_LEAF || (leaf == leaves - 1 && leaf_rows > 0),
                  "%s: leaf %ld has %ld rows", describe(layout), (long)leaf, (long)leaf_rows);
        rows += leaf_rows;
    }
    cr_assert_eq(rows, layout->s, "%s", describe(layout));
    for (int rank = 0; rank < layout->p; rank++) {
        const int64_t part = ls_layout_part_leaves(layout, rank);
        int64_t part_rows = 0;

        held += part;
        for (int64_t i = 0; i < part; i++) {
            const int64_t leaf = ls_layout_part_leaf(layout, rank, i);

            cr_assert_eq(part_rows, i * LS_LEAF, "%s rank %d: a short leaf before leaf %ld",
                         describe(layout), rank, (long)leaf);
            cr_assert_eq(ls_layout_position(layout, rank, part_rows), leaf * LS_LEAF, "%s rank %d",
                         describe(layout), rank);
            part_rows += ls_layout_leaf_rows(layout, leaf);
        }
        cr_assert_eq(part_rows, ls_layout_part_rows(layout, rank), "%s rank %d", describe(layout),
                     rank);
    }
    cr_assert_eq(held, leaves, "%s: parts hold %ld of %ld leaves", describe(layout), (long)held,
                 (long)leaves);
}

Test(layout, parts_are_whole_leaves_of_which_only_the_last_is_short)
{
    for_all_small(check_leaves);
}

/* The heaviest leaf that is left, and of equals the first; -1 if there is none. */
static int64_t heaviest(const int *owner, int64_t leaves)
{
    int64_t found = -1;

    for (int64_t leaf = 0; leaf < leaves; leaf++)
        if (owner[leaf] < 0 && (found < 0 || work[leaf] > work[found])) found = leaf;
    return found;
}

/* As dealing.h says. */
static void deal_by_work(int *owner, const struct ls_layout *layout)
{
    int64_t load[MAX_P] = {0}, count[MAX_P] = {0}, leaf;
    const int64_t n = ls_layout_leaves(layout);

    for (leaf = 0; leaf < n; leaf++) owner[leaf] = -1;
    while ((leaf = heaviest(owner, n)) >= 0) {
        int to = 0;

        for (int r = 1; r < layout->p; r++) {
            const bool as_light = work[leaf] == 0 || load[r] == load[to];

            if (as_light ? count[r] < count[to] : load[r] < load[to]) to = r;
        }
        owner[leaf] = to;
        load[to] += work[leaf];
        count[to]++;
    }
}

/* Who holds which leaf, dealt one by one as numerics.md and layout.h say. */
static void deal(int *owner, const struct ls_layout *layout)
{
    const int64_t n = ls_layout_leaves(layout);
    const int p = layout->p, runs = layout->kind == LS_LAYOUT_ZIGZAG ? 2 * p : p;
    int64_t leaf = 0;

    if (layout->kind == LS_LAYOUT_BALANCED) {
        deal_by_work(owner, layout);
        return;
    }
    if (layout->kind == LS_LAYOUT_STRIPED) {
        for (; leaf < n; leaf++) owner[leaf] = (int)(leaf % p);
        return;
    }
    for (int run = 0; run < runs; run++) {
        const int64_t length = n / runs + (run < n % runs ? 1 : 0);

        for (int64_t i = 0; i < length; i++) owner[leaf++] = run < p ? run : 2 * p - 1 - run;
    }
}

static void check_owners(const struct ls_layout *layout)
{
    int owner[MAX_S / LS_LEAF + 1];

    deal(owner, layout);
    for (int rank = 0; rank < layout->p; rank++)
        for (int64_t i = 0; i < ls_layout_part_leaves(layout, rank); i++) {
            const int64_t leaf = ls_layout_part_leaf(layout, rank, i);

            cr_assert_eq(owner[leaf], rank, "%s: rank %d holds leaf %ld of rank %d",
                         describe(layout), rank, (long)leaf, owner[leaf]);
        }
}

Test(layout, leaves_are_dealt_as_described)
{
    for_all_small(check_owners);
}

Test(layout, examples)
{
    static const struct {
        struct ls_layout layout;
        int rank, n;
        int64_t leaves[4], rows;
    } cases[] = {
        {{LS_LAYOUT_CONTIGUOUS, 3001, 8, NULL}, 0, 2, {0, 1}, 512},
        {{LS_LAYOUT_CONTIGUOUS, 3001, 8, NULL}, 4, 1, {8}, 256},
        {{LS_LAYOUT_CONTIGUOUS, 3001, 8, NULL}, 7, 1, {11}, 3001 - 11 * 256},
        {{LS_LAYOUT_ZIGZAG, 3001, 8, NULL}, 0, 1, {0}, 256},
        {{LS_LAYOUT_ZIGZAG, 3001, 8, NULL}, 4, 2, {4, 11}, 256 + 3001 - 11 * 256},
        {{LS_LAYOUT_ZIGZAG, 2048, 2, NULL}, 0, 4, {0, 1, 6, 7}, 1024},
        {{LS_LAYOUT_ZIGZAG, 2048, 2, NULL}, 1, 4, {2, 3, 4, 5}, 1024},
        {{LS_LAYOUT_STRIPED, 3001, 8, NULL}, 3, 2, {3, 11}, 256 + 3001 - 11 * 256},
        {{LS_LAYOUT_STRIPED, 3001, 8, NULL}, 7, 1, {7}, 256},
        {{LS_LAYOUT_CONTIGUOUS, 100, 3, NULL}, 0, 1, {0}, 100},
        {{LS_LAYOUT_CONTIGUOUS, 100, 3, NULL}, 1, 0, {0}, 0},
        {{LS_LAYOUT_STRIPED, 0, 2, NULL}, 0, 0, {0}, 0},
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct ls_layout *const layout = &cases[c].layout;
        const int rank = cases[c].rank;

        cr_assert_eq(ls_layout_part_leaves(layout, rank), cases[c].n, "case %zu", c);
        cr_expect_eq(ls_layout_part_rows(layout, rank), cases[c].rows, "case %zu", c);
        for (int i = 0; i < cases[c].n; i++)
            cr_expect_eq(ls_layout_part_leaf(layout, rank, i), cases[c].leaves[i], "case %zu", c);
    }
    cr_expect_eq(ls_layout_leaves(&(struct ls_layout){LS_LAYOUT_ZIGZAG, 3001, 8, NULL}), 12);
}

Test(layout, lengths_beyond_32_bits)
{
    const int64_t s = (INT64_C(1) << 40) + 77;

    for (ls_layout_kind kind = LS_LAYOUT_CONTIGUOUS; kind <= LS_LAYOUT_STRIPED; kind++) {
        const struct ls_layout layout = {.kind = kind, .s = s, .p = 7};
        int64_t rows = 0, last = 0;

        for (int rank = 0; rank < layout.p; rank++) {
            const int64_t part = ls_layout_part_rows(&layout, rank);
            const int64_t end = ls_layout_position(&layout, rank, part - 1);

            rows += part;
            last = end > last ? end : last;
        }
        cr_expect_eq(rows, s, "%s", describe(&layout));
        cr_expect_eq(last, s - 1, "%s", describe(&layout));
    }
}
