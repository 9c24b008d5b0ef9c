#!/bin/sh
# shellcheck disable=SC2086,SC2154 # flags are several words; variables come from outside
# installcheck.sh EXAMPLES: what `make install` left is usable. Each public header compiles by
# itself; the examples of that folder build through pkg-config and run on two ranks; the command and
# its manual page are in place. The Makefile passes the folders and tools in the environment.
set -eu
examples=$1
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

# example NAME [WORD...]: on two ranks, once for each word and without
example()
{
    name=$1
    shift
    $CC $CFLAGS -std=c11 -Wall -Wextra -o "$work/$name" "$examples/$name.c" $flags $libs -lm
    [ -n "$MPIEXEC" ] || {
        echo "SKIPPED: $name was built but not run, there is no MPI launcher"
        return
    }
    for word in "" "$@"; do timeout 120 $MPIEXEC $MPIEXEC_FLAGS -n 2 "$work/$name" $word; done
}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
example attend_mpi own-rows
example layer_mpi context

"$bindir/longspan" --version
test -s "$man1dir/longspan.1"
