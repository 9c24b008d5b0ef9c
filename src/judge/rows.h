/* Rows that are judged: which, where they are, and their elements. */
#ifndef LS_JUDGE_ROWS_H
#define LS_JUDGE_ROWS_H

#include <stdint.h>

#include "longspan/layout.h"
#include "longspan/tensor.h"

/* The most rows of a head that are judged. */
int64_t ls_judge_most_rows(const struct ls_layout *layout, int64_t rows);

/* out [ls_judge_most_rows] = positions, rising, of the rows that are judged of the i-th head of all
 * batches: the first and last of every part and others by chance, the same ones on every rank; all
 * for rows 0. Returns how many. */
int64_t ls_judge_choose_rows(int64_t *out, const struct ls_layout *layout, int64_t rows, int64_t i);

/* Local row of a position, -1 if another rank holds it. */
int64_t ls_judge_find_row(const struct ls_layout *layout, int rank, int64_t position);

/* out [n, d] = rows [first, first + n) of one head of t, [b, s, h, d]. */
void ls_judge_load_rows(double *out, const struct ls_tensor *t, int64_t b, int64_t first, int64_t n,
                        int64_t head);

#endif
