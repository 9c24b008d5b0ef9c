/* Rounding and subnormals do not depend on the caller: each thread of a kernel works in the default
 * mode and puts the caller's back. */
#ifndef LS_CPU_FLOAT_MODE_H
#define LS_CPU_FLOAT_MODE_H

#include <fenv.h>

/* The caller's, for fesetenv. */
static inline fenv_t cpu_float_mode_enter(void)
{
    fenv_t callers;

    fegetenv(&callers);
    fesetenv(FE_DFL_ENV);
    return callers;
}

#endif
