/* The header of a .npy file: NumPy's format for one array, versions 1.0 to 3.0. */
#ifndef LS_TENSOR_NPY_H
#define LS_TENSOR_NPY_H

#include "tensor/header.h"

#define LS_NPY_MAGIC "\x93NUMPY"
#define LS_NPY_MAGIC_LENGTH 6

/* source starts with the magic. Errors: LS_EFORMAT, also if the file is longer or shorter than the
 * array; LS_ETYPE for elements that are neither little-endian f16, f32 or f64 nor whole numbers. */
ls_status ls_npy_parse(struct ls_file_tensor *out, const struct ls_source *source);

#endif
