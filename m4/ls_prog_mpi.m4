# LS_PROG_MPICC
# -------------
# Takes the MPI compiler wrapper as CC. Must come before everything that requires AC_PROG_CC.
AC_DEFUN([LS_PROG_MPICC],
[AC_BEFORE([$0], [AC_PROG_CC])dnl
AC_ARG_VAR([MPICC], [MPI C compiler wrapper])
AC_CHECK_PROGS([MPICC], [mpicc mpiicc cc])
: ${CC=$MPICC}])

# LS_CHECK_MPI
# ------------
# Stops unless CC compiles and links an MPI program.
AC_DEFUN([LS_CHECK_MPI],
[AC_MSG_CHECKING([whether $CC builds MPI programs])
AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <mpi.h>]], [[return MPI_Finalize();]])],
    [AC_MSG_RESULT([yes])],
    [AC_MSG_RESULT([no])
     AC_MSG_ERROR([$CC cannot build an MPI program: install libopenmpi-dev, or set CC to an MPI compiler wrapper])])])

# LS_PROG_MPIEXEC
# ---------------
# Sets MPIEXEC (empty if there is none) and MPIEXEC_FLAGS, used by the tests. They start more ranks
# than there are cores, and give each rank several threads, which Open MPI's default binding would
# put on a single core.
AC_DEFUN([LS_PROG_MPIEXEC],
[AC_ARG_VAR([MPIEXEC], [program that starts MPI ranks in the tests])
AC_ARG_VAR([MPIEXEC_FLAGS], [its options, all but -n])
AC_CHECK_PROGS([MPIEXEC], [mpirun mpiexec])
AS_IF([test -z "${MPIEXEC_FLAGS+set}" && test -n "$MPIEXEC"],
    [AS_IF([$MPIEXEC --version 2>/dev/null | grep 'Open MPI' >/dev/null],
        [MPIEXEC_FLAGS="--oversubscribe --bind-to none"])])])
