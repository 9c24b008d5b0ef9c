/* Small arithmetic that the oracle and the contract share. */
#ifndef LS_REFERENCE_MEASURE_H
#define LS_REFERENCE_MEASURE_H

#include <math.h>

#include "tensor/dtype.h"

static inline double square(double x)
{
    return x * x;
}

/* The larger of two numbers; b if that is NaN, which fmax would drop. */
static inline double larger(double a, double b)
{
    return a >= b ? a : b;
}

/* |a - exact|; infinite if one of them is no number and the other is not the same. */
static inline double distance(double a, double exact)
{
    if (a == exact || (isnan(a) && isnan(exact))) return 0;
    const double error = fabs(a - exact);

    return isnan(error) ? INFINITY : error;
}

/* error / bound, where nothing exceeds a bound of nothing and infinity exceeds all. */
static inline double ratio(double error, double bound)
{
    return error == 0 ? 0 : error == INFINITY ? INFINITY : error / bound;
}

/* x relative to a norm; x itself where that is 0. */
static inline double relative(double x, double norm)
{
    return norm > 0 ? x / norm : x;
}

/* What rounding to the storage type adds. */
static inline double rounding_error(ls_dtype storage, double exact)
{
    union {
        double f64;
        float f32;
        uint16_t f16;
    } element;

    ls_dtype_store(storage, &element, exact);
    return ls_dtype_load(storage, &element) - exact;
}

#endif
