/* Binomial trees over any number of ranks: played with sets of ranks in the place of results. */
#include <criterion/criterion.h>
#include <string.h>

#include "attention/merging/binomial.h"

#define MOST 40

/* Every root of every number of ranks. */
#define FOR_EACH_TREE(tree)                                                                        \
    for (struct ls_binomial tree = {.p = 1}; tree.p <= MOST; tree.p++)                             \
        for (tree.root = 0; tree.root < tree.p; tree.root++)

static int count(const bool *set)
{
    int n = 0;

    for (int i = 0; i < MOST; i++) n += set[i];
    return n;
}

/* Gives what it has to the rank 2^round before it; it does so once, and has the ranks said. */
static void give(bool has[MOST][MOST], bool *given, const struct ls_binomial *tree, int rank,
                 int round)
{
    const int to = (rank - (1 << round) % tree->p + tree->p) % tree->p;

    cr_expect_not(given[rank]);
    cr_expect_not(given[to], "%d ranks, root %d: %d gives to %d, which has given", tree->p,
                  tree->root, rank, to);
    cr_expect(round < ls_binomial_takings(tree, to));
    cr_expect_eq(count(has[rank]), ls_binomial_ranks(tree, rank));
    for (int i = 0; i < ls_binomial_ranks(tree, rank); i++)
        cr_expect(has[rank][(rank + i) % tree->p], "the ranks that follow it");
    for (int i = 0; i < tree->p; i++) {
        cr_expect_not(has[to][i] && has[rank][i], "%d twice", i);
        has[to][i] |= has[rank][i];
    }
    given[rank] = true;
}

Test(binomial, brings_everything_to_the_root_once)
{
    FOR_EACH_TREE(tree)
    {
        bool has[MOST][MOST], given[MOST] = {false};

        memset(has, 0, sizeof has);
        for (int r = 0; r < tree.p; r++) has[r][r] = true;
        for (int round = 0; round < ls_binomial_rounds(tree.p); round++)
            for (int r = 0; r < tree.p; r++)
                if (ls_binomial_gives(&tree, r, round)) give(has, given, &tree, r, round);
        cr_expect_eq(count(has[tree.root]), tree.p, "%d ranks, root %d", tree.p, tree.root);
        cr_expect_eq(count(given), tree.p - 1);
        cr_expect_eq(ls_binomial_ranks(&tree, tree.root), tree.p);
    }
}

/* It takes in exactly those rounds in which the rank behind it gives. */
Test(binomial, takings_are_the_first_rounds)
{
    FOR_EACH_TREE(tree)
    {
        for (int at = 0; at < tree.p * ls_binomial_rounds(tree.p); at++) {
            const int r = at % tree.p, round = at / tree.p;
            const bool comes = ls_binomial_gives(&tree, (r + (1 << round)) % tree.p, round);

            cr_expect_eq(comes, round < ls_binomial_takings(&tree, r), "%d ranks, root %d: %d",
                         tree.p, tree.root, r);
        }
    }
}

Test(binomial, is_as_deep_as_a_logarithm)
{
    cr_expect_eq(ls_binomial_rounds(1), 0);
    cr_expect_eq(ls_binomial_rounds(2), 1);
    cr_expect_eq(ls_binomial_rounds(3), 2);
    cr_expect_eq(ls_binomial_rounds(8), 3);
    cr_expect_eq(ls_binomial_rounds(9), 4);
    cr_expect_eq(ls_binomial_rounds(65536), 16);
}
