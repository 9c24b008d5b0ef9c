/* The header of a .safetensors file: named tensors, described in JSON. */
#ifndef LS_TENSOR_SAFETENSORS_H
#define LS_TENSOR_SAFETENSORS_H

#include "tensor/header.h"

/* Bytes before the JSON: its length, little-endian. */
#define LS_SAFETENSORS_PREFIX 8

/* source has the prefix. *out: the tensors in the order of their data; the caller frees it. The
 * file must be described exactly: no byte of it unnamed, none named twice. Of foreign tensors
 * nothing else is checked. Errors: LS_EFORMAT, LS_ENOMEM. */
ls_status ls_safetensors_parse(struct ls_file_tensor **out, int *count,
                               const struct ls_source *source);

/* The first bytes of a file that holds these tensors one after the other, up to the data, which
 * begins at a multiple of 8; the caller frees them. Sets every tensors[i].offset and bytes, and
 * *file_bytes, the length of the whole file. Errors: LS_EVALUE for a name that is used twice,
 * reserved or not UTF-8; LS_ESHAPE for an impossible shape; LS_ENOMEM. */
ls_status ls_safetensors_header(char **out, int64_t *header_bytes, int64_t *file_bytes,
                                struct ls_file_tensor *tensors, int count);

#endif
