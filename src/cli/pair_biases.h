/* --bias: a bias for each pair of a query and a key. */
#ifndef LS_CLI_PAIR_BIASES_H
#define LS_CLI_PAIR_BIASES_H

#include "cli/world.h"
#include "longspan/attention.h"
#include "longspan/store.h"
#include "tensor/file.h"

/* Where they are: in the file, which ranks of a node share, if it has f32; else in memory. */
struct cli_pair_biases {
    struct ls_mapping mapping;
    float *memory;
};

/* Whether the source is [s_q, s_k] or [b or 1, h or 1, s_q, s_k], which attention then says; reads
 * nothing. Not collective. Errors: LS_ESHAPE. */
ls_status cli_pair_biases_measure(struct ls_attention_options *attention,
                                  const struct ls_input *source,
                                  const struct ls_attention_shape *shape);

/* Reads and checks all; attention then refers to *out, which the caller frees, also after an error.
 * Collective, agreed by all ranks. Errors: LS_EVALUE for what is neither a logit nor -inf,
 * LS_ENOMEM, LS_EIO. */
ls_status cli_pair_biases_read(struct cli_pair_biases *out, struct ls_attention_options *attention,
                               const struct ls_input *source, const struct cli_world *world);

/* Accepts one of zeros. */
void cli_pair_biases_free(struct cli_pair_biases *biases);

#endif
