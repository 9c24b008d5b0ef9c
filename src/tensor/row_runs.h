/* Which rows of a sequence a tensor holds. */
#ifndef LS_TENSOR_ROW_RUNS_H
#define LS_TENSOR_ROW_RUNS_H

#include <stdint.h>

/* Rows [row, row + count) of every batch entry stand at positions [position, position + count). */
struct ls_row_run {
    int64_t row, count, position;
};

/* In the order of positions, of which none comes twice; rows may lie in any order, and a run may be
 * empty. */
struct ls_row_runs {
    const struct ls_row_run *run;
    int64_t count;
    int64_t s; /* of the whole sequence */
};

#endif
