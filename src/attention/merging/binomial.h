/* A binomial tree over the ranks, rooted at any of them; any number of ranks. Ranks are numbered
 * from the root on, which is 0: number n hands what it and those behind it have to n - 2^k, where
 * 2^k is the lowest bit of n. Rounds are k = 0, 1, ...; round k only has messages from a rank to
 * the one 2^k before it, whichever the root, so that trees of several roots share them. Backwards,
 * with k falling, the same messages bring what the root has to all. */
#ifndef LS_ATTENTION_MERGING_BINOMIAL_H
#define LS_ATTENTION_MERGING_BINOMIAL_H

#include <stdbool.h>

struct ls_binomial {
    int p, root;
};

/* The k of which 2^k first reaches p. */
int ls_binomial_rounds(int p);

/* Whether a rank gives in a round. If so, the rank 2^round before it takes. */
bool ls_binomial_gives(const struct ls_binomial *tree, int rank, int round);

/* Rounds in which a rank takes: the first so many. */
int ls_binomial_takings(const struct ls_binomial *tree, int rank);

/* Of how many ranks a rank has everything when it gives: of itself and those that follow it. */
int ls_binomial_ranks(const struct ls_binomial *tree, int rank);

#endif
