#include "cli/mpi_start.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "longspan/mpi.h"

const char *const cli_mpi_way_out = "use srun --mpi=pmix or the mpirun of this MPI";

ls_status cli_mpi_start(struct ls_comm **comm, int *rank, int *argc, char ***argv)
{
    int level;

    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS)
        return ls_fail(LS_ECOMM, "MPI did not start");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, rank);
    return ls_comm_create_mpi(comm, MPI_COMM_WORLD);
}

static bool started(void)
{
    int flag;

    MPI_Initialized(&flag);
    return flag;
}

void cli_mpi_abort(int exit_status)
{
    if (started()) MPI_Abort(MPI_COMM_WORLD, exit_status);
}

void cli_mpi_end(void)
{
    if (started()) MPI_Finalize();
}

void cli_mpi_version(char *out, int length)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING], number[64];
    int used;

    MPI_Get_library_version(version, &used);
    if (sscanf(version, "MPICH Version: %63s", number) == 1)
        snprintf(version, sizeof(version), "MPICH %s", number);
    version[strcspn(version, ",\n")] = '\0';
    snprintf(out, (size_t)length, "%s", version);
}
