/* Activations of one row in double precision (longspan/activation.h). */
#ifndef LS_REFERENCE_ACTIVATION_H
#define LS_REFERENCE_ACTIVATION_H

#include <stdint.h>

#include "longspan/activation.h"

/* y [f] of z [f], or of z [2f] where there are gates. */
void ls_reference_activation_forward(double *y, ls_activation kind, const double *z, int64_t f);

/* dz, of z's shape, of dy [f]. */
void ls_reference_activation_backward(double *dz, ls_activation kind, const double *dy,
                                      const double *z, int64_t f);

#endif
