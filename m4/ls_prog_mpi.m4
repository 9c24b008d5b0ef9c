# LS_PROG_MPICC
# -------------
# Takes the MPI compiler wrapper as CC unless --without-mpi was given. Must come before everything that
# requires AC_PROG_CC.
AC_DEFUN([LS_PROG_MPICC],
[AC_BEFORE([$0], [AC_PROG_CC])dnl
AC_ARG_WITH([mpi], [AS_HELP_STRING([--without-mpi], [one rank only])], [], [with_mpi=yes])
AM_CONDITIONAL([WITH_MPI], [test "$with_mpi" != no])
AC_ARG_VAR([MPICC], [MPI C compiler wrapper])
AS_IF([test "$with_mpi" != no], [AC_CHECK_PROGS([MPICC], [mpicc mpiicc cc])
    : ${CC=$MPICC}])])

# LS_CHECK_MPI
# ------------
# Stops unless CC compiles and links an MPI program. Sets ls_mpi to name and version: "Open MPI
# 4.1.4", "MPICH 4.0.2".
AC_DEFUN([LS_CHECK_MPI],
[AC_REQUIRE([AC_PROG_CPP])dnl
AC_MSG_CHECKING([whether $CC builds MPI programs])
AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <mpi.h>]], [[return MPI_Finalize();]])],
    [AC_MSG_RESULT([yes])],
    [AC_MSG_RESULT([no])
     AC_MSG_ERROR([$CC cannot build an MPI program: install libopenmpi-dev, or set CC to an MPI compiler wrapper])])
AC_MSG_CHECKING([which MPI that is])
AC_LANG_CONFTEST([AC_LANG_SOURCE([[#include <mpi.h>
#if defined OPEN_MPI
ls_mpi "Open MPI" OMPI_MAJOR_VERSION.OMPI_MINOR_VERSION.OMPI_RELEASE_VERSION
#elif defined MPICH_VERSION && !defined I_MPI_VERSION
ls_mpi "MPICH" MPICH_VERSION
#else
ls_mpi "another implementation of MPI" MPI_VERSION.MPI_SUBVERSION
#endif
]])])
ls_mpi=`eval "$ac_cpp conftest.$ac_ext" 2>&AS_MESSAGE_LOG_FD |
    $SED -n '/^ls_mpi /{s///; s/"//g; s/ *\. */./g; p;}'`
rm -f conftest.$ac_ext
AC_MSG_RESULT([$ls_mpi])])

# LS_PROG_MPIEXEC
# ---------------
# Sets MPIEXEC (empty if there is none) and MPIEXEC_FLAGS, used by the tests. A launcher of another
# MPI than the library's would leave every rank alone in a world of its own. The tests start more
# ranks than there are cores, and give each rank several threads, which Open MPI's default binding
# would put on a single core. MPICH's ranks reach their launcher by a file descriptor unless it is
# told to use a port; the processes in which Criterion runs tests inherit none.
AC_DEFUN([LS_PROG_MPIEXEC],
[AC_ARG_VAR([MPIEXEC], [program that starts MPI ranks in the tests])
AC_ARG_VAR([MPIEXEC_FLAGS], [its options, all but -n])
AS_CASE([$ls_mpi],
    ["Open MPI "*],
        [ls_launchers="mpirun mpiexec mpirun.openmpi" ls_launcher_says="Open MPI"
         ls_launcher_flags="--oversubscribe --bind-to none"],
    ["MPICH "*],
        [ls_launchers="mpirun mpiexec mpiexec.hydra mpiexec.mpich" ls_launcher_says=HYDRA
         ls_launcher_flags=-pmi-port],
    [ls_launchers="mpirun mpiexec" ls_launcher_says= ls_launcher_flags=])
AC_MSG_CHECKING([for the launcher of $ls_mpi])
AS_IF([test -z "$MPIEXEC"],
    [for ls_launcher in $ls_launchers; do
         AS_IF([$ls_launcher --version 2>/dev/null | grep "$ls_launcher_says" >/dev/null],
             [MPIEXEC=$ls_launcher; break])
     done])
AS_IF([test -n "$MPIEXEC"],
    [AS_CASE([`$MPIEXEC --version 2>/dev/null`],
        [*"$ls_launcher_says"*], [: ${MPIEXEC_FLAGS=$ls_launcher_flags}],
        [*"Open MPI"* | *HYDRA*],
            [AC_MSG_RESULT([$MPIEXEC])
             AC_MSG_ERROR([$MPIEXEC is of another MPI than $CC, which is $ls_mpi: set MPIEXEC to its launcher])])])
AC_MSG_RESULT([${MPIEXEC:-none} $MPIEXEC_FLAGS])])
