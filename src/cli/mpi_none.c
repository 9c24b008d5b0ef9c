/* One rank: where Longspan is built without MPI. */
#include <stdio.h>

#include "cli/mpi_start.h"

const char *const cli_mpi_way_out = "use a build with MPI";

ls_status cli_mpi_start(struct ls_comm **comm, int *rank, int *argc, char ***argv)
{
    (void)argc, (void)argv;
    *rank = 0;
    return ls_comm_create_self(comm);
}

void cli_mpi_abort(int exit_status)
{
    (void)exit_status;
}

void cli_mpi_end(void)
{
}

void cli_mpi_version(char *out, int length)
{
    snprintf(out, (size_t)length, "a build without MPI");
}
