#include "mpi/checked.h"

#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

ls_status mpi_checked(int code, const char *doing, ...)
{
    char what[256], text[MPI_MAX_ERROR_STRING];
    int length = 0;
    va_list args;

    if (code == MPI_SUCCESS) return LS_OK;
    va_start(args, doing);
    vsnprintf(what, sizeof(what), doing, args);
    va_end(args);
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        snprintf(text, sizeof(text), "MPI error %d", code);
    for (char *end = text; (end = strchr(end, '\n')) != NULL;) *end = ' '; /* MPICH's call stack */
    return ls_fail(LS_ECOMM, "%s: %s", what, text);
}
