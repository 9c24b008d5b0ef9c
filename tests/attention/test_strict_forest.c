/* The list of steps by which parts of the keys become one result: played with intervals of leaves
 * in the place of results. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "attention/leaves.h"
#include "attention/merging/forest.h"
#include "attention/plan.h"
#include "base/random.h"

#define MOST_SLOTS 1024

/* A result: a node of the tree. */
struct span {
    int64_t first, end;
    bool full;
};

/* Left and right halves of one node of the tree over `leaves`. */
static struct span joined(struct span left, struct span right, int64_t leaves)
{
    int64_t size = 1;

    cr_assert(left.full && right.full && left.end == right.first, "[%ld, %ld) and [%ld, %ld)",
              (long)left.first, (long)left.end, (long)right.first, (long)right.end);
    while (left.first + size < left.end) size *= 2;
    cr_assert_eq(left.first + size, left.end, "the left half is whole");
    cr_assert_eq(left.first % (2 * size), 0, "it is a left half");
    cr_assert(right.end == leaves || right.end == left.end + size, "the right half is whole");
    return (struct span){left.first, right.end, true};
}

static struct span arrival(const struct ls_forest_step *step, const struct ls_leaf_list *part)
{
    const struct ls_leaf *leaf = part->leaf + step->first;

    cr_assert_leq(step->first + step->count, part->count);
    for (int64_t i = 1; i < step->count; i++) cr_assert_eq(leaf[i].number, leaf[0].number + i);
    return (struct span){leaf[0].number, leaf[0].number + step->count, true};
}

/* What a step leaves as its result. */
static struct span play(const struct ls_forest_step *step, struct span *slot,
                        const struct ls_leaf_list *part, int64_t leaves)
{
    const struct span kept = step->slot < 0 ? (struct span){0} : slot[step->slot];

    if (step->join == LS_NODE_MERGE) {
        const struct span from = slot[step->from];
        slot[step->from].full = false;
        return joined(kept, from, leaves);
    }
    if (step->count == 0) return kept;
    const struct span come = arrival(step, &part[step->part]);
    if (step->join == LS_NODE_BEFORE) return joined(come, kept, leaves);
    if (step->join == LS_NODE_AFTER) return joined(kept, come, leaves);
    cr_assert(!kept.full, "a slot in use is written");
    return come;
}

static void play_all(const struct ls_forest *forest, const struct ls_leaf_list *part,
                     int64_t leaves)
{
    struct span slot[MOST_SLOTS] = {0}, last = {0};
    int at = 0;

    for (int64_t i = 0; i < forest->steps; i++) {
        const struct ls_forest_step *step = &forest->step[i];

        cr_assert(step->part >= at && step->slot < forest->slots);
        cr_assert(step->join != LS_NODE_MERGE || step->from < forest->slots);
        at = step->part;
        last = play(step, slot, part, leaves);
        cr_assert_eq(step->whole, i == forest->steps - 1);
        if (step->slot >= 0) slot[step->slot] = last;
    }
    cr_assert(last.first == 0 && last.end == leaves);
}

/* The leaves of some ranks that follow each other, by number. */
static struct ls_leaf_list leaves_of(struct ls_leaf *leaf, const struct ls_layout *layout,
                                     int first, int ranks)
{
    struct ls_leaf_list list = {.leaf = leaf};

    for (int i = 0; i < ranks; i++)
        ls_leaves_append(leaf, &list.count, layout, (first + i) % layout->p, 0);
    ls_leaves_sort(leaf, list.count);
    return list;
}

/* What an open forest leaves is the leaves of its parts, in order, in as few nodes as can be, and
 * the nodes that such a part is cut into elsewhere. */
static void check_kept(const struct ls_forest *forest, const struct ls_leaf_list *part, int parts,
                       const struct ls_leaf_list *all, int64_t leaves)
{
    struct span slot[MOST_SLOTS] = {0};
    int64_t at = 0;

    for (int64_t i = 0; i < forest->steps; i++) {
        const struct ls_forest_step *step = &forest->step[i];

        cr_assert(!step->whole && step->slot >= 0 && step->slot < forest->slots);
        cr_assert(step->part < parts);
        slot[step->slot] = play(step, slot, part, leaves);
    }
    cr_expect_eq(forest->kept_count, ls_forest_nodes(all, leaves));
    for (int i = 0; i < forest->kept_count; i++) {
        const struct span kept = slot[forest->kept[i]];

        for (int64_t leaf = kept.first; leaf < kept.end; leaf++, at++)
            cr_assert(at < all->count && all->leaf[at].number == leaf);
    }
    cr_expect_eq(at, all->count);
}

static void check_open(const struct ls_layout *layout, int first, int ranks)
{
    const int64_t leaves = ls_layout_leaves(layout);
    struct ls_leaf *leaf = malloc((size_t)(2 * leaves + 1) * sizeof *leaf);
    const int half = ranks / 2;
    const struct ls_leaf_list part[] = {
        leaves_of(leaf, layout, first, ranks - half),
        leaves_of(leaf + leaves, layout, first + ranks - half, half)};
    struct ls_leaf *both = malloc((size_t)(leaves + 1) * sizeof *leaf);
    const struct ls_leaf_list all = leaves_of(both, layout, first, ranks);
    struct ls_forest forest;

    cr_assert_eq(ls_forest_init_open(&forest, part, 2, true, leaves), LS_OK);
    check_kept(&forest, part, 2, &all, leaves);
    ls_forest_fini(&forest);
    free(both);
    free(leaf);
}

Test(strict_forest, open_leaves_the_largest_nodes)
{
    static const int64_t lengths[] = {0, 1, 257, 3001, 8192, 20000};

    for (int p = 1; p <= 7; p++)
        for (int i = 0; i < 6 * 3; i++)
            for (int first = 0; first < p; first++)
                for (int ranks = 1; ranks <= p; ranks++)
                    check_open(
                        &(struct ls_layout){.kind = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + i % 3),
                                            .s = lengths[i / 3],
                                            .p = p},
                        first, ranks);
}

/* The forest of one rank of a ring. */
static int ring_forest(struct ls_forest *out, const struct ls_layout *layout, int rank, bool check)
{
    struct ls_leaf_list part[32] = {0};
    struct ls_leaf *leaf = malloc((size_t)(ls_layout_leaves(layout) + 1) * sizeof *leaf);
    int64_t count = 0;

    for (int i = 0; i < layout->p; i++) {
        const int64_t first = count;

        ls_leaves_append(leaf, &count, layout, (rank + i) % layout->p, 0);
        part[i] = (struct ls_leaf_list){leaf + first, count - first};
    }
    cr_assert_eq(ls_forest_init(out, part, layout->p, true), LS_OK);
    if (check) play_all(out, part, ls_layout_leaves(layout));
    free(leaf);
    return out->slots;
}

Test(strict_forest, merges_by_the_tree)
{
    static const int64_t lengths[] = {0, 1, 256, 257, 3001, 8192, 10000, 65536};

    for (int p = 1; p <= 9; p++) {
        for (int i = 0; i < 8 * 3; i++) {
            for (int rank = 0; rank < p; rank++) {
                const struct ls_layout layout = {.kind =
                                                     (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + i % 3),
                                                 .s = lengths[i / 3],
                                                 .p = p};
                struct ls_forest forest;

                ring_forest(&forest, &layout, rank, true);
                ls_forest_fini(&forest);
            }
        }
    }
}

/* What has to wait between the steps of a ring is little if parts are contiguous. */
Test(strict_forest, few_results_wait)
{
    static const struct {
        int p, contiguous, zigzag;
    } most[] = {{1, 0, 0}, {2, 1, 2}, {4, 2, 4}, {8, 4, 8}, {16, 6, 12}};

    for (int i = 0; i < 5; i++) {
        for (int kind = 0; kind < 2; kind++) {
            struct ls_layout layout = {.kind = kind ? LS_LAYOUT_ZIGZAG : LS_LAYOUT_CONTIGUOUS,
                                       .s = (int64_t)most[i].p * 2 * 4 * LS_LEAF,
                                       .p = most[i].p};
            int slots = 0;

            for (int rank = 0; rank < layout.p; rank++) {
                struct ls_forest forest;
                const int n = ring_forest(&forest, &layout, rank, false);

                if (n > slots) slots = n;
                ls_forest_fini(&forest);
            }
            cr_expect_leq(slots, (kind ? most[i].zigzag : most[i].contiguous) + (layout.p > 2),
                          "p %d, %s: %d", layout.p, ls_layout_name(layout.kind), slots);
        }
    }
}

/* ---- leaves that nobody brings */

/* A result as a number that tells the tree it came from; 0: none. */
static uint64_t both(uint64_t left, uint64_t right)
{
    if (!left || !right) return left + right;
    return (left * 0x9e3779b97f4a7c15u ^ right) * 0xbf58476d1ce4e5b9u + 1;
}

/* The tree over places [first, end) of a list, as a kernel call merges its leaves. */
static uint64_t tree_of(const struct ls_leaf *leaf, int64_t count, int64_t first, int64_t size)
{
    if (first >= count) return 0;
    if (size == 1) return (uint64_t)leaf[first].number + 1;
    return both(tree_of(leaf, count, first, size / 2),
                tree_of(leaf, count, first + size / 2, size / 2));
}

/* The tree over numbers, of which some are not there. */
static uint64_t tree_of_all(const bool *there, int64_t first, int64_t size)
{
    if (size == 1) return there[first] ? (uint64_t)first + 1 : 0;
    return both(tree_of_all(there, first, size / 2),
                tree_of_all(there, first + size / 2, size / 2));
}

static uint64_t result_of(const struct ls_forest *forest, const struct ls_leaf_list *part)
{
    uint64_t slot[MOST_SLOTS] = {0}, last = 0;

    for (int64_t i = 0; i < forest->steps; i++) {
        const struct ls_forest_step *step = &forest->step[i];
        const uint64_t kept = step->slot < 0 ? 0 : slot[step->slot];
        const uint64_t come =
            step->join == LS_NODE_MERGE
                ? slot[step->from]
                : tree_of(part[step->part].leaf + step->first, step->count, 0, 64);

        last = step->join == LS_NODE_ALONE    ? come
               : step->join == LS_NODE_BEFORE ? both(come, kept)
                                              : both(kept, come);
        if (step->slot >= 0) slot[step->slot] = last;
    }
    return last;
}

/* Each of 64 leaves is in one of three parts or in none, in runs of random length. */
Test(strict_forest, leaves_that_are_not_there_change_nothing)
{
    for (uint64_t seed = 0; seed < 3000; seed++) {
        struct ls_leaf leaf[3][64];
        struct ls_leaf_list part[3] = {{leaf[0], 0}, {leaf[1], 0}, {leaf[2], 0}};
        bool there[64] = {false};
        struct ls_forest forest;
        uint64_t owner = 3;

        for (int64_t i = 0; i < 64; i++) {
            const uint64_t drawn = ls_random_below(seed, 0, (uint64_t)i, 4 + seed % 20);

            if (drawn < 4) owner = drawn;
            if (owner == 3) continue;
            there[i] = true;
            leaf[owner][part[owner].count++] = (struct ls_leaf){.number = i};
        }
        cr_assert_eq(ls_forest_init(&forest, part, 3, true), LS_OK);
        cr_assert_eq(result_of(&forest, part), tree_of_all(there, 0, 64), "seed %lu",
                     (unsigned long)seed);
        ls_forest_fini(&forest);
    }
}
