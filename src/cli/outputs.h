/* The file of results: o and the gradients in the order of the inputs and lse [b, h, s], in global
 * order whatever the layout, written by all ranks at once. */
#ifndef LS_CLI_OUTPUTS_H
#define LS_CLI_OUTPUTS_H

#include "cli/inputs.h"

/* The tensors of a file, and how many there are without gradients. */
enum { CLI_OUT_O, CLI_OUT_LSE, CLI_OUT_DQ, CLI_OUT_DK, CLI_OUT_DV, CLI_OUT_MOST };
enum { CLI_OUT_FORWARD = CLI_OUT_DQ };

struct cli_output {
    struct ls_tensor_writer *writer; /* NULL: no file was asked for */
    int count;
    struct cli_blocks blocks[CLI_OUT_MOST];
};

/* Makes the temporary file, so that a folder that cannot be written and a full disk are known
 * before anything is computed. path NULL: no file, and the rest does nothing. Agreed by all ranks.
 * Errors: LS_EFILE, LS_EIO. */
ls_status cli_output_create(struct cli_output *out, const struct cli_world *world, const char *path,
                            const struct cli_inputs *inputs, bool gradients);

/* Writes this rank's parts [CLI_OUT_MOST] and makes the file appear. Agreed by all ranks; frees the
 * writer in any case. Errors: LS_EIO. */
ls_status cli_output_commit(struct cli_output *out, const struct cli_world *world,
                            const struct ls_layout *q_layout, const struct ls_layout *k_layout,
                            const struct ls_tensor *const part[CLI_OUT_MOST]);

/* Leaves nothing behind; does nothing after a commit. */
void cli_output_fini(struct cli_output *out);

#endif
