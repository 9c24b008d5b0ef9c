/* Rows of a tensor and where they stand in the sequence, one after the other. */
#ifndef LS_CPU_POINTWISE_HELD_ROWS_H
#define LS_CPU_POINTWISE_HELD_ROWS_H

#include "tensor/row_runs.h"

static inline int64_t held_rows(const struct ls_row_runs *runs)
{
    int64_t count = 0;

    for (int64_t i = 0; i < runs->count; i++) count += runs->run[i].count;
    return count;
}

/* A run, and how many rows are in those before it. */
struct held_cursor {
    int64_t run, before;
};

struct held_row {
    int64_t row, position;
};

/* The i-th of those held; i is not less than in the call before. */
static inline struct held_row held_row(struct held_cursor *at, const struct ls_row_runs *runs,
                                       int64_t i)
{
    while (i - at->before >= runs->run[at->run].count) at->before += runs->run[at->run++].count;
    const struct ls_row_run *const run = &runs->run[at->run];
    return (struct held_row){run->row + (i - at->before), run->position + (i - at->before)};
}

#endif
