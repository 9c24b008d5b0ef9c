#!/bin/sh
# shellcheck disable=SC2086,SC2154 # flags are several words; variables come from outside
# installcheck.sh EXAMPLE.c: what `make install` left is usable. Each public header compiles by
# itself; the example builds through pkg-config and runs on two ranks, with parts of the layout and
# with rows of its own; the command and its manual page are in place. The Makefile passes the
# folders and tools in the environment.
set -eu
example=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PKG_CONFIG_PATH="$libdir/pkgconfig:${PKG_CONFIG_PATH-}"
export LD_LIBRARY_PATH="$libdir:${LD_LIBRARY_PATH-}"

flags=$($PKG_CONFIG --cflags longspan)
libs=$($PKG_CONFIG --libs longspan)
for header in "$includedir"/longspan/*.h; do
    echo "#include <longspan/${header##*/}>" >"$work/header.c"
    $CC -std=c11 -Wall -Wextra -pedantic -Werror -fsyntax-only $flags "$work/header.c"
done

$CC $CFLAGS -std=c11 -Wall -Wextra -o "$work/example" "$example" $flags $libs -lm
if [ -n "$MPIEXEC" ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
    timeout 120 $MPIEXEC $MPIEXEC_FLAGS -n 2 "$work/example"
    timeout 120 $MPIEXEC $MPIEXEC_FLAGS -n 2 "$work/example" own-rows
else
    echo "SKIPPED: the example was built but not run, there is no MPI launcher"
fi

"$bindir/longspan" --version
test -s "$man1dir/longspan.1"
