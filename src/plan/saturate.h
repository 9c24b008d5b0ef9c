/* Whole numbers that stop at 2^63 - 1, which then means: too many. */
#ifndef LS_PLAN_SATURATE_H
#define LS_PLAN_SATURATE_H

#include <stdint.h>

static inline int64_t plus(int64_t a, int64_t b)
{
    int64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static inline int64_t times(int64_t a, int64_t b)
{
    int64_t product;

    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

/* The largest of so many shares of n. */
static inline int64_t share(int64_t n, int64_t shares)
{
    return (n + shares - 1) / shares;
}

#endif
