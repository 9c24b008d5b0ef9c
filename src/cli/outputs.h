/* The file of results: o in the order of the inputs and lse [b, h, s], in global order whatever the
 * layout, written by all ranks at once. */
#ifndef LS_CLI_OUTPUTS_H
#define LS_CLI_OUTPUTS_H

#include "cli/inputs.h"

struct cli_output {
    struct ls_tensor_writer *writer; /* NULL: no file was asked for */
    struct cli_blocks o_blocks, lse_blocks;
};

/* Makes the temporary file, so that a folder that cannot be written and a full disk are known
 * before anything is computed. path NULL: no file, and the rest does nothing. Agreed by all ranks.
 * Errors: LS_EFILE, LS_EIO. */
ls_status cli_output_create(struct cli_output *out, const struct cli_world *world, const char *path,
                            const struct cli_inputs *inputs);

/* Writes this rank's parts and makes the file appear. Agreed by all ranks; frees the writer in any
 * case. Errors: LS_EIO. */
ls_status cli_output_commit(struct cli_output *out, const struct cli_world *world,
                            const struct ls_layout *layout, const struct ls_tensor *o,
                            const struct ls_tensor *lse);

/* Leaves nothing behind; does nothing after a commit. */
void cli_output_fini(struct cli_output *out);

#endif
