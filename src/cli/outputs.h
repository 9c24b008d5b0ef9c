/* --out: o and the gradients in the order of the inputs, lse [b, h, s] and dsinks [h] in one file;
 * without b where q came without. */
#ifndef LS_CLI_OUTPUTS_H
#define LS_CLI_OUTPUTS_H

#include "cli/inputs.h"

/* The tensors of a file, and how many there are without gradients, and without sinks. */
enum { CLI_OUT_O, CLI_OUT_LSE, CLI_OUT_DQ, CLI_OUT_DK, CLI_OUT_DV, CLI_OUT_DSINKS, CLI_OUT_MOST };
enum { CLI_OUT_FORWARD = CLI_OUT_DQ, CLI_OUT_BACKWARD = CLI_OUT_DSINKS };

/* As ls_output_create, of the first `count` tensors. path NULL: *out is NULL, and the rest does
 * nothing. */
ls_status cli_output_create(struct ls_output **out, const struct cli_world *world, const char *path,
                            const struct cli_inputs *inputs, int count);

/* Writes this rank's parts [count], and makes the file appear.
 * Collective. Errors: LS_EIO. */
ls_status cli_output_commit(struct ls_output *output, int count, const struct ls_layout *q_layout,
                            const struct ls_layout *k_layout, const struct ls_tensor *const *part,
                            struct cli_progress *progress);

#endif
