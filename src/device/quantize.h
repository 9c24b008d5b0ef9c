/* From keys and values of other types to 8 bits: rows of numbers and their scale
 * (longspan/quantize.h). Arrays are the host's, and there when the queue is finished. A row that
 * holds NaN or infinity counts for nothing; its scale becomes NaN. */
#ifndef LS_DEVICE_QUANTIZE_H
#define LS_DEVICE_QUANTIZE_H

#include "device/device.h"

struct ls_quantize_ops {
    void (*sum)(void *self, int64_t *limb, int64_t *rows, const struct ls_tensor *x);
    void (*largest)(void *self, float *out, const struct ls_tensor *x, const float *mean);
    void (*round)(void *self, struct ls_tensor *out, const struct ls_tensor *x, const float *mean,
                  const float *largest);
};

/* limb [b, h, d][LS_EXACT_LIMBS] += the rows of x [b, s, h, d], rows [b, h] += how many these are.
 * Rows are added in double, each 256 from the first one on, and these sums exactly. */
void ls_quantize_sum(struct ls_queue *queue, int64_t *limb, int64_t *rows,
                     const struct ls_tensor *x);

/* out [b, h] = the largest magnitude in x less mean [b, h, d]; NULL: 0. */
void ls_quantize_largest(struct ls_queue *queue, float *out, const struct ls_tensor *x,
                         const float *mean);

/* out [b, s, h, d + LS_SCALE_BYTES], i8 or e4m3 = x less mean, in units of the row's scale: that
 * with which the largest number of its type is `largest` [b, h] or, if that is NULL, the largest
 * magnitude of the row. */
void ls_quantize_round(struct ls_queue *queue, struct ls_tensor *out, const struct ls_tensor *x,
                       const float *mean, const float *largest);

#endif
