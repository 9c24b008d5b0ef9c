/* The only public header that names MPI: the caller hands in its communicator. */
#ifndef LONGSPAN_MPI_H
#define LONGSPAN_MPI_H

#include <mpi.h>

#include "longspan/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The ranks of a communicator of the caller's. The library duplicates it and leaves the caller's
 * own alone; it never calls MPI_Init or MPI_Finalize. MPI must have been initialised with at
 * least MPI_THREAD_FUNNELED, and every call of the library that is collective must come from the
 * thread that initialised MPI. The caller destroys the result before MPI_Finalize. MPICH reports a
 * failed transfer to MPI_COMM_WORLD: it is LS_ECOMM if the error handler there is
 * MPI_ERRORS_RETURN, else the end of the job.
 * Collective over comm. Errors: LS_EVALUE if MPI is not initialised or its thread level is too
 * low; LS_ECOMM. */
LS_API ls_status ls_comm_create_mpi(struct ls_comm **out, MPI_Comm comm);

#ifdef __cplusplus
}
#endif
#endif
