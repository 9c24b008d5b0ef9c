/* How the command starts and ends MPI (mpi_start.c), or does without where Longspan is built so
 * (mpi_none.c). */
#ifndef LS_CLI_MPI_START_H
#define LS_CLI_MPI_START_H

#include "base/status.h"
#include "longspan/comm.h"

/* comm: all processes that a launcher started, if MPI knows them, and *rank, which is there also
 * where this fails. Errors: LS_ECOMM. */
ls_status cli_mpi_start(struct ls_comm **comm, int *rank, int *argc, char ***argv);

/* Where MPI was started: ends the other ranks as well, with this exit status; or ends it. */
void cli_mpi_abort(int exit_status);

void cli_mpi_end(void);

/* The MPI library and its version, on one line: "Open MPI v4.1.4", "MPICH 4.0.2", "a build without
 * MPI". */
void cli_mpi_version(char *out, int length);

/* What to do where a launcher started several processes that do not know of each other. */
extern const char *const cli_mpi_way_out;

#endif
