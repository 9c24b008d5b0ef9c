/* The family of operations on gradient kernels (device/gradient.h). */
#ifndef LS_CPU_GRADIENT_KERNEL_H
#define LS_CPU_GRADIENT_KERNEL_H

#include "device/gradient.h"

extern const struct ls_gradient_ops cpu_gradient_ops;

/* A row of cpu_gradient_ops in schedule.c. */
ls_status cpu_gradient(struct ls_queue *queue, struct ls_gradient_kernel *kernel,
                       const struct ls_gradient_call *call);

#endif
