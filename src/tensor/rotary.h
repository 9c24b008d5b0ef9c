/* Rotary embedding: elements i and i + dims/2 of a head, i < dims/2, are turned by the angle
 * position x frequency[i], as Llama pairs them; from dims on a head stays as it is.
 * Source: Su et al. 2021. */
#ifndef LS_TENSOR_ROTARY_H
#define LS_TENSOR_ROTARY_H

#include <stdint.h>

struct ls_rotary {
    int64_t dims;            /* even */
    const double *frequency; /* [dims / 2] radians a position, of the host */
};

/* out [dims / 2] = theta^(-2 i / dims), what is used unless a model scales it. */
void ls_rotary_frequencies(double *out, double theta, int64_t dims);

#endif
