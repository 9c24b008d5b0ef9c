/* Number types: names, sizes, rounding. */
#ifndef LS_TENSOR_DTYPE_H
#define LS_TENSOR_DTYPE_H

#include <stdbool.h>

#include "base/status.h"
#include "longspan/tensor.h"

/* Errors: LS_ETYPE, with the names there are, for a name that is none. */
ls_status ls_dtype_find(ls_dtype *out, const char *name);

/* Types whose numbers mean something with a scale. */
static inline bool ls_dtype_is_of_8_bits(ls_dtype type)
{
    return type == LS_I8 || type == LS_E4M3;
}

/* Half the spacing of numbers just above 1: 2^-24, 2^-8 (bf16), 2^-11 (f16), 2^-53 (f64). */
double ls_dtype_unit(ls_dtype type);

/* The smallest positive subnormal. */
double ls_dtype_smallest(ls_dtype type);

/* One element, to and from the widest type; rounds to nearest, ties to even. */
double ls_dtype_load(ls_dtype type, const void *element);
void ls_dtype_store(ls_dtype type, void *element, double value);

/* n contiguous elements, rounded once (never through a third type that rounds as well). */
void ls_dtype_convert(void *out, ls_dtype to, const void *in, ls_dtype from, int64_t n);

/* Position of the first NaN or infinity among n contiguous elements, or -1. */
int64_t ls_dtype_find_nonfinite(const void *in, ls_dtype type, int64_t n);

/* The same for NaN and magnitudes of at least `limit`, a power of two. */
int64_t ls_dtype_find_large(const void *in, ls_dtype type, int64_t n, double limit);

#endif
