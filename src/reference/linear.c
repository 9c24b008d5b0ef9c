#include "reference/linear.h"

#include <string.h>

void ls_reference_linear(double *y, const struct ls_reference_linear *shape, const double *x,
                         const double *w, const double *bias)
{
    const int64_t in = shape->in, out = shape->out;

    for (int64_t r = 0; r < shape->rows; r++)
        for (int64_t n = 0; n < out; n++) {
            double sum = bias ? bias[n] : 0;

            for (int64_t k = 0; k < in; k++) sum += x[r * in + k] * w[n * in + k];
            y[r * out + n] = sum;
        }
}

void ls_reference_linear_dx(double *dx, const struct ls_reference_linear *shape, const double *dy,
                            const double *w)
{
    const int64_t in = shape->in, out = shape->out;

    memset(dx, 0, (size_t)(shape->rows * in) * sizeof *dx);
    for (int64_t r = 0; r < shape->rows; r++)
        for (int64_t n = 0; n < out; n++)
            for (int64_t k = 0; k < in; k++) dx[r * in + k] += dy[r * out + n] * w[n * in + k];
}

void ls_reference_linear_dw(double *dw, const struct ls_reference_linear *shape, const double *dy,
                            const double *x)
{
    const int64_t in = shape->in, out = shape->out;

    memset(dw, 0, (size_t)(out * in) * sizeof *dw);
    for (int64_t r = 0; r < shape->rows; r++)
        for (int64_t n = 0; n < out; n++)
            for (int64_t k = 0; k < in; k++) dw[n * in + k] += dy[r * out + n] * x[r * in + k];
}

void ls_reference_linear_dbias(double *dbias, const struct ls_reference_linear *shape,
                               const double *dy)
{
    memset(dbias, 0, (size_t)shape->out * sizeof *dbias);
    for (int64_t r = 0; r < shape->rows; r++)
        for (int64_t n = 0; n < shape->out; n++) dbias[n] += dy[r * shape->out + n];
}
