#include "reference/norm.h"

#include <math.h>
#include <stddef.h>

struct ls_reference_statistics ls_reference_norm_statistics(const struct ls_reference_norm *norm,
                                                            const double *x)
{
    const double e = (double)norm->e;
    double mean = 0, variance = 0;

    if (!norm->rms)
        for (int64_t i = 0; i < norm->e; i++) mean += x[i] / e;
    for (int64_t i = 0; i < norm->e; i++) variance += (x[i] - mean) * (x[i] - mean) / e;
    return (struct ls_reference_statistics){mean, 1 / sqrt(variance + norm->epsilon)};
}

void ls_reference_norm_forward(double *y, const struct ls_reference_norm *norm, const double *x)
{
    const struct ls_reference_statistics s = ls_reference_norm_statistics(norm, x);

    for (int64_t i = 0; i < norm->e; i++)
        y[i] = (x[i] - s.mean) * s.rstd * norm->gamma[i] + (norm->beta ? norm->beta[i] : 0);
}

void ls_reference_norm_backward(double *dx, double *dgamma, double *dbeta,
                                const struct ls_reference_norm *norm, const double *dy,
                                const double *x)
{
    const struct ls_reference_statistics s = ls_reference_norm_statistics(norm, x);
    double mean_of_g = 0, mean_of_product = 0;

    for (int64_t i = 0; i < norm->e; i++) {
        const double g = dy[i] * norm->gamma[i], xhat = (x[i] - s.mean) * s.rstd;

        if (!norm->rms) mean_of_g += g / (double)norm->e;
        mean_of_product += g * xhat / (double)norm->e;
        dgamma[i] += dy[i] * xhat;
        if (dbeta) dbeta[i] += dy[i];
    }
    for (int64_t i = 0; i < norm->e; i++) {
        const double g = dy[i] * norm->gamma[i], xhat = (x[i] - s.mean) * s.rstd;

        dx[i] = s.rstd * (g - mean_of_g - xhat * mean_of_product);
    }
}
