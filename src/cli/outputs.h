/* --out: o and the gradients in the order of the inputs, lse [b, h, s], dsinks [h], ddistance_bias
 * [h, distances] and dbias [b or 1, h or 1, s, s_k] in one file; without b, but for dbias, where q
 * came without. */
#ifndef LS_CLI_OUTPUTS_H
#define LS_CLI_OUTPUTS_H

#include "cli/inputs.h"

/* The tensors of a file, in this order, as far as they are there. */
enum {
    CLI_OUT_O,
    CLI_OUT_LSE,
    CLI_OUT_DQ,
    CLI_OUT_DK,
    CLI_OUT_DV,
    CLI_OUT_DSINKS,
    CLI_OUT_DDISTANCE_BIAS,
    CLI_OUT_DBIAS,
    CLI_OUT_MOST
};

/* Which of them options ask for. */
bool cli_output_has(int which, const struct ls_attention_options *options);

/* As ls_output_create. path NULL: *out is NULL, and the rest does nothing. */
ls_status cli_output_create(struct ls_output **out, const struct cli_world *world, const char *path,
                            const struct cli_inputs *inputs,
                            const struct ls_attention_options *options);

/* Writes this rank's parts [CLI_OUT_MOST], those that there are, and makes the file appear.
 * Collective. Errors: LS_EIO. */
ls_status cli_output_commit(struct ls_output *output, const struct ls_attention_options *options,
                            const struct ls_layout *q_layout, const struct ls_layout *k_layout,
                            const struct ls_tensor *const *part, struct cli_progress *progress);

#endif
