#ifndef LS_MPI_CHECKED_H
#define LS_MPI_CHECKED_H

#include "base/status.h"

/* LS_OK, or a failure that says, on one line, what was being done and what MPI calls the error. */
__attribute__((format(printf, 2, 3))) ls_status mpi_checked(int code, const char *doing, ...);

#endif
