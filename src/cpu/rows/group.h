/* The sum of a group of rows, a pair of lanes of each. */
#ifndef LS_CPU_ROWS_GROUP_H
#define LS_CPU_ROWS_GROUP_H

#include "cpu/elements.h"
#include "cpu/rows/node_sums.h"

/* rows: 1 or ROW_GROUP */
static ALWAYS_INLINE struct pair sum_of_group(const struct pair *x, int rows)
{
    struct pair sum = x[0];

    if (rows == ROW_GROUP)
        for (int half = 0; half < 2; half++)
            sum.x[half] = ((x[0].x[half] + x[1].x[half]) + (x[2].x[half] + x[3].x[half])) +
                          ((x[4].x[half] + x[5].x[half]) + (x[6].x[half] + x[7].x[half]));
    return sum;
}

#endif
