/* The family of operations on elements (device/pointwise.h). */
#ifndef LS_CPU_POINTWISE_POINTWISE_H
#define LS_CPU_POINTWISE_POINTWISE_H

#include "device/pointwise.h"

extern const struct ls_pointwise_ops cpu_pointwise_ops;

void cpu_activation_forward(void *self, struct ls_tensor *y, const struct ls_tensor *z,
                            ls_activation kind);
void cpu_activation_backward(void *self, struct ls_tensor *dz, const struct ls_tensor *dy,
                             const struct ls_tensor *z, ls_activation kind);
void cpu_tensor_add(void *self, struct ls_tensor *out, const struct ls_tensor *a,
                    const struct ls_tensor *b);
void cpu_dropout_mask(void *self, uint8_t *mask, const int64_t dim[3],
                      const struct ls_dropout *dropout, const struct ls_row_runs *runs);
void cpu_dropout(void *self, const struct ls_dropout_call *call);
void cpu_rotate(void *self, struct ls_tensor *out, const struct ls_tensor *x,
                const struct ls_rotary *rotary, const struct ls_row_runs *runs, bool back);

#endif
