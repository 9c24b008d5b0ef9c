/* The operations on gradients that src/cpu/device.c puts into the table; see device/device.h for
 * what each one promises. */
#ifndef LS_CPU_GRADIENT_KERNEL_H
#define LS_CPU_GRADIENT_KERNEL_H

#include "device/device.h"

const char *cpu_gradient_name(const struct ls_kernel_shape *attention);
size_t cpu_gradient_bytes(const struct ls_gradient_shape *shape);
ls_status cpu_gradient_create(struct ls_gradient_kernel **out,
                              const struct ls_gradient_shape *shape);
void cpu_gradient_destroy(struct ls_gradient_kernel *kernel);
ls_status cpu_gradient(struct ls_kernel_result *result, struct ls_gradient_kernel *kernel,
                       const struct ls_gradient_call *call);
void cpu_delta(float *delta, const struct ls_tensor *d_o, const struct ls_tensor *o,
               const struct ls_tensor *o_lo, const struct ls_tensor *dlse, int threads);
void cpu_add(float *into, const float *from, int64_t n, int threads);
void cpu_round_sums(struct ls_tensor *out, const float *a, const float *b, int64_t group,
                    int threads);

#endif
