/* How the states of some rows of every head lie in memory: acc, then m, then l. */
#ifndef LS_ATTENTION_MERGING_STATES_H
#define LS_ATTENTION_MERGING_STATES_H

#include "attention/problem.h"

/* Rows [first, first + count) of the `of` rows that each (batch, head) has. */
struct ls_row_range {
    int64_t first, count, of;
};

/* Floats of the states of so many rows of every head, and those states in such memory. */
int64_t ls_state_count(const struct ls_attention_shape *shape, int64_t rows);
struct ls_row_states ls_states_in(float *memory, const struct ls_attention_shape *shape,
                                  int64_t rows);

/* *out [count], each of so many rows; the caller frees both, also if this failed.
 * Errors: LS_ENOMEM. */
ls_status ls_states_create(struct ls_row_states **out, void **memory,
                           const struct ls_problem *problem, int64_t count, int64_t rows);

/* out [ls_state_count] = some rows of states. */
void ls_states_take(float *out, const struct ls_row_states *states,
                    const struct ls_problem *problem, struct ls_row_range rows);

#endif
