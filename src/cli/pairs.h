/* --mask: which pairs of a query and a key are seen, one by one. */
#ifndef LS_CLI_PAIRS_H
#define LS_CLI_PAIRS_H

#include "cli/names.h"
#include "longspan/attention.h"
#include "tensor/file.h"

/* A matrix of pairs for each of so many entries and heads. */
struct cli_pairs {
    struct ls_tensor_file *file; /* the caller's, who opens and closes it */
    const struct ls_file_tensor *tensor;
    int64_t entries, heads, rows; /* rows of all of them */
    int64_t s_k, row_bytes;       /* of bits */
};

/* Finds the tensor in the file: a .npy, or mask of a .safetensors file; truth values [s_q, s_k] or
 * [b or 1, h or 1, s_q, s_k], or bytes of bits [.., (s_k + 7) / 8], lowest bit first. Reads none of
 * it. Not collective. Errors: LS_EVALUE, LS_ESHAPE. */
ls_status cli_pairs_measure(struct cli_pairs *pairs, const struct cli_names *names,
                            const struct ls_attention_shape *shape);

/* Reads all of it; attention then refers to *bits, rows x row_bytes, which the caller frees, also
 * after an error. Not collective. Errors: LS_ENOMEM, LS_EIO. */
ls_status cli_pairs_read(uint8_t **bits, struct ls_attention_options *attention,
                         const struct cli_pairs *pairs);

#endif
