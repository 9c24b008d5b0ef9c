/* The header of a .npy file: NumPy's format for one array, versions 1.0 to 3.0. */
#ifndef LS_TENSOR_NPY_H
#define LS_TENSOR_NPY_H

#include "tensor/header.h"

#define LS_NPY_MAGIC "\x93NUMPY"
#define LS_NPY_MAGIC_LENGTH 6

/* source starts with the magic. Errors: LS_EFORMAT, also if the file is longer or shorter than the
 * array; LS_ETYPE for elements that are no little-endian f16, f32 or f64. */
ls_status ls_npy_parse(struct ls_file_tensor *out, const struct ls_source *source);

struct ls_npy_integers {
    int64_t rows, columns; /* rows 1 if the array has one dimension */
    int size;              /* bytes of each */
    int64_t offset;        /* in the file */
};

/* The same for whole numbers, little-endian int32 or int64, of shape [columns] or [rows, columns].
 * Errors: LS_EFORMAT, LS_ETYPE. */
ls_status ls_npy_parse_integers(struct ls_npy_integers *out, const struct ls_source *source);

#endif
