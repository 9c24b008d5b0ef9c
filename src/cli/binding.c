#include "cli/binding.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "comm/comm.h"

/* Open MPI binds one or two ranks to a core each unless it is told otherwise. */
static bool bound_unasked(const struct cli_world *world)
{
    return world->size <= 2 && getenv("OMPI_COMM_WORLD_SIZE") &&
           !getenv("OMPI_MCA_hwloc_base_binding_policy") &&
           !getenv("OMPI_MCA_rmaps_base_mapping_policy");
}

void cli_binding_hint(const struct cli_world *world, const struct cli_options *options)
{
    const int bound = omp_get_num_procs(), all = (int)sysconf(_SC_NPROCESSORS_ONLN);
    const int share = all / ls_comm_node_size(world->comm);
    int useful = options->threads;

    if (options->threads_unasked && bound_unasked(world) && share > useful) useful = share;
    if (world->rank != 0 || options->quiet || bound >= useful || bound >= all) return;
    fprintf(stderr,
            "%s: a rank is bound to %d of %d processors and has %d thread%s; to use more: mpirun "
            "--bind-to none or --map-by slot:PE=%d, srun --cpus-per-task=%d\n",
            world->program, bound, all, options->threads, options->threads == 1 ? "" : "s", useful,
            useful);
}
