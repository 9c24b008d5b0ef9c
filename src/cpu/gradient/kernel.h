/* The families of operations on gradient kernels (device/gradient.h, bias_gradient.h). */
#ifndef LS_CPU_GRADIENT_KERNEL_H
#define LS_CPU_GRADIENT_KERNEL_H

#include "device/bias_gradient.h"
#include "device/gradient.h"

extern const struct ls_gradient_ops cpu_gradient_ops;
extern const struct ls_bias_gradient_ops cpu_bias_gradient_ops; /* biases.c */

/* A row of cpu_gradient_ops in schedule.c. */
ls_status cpu_gradient(struct ls_queue *queue, struct ls_gradient_kernel *kernel,
                       const struct ls_gradient_call *call);

#endif
