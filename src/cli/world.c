#include "cli/world.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "longspan/mpi.h"

/* A step of a single SLURM task is treated as a process on its own unless it brings PMI. */
static bool slurm_step_of_several(void)
{
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");

    return getenv("SLURM_PROCID") && getenv("SLURM_STEP_ID") && tasks && atoi(tasks) > 1;
}

static bool launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK") ||
           slurm_step_of_several();
}

static ls_status start_mpi(struct cli_world *world, int *argc, char ***argv)
{
    int level;

    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS)
        return ls_fail(LS_ECOMM, "MPI did not start");
    world->mpi = true;
    MPI_Comm_rank(MPI_COMM_WORLD, &world->rank);
    return ls_comm_create_mpi(&world->comm, MPI_COMM_WORLD);
}

ls_status cli_world_init(struct cli_world *world, int *argc, char ***argv)
{
    *world = (struct cli_world){.size = 1, .program = "longspan"};
    if (launched())
        LS_TRY(start_mpi(world, argc, argv));
    else
        LS_TRY(ls_comm_create_self(&world->comm));
    world->rank = ls_comm_rank(world->comm);
    world->size = ls_comm_size(world->comm);
    return LS_OK;
}

void cli_world_fini(struct cli_world *world, ls_status status, int exit_status)
{
    if (world->mpi && status == LS_ECOMM) MPI_Abort(MPI_COMM_WORLD, exit_status);
    ls_comm_destroy(world->comm);
    if (world->mpi) MPI_Finalize();
}

void cli_world_mpi_version(char *out, int length)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int used;

    MPI_Get_library_version(version, &used);
    version[strcspn(version, ",\n")] = '\0';
    snprintf(out, (size_t)length, "%s", version);
}
