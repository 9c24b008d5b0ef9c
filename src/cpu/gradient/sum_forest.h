/* The order in which sums are added: the binary tree over the places of what comes, left to
 * right. Places may be left out, which costs nothing. Finished subtrees wait in a stack.
 * At ~place, sums may come right to left: the tree is the same, seen in a mirror. */
#ifndef LS_CPU_GRADIENT_SUM_FOREST_H
#define LS_CPU_GRADIENT_SUM_FOREST_H

#include <stdbool.h>
#include <stdint.h>

#include "longspan/tensor.h"

#define SUM_DEPTH 40

/* [rows][d], rows `stride` floats apart. */
struct sums {
    float *at;
    int64_t stride;
};

struct sum_forest {
    int rows, d;
    int top;                     /* subtrees that wait */
    int64_t place[SUM_DEPTH];    /* one of each subtree's */
    struct sums node[SUM_DEPTH]; /* each one's sum */
};

/* Height of the lowest node of the tree that has both places below it. */
static inline int sum_height(int64_t a, int64_t b)
{
    return a == b ? 0 : 64 - __builtin_clzll((unsigned long long)(a ^ b));
}

/* Subtrees that can wait at once when places are below `count`. */
static inline int sum_forest_depth(int64_t count)
{
    return count < 3 ? 1 : sum_height(count - 1, 0);
}

/* to [n] = a [n] + b [n]; a or b may be `to` */
void cpu_add_floats(float *to, const float *a, const float *b, int64_t n);

/* into += from; sums = 0; all [rows][d]. */
void cpu_sums_add(struct sums into, struct sums from, int rows, int d);
void cpu_sums_clear(struct sums sums, int rows, int d);

/* To rows [row, row + rows) of a tensor [b, s, heads, d], rounded; zeroes are positive. */
void cpu_round_rows(struct ls_tensor *out, int64_t batch, int64_t row, int64_t head,
                    struct sums sums, int rows);

static inline void sum_forest_start(struct sum_forest *forest, int rows, int d)
{
    forest->rows = rows;
    forest->d = d;
    forest->top = 0;
}

static inline void sum_forest_add_top(struct sum_forest *forest)
{
    forest->top--;
    cpu_sums_add(forest->node[forest->top - 1], forest->node[forest->top], forest->rows, forest->d);
}

/* Whether the node that has the last subtree and an earlier place below it ends before `next`. */
static inline int sum_forest_ends(int64_t earlier, int64_t last, int64_t next)
{
    return sum_height(earlier, last) < sum_height(last, next);
}

/* Adds what belongs together before anything at `next` or behind it comes. */
static inline void sum_forest_settle(struct sum_forest *forest, int64_t next)
{
    const int64_t *place = forest->place;

    while (forest->top > 1 && sum_forest_ends(place[forest->top - 2], place[forest->top - 1], next))
        sum_forest_add_top(forest);
}

/* The way of sums into the tree: what waits is added to them, one subtree after the other, and
 * `total` receives them; it may be the last one's place. */
struct sum_path {
    int rows, d;
    int count;
    struct sums waiting[2 * SUM_DEPTH], total;
};

/* Leads `path`, empty or from another forest, on to `place`, behind all earlier ones, whose sums
 * are to take it next; `last`: nothing follows. */
static inline void sum_forest_lead(struct sum_path *path, struct sum_forest *forest, int64_t place,
                                   bool last)
{
    sum_forest_settle(forest, place);
    path->rows = forest->rows;
    path->d = forest->d;
    while (forest->top > 0 &&
           (last || sum_forest_ends(forest->place[forest->top - 1], place, place + 1)))
        path->waiting[path->count++] = forest->node[--forest->top];
    path->total = forest->node[forest->top];
    forest->place[forest->top++] = place;
}

/* A path to nowhere but here. */
static inline struct sum_path sum_path_to(float *at, int rows, int d)
{
    return (struct sum_path){.rows = rows, .d = d, .total = {at, d}};
}

/* Where rows [first, first + rows) may be written before they take the path: `spare`, or where they
 * go if nothing is added to them and rows lie as there. */
static inline struct sums sum_path_room(const struct sum_path *path, int first, int rows,
                                        struct sums spare)
{
    if (path->count > 0 || path->total.stride != spare.stride || first + rows > path->rows)
        return spare;
    return (struct sums){path->total.at + first * spare.stride, spare.stride};
}

/* x holds rows [first, first + rows) of sums; those that the path does not have are left out. */
void cpu_sum_path_take(const struct sum_path *path, int first, int rows, struct sums x);

/* Adds everything, at least one subtree, into node 0. */
static inline struct sums sum_forest_fold(struct sum_forest *forest)
{
    while (forest->top > 1) sum_forest_add_top(forest);
    return forest->node[0];
}

#endif
