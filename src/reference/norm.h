/* LayerNorm and RMSNorm of one row in double precision (device/norm.h says what they are). */
#ifndef LS_REFERENCE_NORM_H
#define LS_REFERENCE_NORM_H

#include <stdbool.h>
#include <stdint.h>

struct ls_reference_norm {
    int64_t e;
    double epsilon;
    bool rms;
    const double *gamma, *beta; /* [e]; beta may be NULL */
};

struct ls_reference_statistics {
    double mean, rstd; /* mean 0 for RMSNorm */
};

struct ls_reference_statistics ls_reference_norm_statistics(const struct ls_reference_norm *norm,
                                                            const double *x);

/* y [e] */
void ls_reference_norm_forward(double *y, const struct ls_reference_norm *norm, const double *x);

/* dx [e] is written; dgamma and dbeta [e], the latter may be NULL, are added to. */
void ls_reference_norm_backward(double *dx, double *dgamma, double *dbeta,
                                const struct ls_reference_norm *norm, const double *dy,
                                const double *x);

#endif
