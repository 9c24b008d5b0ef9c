#include "tensor/rotary.h"

#include <math.h>

/* Rounded from a longer type, so that the C library's last bit does not matter. */
void ls_rotary_frequencies(double *out, double theta, int64_t dims)
{
    for (int64_t i = 0; i < dims / 2; i++)
        out[i] = (double)powl((long double)theta, -2 * (long double)i / (long double)dims);
}
