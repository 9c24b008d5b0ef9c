/* Rows of dk and dv held against the oracle: every rank adds what its own queries give to them. */
#ifndef LS_CLI_VERIFY_KEYS_H
#define LS_CLI_VERIFY_KEYS_H

#include "cli/verify.h"
#include "cli/verify_rows.h"

/* Adds the errors of dk and dv to errors [CLI_GRADIENTS]. Collective; the same on every rank.
 * Errors: LS_ENOMEM, LS_ECOMM. */
ls_status cli_verify_keys(struct ls_gradient_errors *errors, const struct cli_world *world,
                          const struct cli_verify *what, struct cli_progress *progress);

#endif
