/* Memory of this process and of the node it runs on. */
#ifndef LS_CLI_MEMORY_H
#define LS_CLI_MEMORY_H

#include "cli/world.h"

/* Bytes that this node can still give: what the system calls available, or less where a control
 * group (a container, a SLURM job) sets a lower limit. 0 if unknown. */
double cli_memory_available(void);

/* The most that was resident at once, in bytes. */
double cli_memory_resident_peak(void);

/* Whether `bytes` a rank fit into the node of each rank; to be asked before they are touched.
 * Agreed by all ranks. Errors: LS_ENOMEM, with the numbers. */
ls_status cli_memory_check(const struct cli_world *world, double bytes);

#endif
