/* The family of operations on rows (device/rows.h). */
#ifndef LS_CPU_ROWS_ROWS_H
#define LS_CPU_ROWS_ROWS_H

#include "device/rows.h"

extern const struct ls_row_ops cpu_row_ops;

/* Rows of cpu_row_ops in copy.c. */
void cpu_copy(void *self, struct ls_tensor *to, const struct ls_tensor *from);
void cpu_zero(void *self, struct ls_tensor *t);

/* In row_sums.c. */
size_t cpu_sum_rows_bytes(void *self, int64_t rows, int64_t e);
void cpu_sum_rows(void *self, float *out, const struct ls_tensor *x,
                  const struct ls_row_order *order, void *scratch);

#endif
