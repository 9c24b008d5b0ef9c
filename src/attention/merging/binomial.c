#include "attention/merging/binomial.h"

int ls_binomial_rounds(int p)
{
    int rounds = 0;

    while ((1 << rounds) < p) rounds++;
    return rounds;
}

static int number_of(const struct ls_binomial *tree, int rank)
{
    return (rank - tree->root + tree->p) % tree->p;
}

/* The round in which a number gives; the root never does. */
static int giving_round(const struct ls_binomial *tree, int number)
{
    int round = 0;

    if (number == 0) return ls_binomial_rounds(tree->p);
    while ((number >> round & 1) == 0) round++;
    return round;
}

bool ls_binomial_gives(const struct ls_binomial *tree, int rank, int round)
{
    return giving_round(tree, number_of(tree, rank)) == round;
}

int ls_binomial_takings(const struct ls_binomial *tree, int rank)
{
    const int number = number_of(tree, rank), giving = giving_round(tree, number);
    int rounds = 0;

    while (rounds < giving && number + (1 << rounds) < tree->p) rounds++;
    return rounds;
}

int ls_binomial_ranks(const struct ls_binomial *tree, int rank)
{
    const int number = number_of(tree, rank), rest = tree->p - number;
    const int most = 1 << giving_round(tree, number);

    return most < rest ? most : rest;
}
