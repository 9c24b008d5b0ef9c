/* The order in which partial results of one tile are merged: the binary tree over the numbers of
 * what is pushed, left to right. Finished subtrees wait in a stack, as the bits of a counter; those
 * of nothing but skipped numbers take no place there, and merging with them does nothing. */
#ifndef LS_CPU_ATTENTION_FOREST_H
#define LS_CPU_ATTENTION_FOREST_H

#include <math.h>

#include "cpu/simd.h"

#define FOREST_DEPTH 40

struct forest {
    const struct simd *simd;
    int rows, d;    /* rows in use, distance of accumulator rows */
    int top;        /* subtrees that wait in node */
    int64_t pushed; /* numbers so far; its bits are the levels of the subtrees */
    int64_t held;   /* levels, as bits, of those in node */
    struct ls_row_states node[FOREST_DEPTH];
};

/* Subtrees that can wait at once when `count` results are pushed. */
static inline int forest_depth(int64_t count)
{
    int depth = 1;

    while ((int64_t)1 << depth <= count) depth++;
    return depth + 1;
}

static inline void forest_start(struct forest *forest, int rows)
{
    forest->rows = rows;
    forest->top = 0;
    forest->pushed = 0;
    forest->held = 0;
}

/* Where the next result is to be written. */
static inline struct ls_row_states forest_next(const struct forest *forest)
{
    return forest->node[forest->top];
}

static inline void forest_merge_top(struct forest *forest)
{
    forest->top--;
    forest->simd->merge(forest->node[forest->top - 1], forest->node[forest->top], forest->rows,
                        forest->d);
}

/* The next 2^level numbers, of which pushed is a multiple, are a subtree: the top one, or none. */
static inline void forest_add(struct forest *forest, int level, bool held)
{
    forest->pushed += (int64_t)1 << level;
    for (; (forest->pushed >> level) % 2 == 0; level++) {
        const int64_t left = (int64_t)1 << level;

        if (!(forest->held & left)) continue;
        forest->held -= left;
        if (held) forest_merge_top(forest);
        held = true;
    }
    if (held) forest->held |= (int64_t)1 << level;
}

/* What was written at forest_next is complete. */
static inline void forest_push(struct forest *forest)
{
    forest->top++;
    forest_add(forest, 0, true);
}

/* There is nothing at the next `count` numbers. */
static inline void forest_skip(struct forest *forest, int64_t count)
{
    while (count > 0) {
        int level = 0;

        while ((forest->pushed >> level) % 2 == 0 && (int64_t)2 << level <= count) level++;
        forest_add(forest, level, false);
        count -= (int64_t)1 << level;
    }
}

/* Everything pushed, merged; missing right-hand parts of the tree are empty. */
static inline struct ls_row_states forest_fold(struct forest *forest)
{
    const struct ls_row_states all = forest->node[0];

    for (int r = 0; r < forest->rows && forest->top == 0; r++) all.m[r] = -INFINITY;
    while (forest->top > 1) forest_merge_top(forest);
    return all;
}

#endif
