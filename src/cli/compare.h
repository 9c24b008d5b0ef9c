/* Two results of the same problem held against each other, without its input. */
#ifndef LS_CLI_COMPARE_H
#define LS_CLI_COMPARE_H

#include "cli/names.h"
#include "cli/report.h"
#include "cli/world.h"
#include "longspan/tensor.h"

/* Compares o, lse, dq, dk, dv, dsinks, ddistance_bias and dbias as far as both files have them,
 * under the same names; the limits are twice the contract's, of gradients the table's alone.
 * contract NULL: of each, that of the coarser of its two types; of lse, dsinks, ddistance_bias and
 * dbias, that of the first other one. *held: whether all limits hold and something finite was
 * compared of each, but for gradients without elements. Agreed by all ranks. Errors: LS_ESHAPE,
 * LS_EVALUE if they have none in common, or lse alone and there is no contract. */
ls_status cli_compare(bool *held, const struct cli_report *report, const struct cli_world *world,
                      const char *const path[2], const struct cli_names *names,
                      const ls_dtype *contract);

#endif
