/* The family of norms (device/norm.h). */
#ifndef LS_CPU_NORM_NORM_H
#define LS_CPU_NORM_NORM_H

#include "device/norm.h"

extern const struct ls_norm_ops cpu_norm_ops;

/* In backward.c. */
size_t cpu_norm_backward_bytes(void *self, int64_t rows, int64_t e);
void cpu_norm_backward(void *self, const struct ls_norm_backward *call);

#endif
