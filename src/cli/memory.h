/* Memory of this process and of the node it runs on. */
#ifndef LS_CLI_MEMORY_H
#define LS_CLI_MEMORY_H

#include "base/cgroup.h"
#include "cli/world.h"

/* What this node can still give. */
struct cli_memory {
    double available;             /* bytes; INFINITY if unknown */
    struct ls_cgroup_limit group; /* that leaves less than the system has; limit INFINITY: none */
    char reason[384];             /* " (limit of cgroup /slurm/job_1: 150 MiB)"; "" if none */
};

void cli_memory_find(struct cli_memory *out);

/* The most that was resident at once, in bytes; 0 where the system does not say. */
double cli_memory_resident_peak(void);

/* Whether `bytes` a rank, beside the process itself, fit into the node of each rank; to be asked
 * before they are touched. Agreed by all ranks. Errors: LS_ENOMEM, with the numbers. */
ls_status cli_memory_check(const struct cli_world *world, double bytes);

#endif
