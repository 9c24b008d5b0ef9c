/* The operations on attention kernels that src/cpu/device.c puts into the table; see
 * device/device.h for what each one promises. */
#ifndef LS_CPU_ATTENTION_ATTENTION_H
#define LS_CPU_ATTENTION_ATTENTION_H

#include "device/device.h"

size_t cpu_kernel_bytes(const struct ls_kernel_shape *shape);
ls_status cpu_kernel_create(struct ls_attention_kernel **out, const struct ls_kernel_shape *shape);
void cpu_kernel_destroy(struct ls_attention_kernel *kernel);
const char *cpu_kernel_name(const struct ls_kernel_shape *shape);
ls_status cpu_attend(struct ls_kernel_result *result, struct ls_attention_kernel *kernel,
                     const struct ls_kernel_call *call);
void cpu_merge(struct ls_attention_kernel *kernel, struct ls_row_states into,
               struct ls_row_states from, int64_t rows);
bool cpu_is_canonical(const struct ls_attention_kernel *kernel);

#endif
