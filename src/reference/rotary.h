/* Rotary embedding of one head in double precision (tensor/rotary.h). */
#ifndef LS_REFERENCE_ROTARY_H
#define LS_REFERENCE_ROTARY_H

#include <stdbool.h>

#include "tensor/rotary.h"

/* head [dims or more], in place; `back` turns the other way. */
void ls_reference_rotate(double *head, const struct ls_rotary *rotary, int64_t position, bool back);

#endif
