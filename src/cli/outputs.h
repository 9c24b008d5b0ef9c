/* --out: o and the gradients in the order of the inputs and lse [b, h, s] in one file. */
#ifndef LS_CLI_OUTPUTS_H
#define LS_CLI_OUTPUTS_H

#include "cli/inputs.h"

/* The tensors of a file, and how many there are without gradients. */
enum { CLI_OUT_O, CLI_OUT_LSE, CLI_OUT_DQ, CLI_OUT_DK, CLI_OUT_DV, CLI_OUT_MOST };
enum { CLI_OUT_FORWARD = CLI_OUT_DQ };

/* As ls_output_create. path NULL: *out is NULL, and the rest does nothing. */
ls_status cli_output_create(struct ls_output **out, const struct cli_world *world, const char *path,
                            const struct cli_inputs *inputs, bool gradients);

/* Writes this rank's parts [CLI_OUT_MOST], those that the file has, and makes it appear.
 * Collective. Errors: LS_EIO. */
ls_status cli_output_commit(struct ls_output *output, bool gradients,
                            const struct ls_layout *q_layout, const struct ls_layout *k_layout,
                            const struct ls_tensor *const part[CLI_OUT_MOST],
                            struct cli_progress *progress);

#endif
