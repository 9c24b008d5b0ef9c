# LS_LIB_DNNL
# -----------
# Finds oneDNN 2.6 or later, or 3.x, built for OpenMP: a second thread pool beside ours would fight
# over the cores. Sets DNNL_CFLAGS, DNNL_LDFLAGS, DNNL_LIBS, ls_dnnl_version and the condition WITH_DNNL.
AC_DEFUN([LS_LIB_DNNL],
[AC_ARG_WITH([dnnl],
    [AS_HELP_STRING([--with-dnnl=DIR], [oneDNN is installed under DIR (default: where the compiler looks)])
AS_HELP_STRING([--without-dnnl], [plain products of our own: slower where AVX-512 and AMX are missing])],
    [], [with_dnnl=yes])
AM_CONDITIONAL([WITH_DNNL], [test "$with_dnnl" != no])
AS_IF([test "$with_dnnl" = no], [ls_dnnl_version=none], [LS_FIND_DNNL])
AC_SUBST([DNNL_CFLAGS])
AC_SUBST([DNNL_LDFLAGS])
AC_SUBST([DNNL_LIBS])])

# LS_FIND_DNNL
# ------------
AC_DEFUN([LS_FIND_DNNL],
[AS_CASE([$with_dnnl],
    [yes], [PKG_CHECK_MODULES([DNNL], [dnnl], [], [DNNL_CFLAGS= DNNL_LIBS=-ldnnl])],
    [AS_IF([test ! -f "$with_dnnl/include/oneapi/dnnl/dnnl.h"],
         [AC_MSG_ERROR([--with-dnnl: there is no $with_dnnl/include/oneapi/dnnl/dnnl.h])])
     ls_dnnl_libdir=$with_dnnl/lib
     AS_IF([test -f "$with_dnnl/lib64/libdnnl.so"], [ls_dnnl_libdir=$with_dnnl/lib64])
     AS_IF([test ! -f "$ls_dnnl_libdir/libdnnl.so"],
         [AC_MSG_ERROR([--with-dnnl: there is no $with_dnnl/lib/libdnnl.so])])
     DNNL_CFLAGS="-I$with_dnnl/include"
     DNNL_LDFLAGS="-Wl,-rpath,$ls_dnnl_libdir"
     DNNL_LIBS="-L$ls_dnnl_libdir -ldnnl"])
DNNL_CFLAGS="$DNNL_CFLAGS -DHAVE_DNNL"

ls_save_CPPFLAGS=$CPPFLAGS
ls_save_LDFLAGS=$LDFLAGS
ls_save_LIBS=$LIBS
CPPFLAGS="$CPPFLAGS $DNNL_CFLAGS"
LDFLAGS="$LDFLAGS $DNNL_LDFLAGS"
LIBS="$DNNL_LIBS $LIBS"
AC_CHECK_HEADER([oneapi/dnnl/dnnl.h], [],
    [AC_MSG_ERROR([oneDNN's header oneapi/dnnl/dnnl.h is missing: install libdnnl-dev, or give --with-dnnl=DIR])])
AC_MSG_CHECKING([whether a program links with $DNNL_LIBS])
AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <oneapi/dnnl/dnnl.h>]], [[return dnnl_version() == NULL;]])],
    [AC_MSG_RESULT([yes])],
    [AC_MSG_RESULT([no])
     AC_MSG_ERROR([cannot link with $DNNL_LIBS: see config.log])])
AC_COMPUTE_INT([ls_dnnl_major], [DNNL_VERSION_MAJOR], [#include <oneapi/dnnl/dnnl_version.h>])
AC_COMPUTE_INT([ls_dnnl_minor], [DNNL_VERSION_MINOR], [#include <oneapi/dnnl/dnnl_version.h>])
AC_COMPUTE_INT([ls_dnnl_patch], [DNNL_VERSION_PATCH], [#include <oneapi/dnnl/dnnl_version.h>])
ls_dnnl_version=$ls_dnnl_major.$ls_dnnl_minor.$ls_dnnl_patch
AC_MSG_CHECKING([for oneDNN 2.6 or later, or 3.x])
AC_MSG_RESULT([$ls_dnnl_version])
AS_CASE([$ls_dnnl_version],
    [2.@<:@0-5@:>@.*|0.*|1.*], [AC_MSG_ERROR([oneDNN $ls_dnnl_version is too old, Longspan needs 2.6])],
    [2.*|3.*], [],
    [AC_MSG_ERROR([oneDNN $ls_dnnl_version is not known to Longspan, which supports 2.6 and 3.x])])
AC_MSG_CHECKING([whether oneDNN runs its threads by OpenMP])
AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <oneapi/dnnl/dnnl_config.h>]],
    [[_Static_assert(DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP, "runtime");]])],
    [AC_MSG_RESULT([yes])],
    [AC_MSG_RESULT([no])
     AC_MSG_ERROR([this oneDNN was built for another threading runtime; Longspan needs one built with DNNL_CPU_RUNTIME=OMP])])
CPPFLAGS=$ls_save_CPPFLAGS
LDFLAGS=$ls_save_LDFLAGS
LIBS=$ls_save_LIBS])
