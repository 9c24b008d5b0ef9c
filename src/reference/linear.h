/* Linear layers and their gradients in double precision, as they are written down. Everything is
 * contiguous: x [rows, in], w [out, in], bias [out], y [rows, out]. */
#ifndef LS_REFERENCE_LINEAR_H
#define LS_REFERENCE_LINEAR_H

#include <stdint.h>

struct ls_reference_linear {
    int64_t rows, in, out;
};

/* y = x w^T + bias; bias may be NULL. */
void ls_reference_linear(double *y, const struct ls_reference_linear *shape, const double *x,
                         const double *w, const double *bias);

/* dx [rows, in] = dy w */
void ls_reference_linear_dx(double *dx, const struct ls_reference_linear *shape, const double *dy,
                            const double *w);

/* dw [out, in] = dy^T x */
void ls_reference_linear_dw(double *dw, const struct ls_reference_linear *shape, const double *dy,
                            const double *x);

/* dbias [out] = sum of dy over rows */
void ls_reference_linear_dbias(double *dbias, const struct ls_reference_linear *shape,
                               const double *dy);

#endif
