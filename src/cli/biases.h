/* --distance-bias: a bias for each head and distance. */
#ifndef LS_CLI_BIASES_H
#define LS_CLI_BIASES_H

#include "longspan/attention.h"
#include "longspan/store.h"

/* Reads the source, open numbers [heads, n] with n odd. attention then refers to *out, which the
 * caller frees, also after an error. Not collective. Errors: LS_ESHAPE, LS_EVALUE for what is too
 * large for a logit, LS_ENOMEM, LS_EIO. */
ls_status cli_biases_read(float **out, struct ls_attention_options *attention,
                          const struct ls_input *source, int64_t heads);

#endif
