/* The order in which partial results of one tile are merged: the binary tree over the numbers of
 * what is pushed, left to right. Finished subtrees wait in a stack, as the bits of a counter. */
#ifndef LS_CPU_FOREST_H
#define LS_CPU_FOREST_H

#include "cpu/simd.h"

#define FOREST_DEPTH 40

struct forest {
    const struct simd *simd;
    int rows, d;    /* rows in use, distance of accumulator rows */
    int top;        /* subtrees that wait */
    int64_t pushed; /* results so far */
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

/* What was written at forest_next is complete. */
static inline void forest_push(struct forest *forest)
{
    forest->top++;
    forest->pushed++;
    for (int64_t number = forest->pushed; number % 2 == 0; number /= 2) forest_merge_top(forest);
}

/* Everything pushed, merged; missing right-hand parts of the tree are empty. */
static inline struct ls_row_states forest_fold(struct forest *forest)
{
    while (forest->top > 1) forest_merge_top(forest);
    return forest->node[0];
}

#endif
