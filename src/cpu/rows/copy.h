/* Rows are copied and cleared, wherever they lie. */
#ifndef LS_CPU_ROWS_COPY_H
#define LS_CPU_ROWS_COPY_H

#include "longspan/tensor.h"

/* As in struct ls_device_ops. */
void cpu_copy(struct ls_tensor *to, const struct ls_tensor *from, int threads);
void cpu_zero(struct ls_tensor *t, int threads);

#endif
