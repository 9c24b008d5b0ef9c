/* Partial results of several ranks become one: scaled to the maximum over all ranks they only need
 * to be added. What is added of a row is its l and acc together, 1 + d floats. */
#ifndef LS_ATTENTION_COMBINE_H
#define LS_ATTENTION_COMBINE_H

#include "device/device.h"

/* Rows [first, first + count) of the `of` rows that each (batch, head) has. */
struct ls_row_range {
    int64_t first, count, of;
};

/* Floats that are added up for so many rows of every head. */
int64_t ls_sum_count(const struct ls_attention_shape *shape, int64_t rows);

/* sums [b, h, rows.count, 1 + d] from states, and top, [b, h, rows.of]. A row that saw no key adds
 * nothing, whatever its top is; a NaN stays one. */
void ls_sums_scale(float *sums, const struct ls_row_states *states, const float *top,
                   const struct ls_attention_shape *shape, struct ls_row_range rows);

/* What is written; o_lo NULL: not wanted. */
struct ls_sum_results {
    struct ls_tensor *o, *o_lo, *lse;
    const struct ls_scores *scores;
};

/* Adds the sums [p, b, h, rows.count, 1 + d] of p ranks, in their order, and writes the results
 * from their row `row` on. sums are used up. */
void ls_sums_finish(const struct ls_sum_results *out, int64_t row, float *sums, int p,
                    const float *top, const struct ls_attention_shape *shape,
                    struct ls_row_range rows);

#endif
