/* Two results of the same problem held against each other, without its input. */
#ifndef LS_CLI_COMPARE_H
#define LS_CLI_COMPARE_H

#include "cli/report.h"
#include "cli/world.h"
#include "longspan/tensor.h"

/* Compares o and lse as far as both files have them; the limits are twice the contract's. contract
 * NULL: that of the coarser type of the two o. *held: whether all limits hold. Agreed by all ranks.
 * Errors: LS_ESHAPE, LS_EVALUE if they have neither tensor in common. */
ls_status cli_compare(bool *held, const struct cli_report *report, const struct cli_world *world,
                      const char *path_a, const char *path_b, const ls_dtype *contract);

#endif
