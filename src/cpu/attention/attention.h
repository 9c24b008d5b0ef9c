/* The family of operations on attention kernels (device/attention.h). */
#ifndef LS_CPU_ATTENTION_ATTENTION_H
#define LS_CPU_ATTENTION_ATTENTION_H

#include "device/attention.h"

extern const struct ls_attention_ops cpu_attention_ops;

/* Rows of cpu_attention_ops in schedule.c. */
ls_status cpu_attend(struct ls_queue *queue, struct ls_attention_kernel *kernel,
                     const struct ls_kernel_call *call);
void cpu_merge(struct ls_attention_kernel *kernel, struct ls_row_states into,
               struct ls_row_states from, int64_t rows);

#endif
