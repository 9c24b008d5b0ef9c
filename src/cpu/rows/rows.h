/* The family of operations on rows (device/rows.h). */
#ifndef LS_CPU_ROWS_ROWS_H
#define LS_CPU_ROWS_ROWS_H

#include "device/rows.h"

extern const struct ls_row_ops cpu_row_ops;

/* Rows of cpu_row_ops in copy.c. */
void cpu_copy(void *self, struct ls_tensor *to, const struct ls_tensor *from);
void cpu_zero(void *self, struct ls_tensor *t);

#endif
