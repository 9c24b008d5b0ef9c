/* Whole tensors of any shape in files, of which a rank reads and writes the elements it likes. */
#ifndef LS_STORE_ELEMENTS_H
#define LS_STORE_ELEMENTS_H

#include "base/status.h"
#include "longspan/store.h"
#include "tensor/file.h"

/* Elements [first, first + n) of an open or drawn source that is not packed. Not collective.
 * Errors: LS_EIO. */
ls_status ls_input_read(double *out, const struct ls_input *source, int64_t first, int64_t n);

/* The same, rounded to f32. */
ls_status ls_input_read_floats(float *out, const struct ls_input *source, int64_t first, int64_t n);

/* As ls_output_create. tensors [count >= 1]: name, type and shape. */
ls_status ls_output_create_any(struct ls_output **out, struct ls_comm *comm, const char *path,
                               const struct ls_file_tensor *tensors, int count);

/* Elements [first, first + n) of tensor i, in its type. Not collective. Errors: LS_EIO. */
ls_status ls_output_write_elements(struct ls_output *output, int i, int64_t first, int64_t n,
                                   const void *from);

#endif
