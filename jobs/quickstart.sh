#!/bin/sh
# From a fresh checkout on Debian to attention over a long sequence on two MPI ranks, verified.
#   sh jobs/quickstart.sh              installs what is missing, builds in build/, runs the main job
#   sh jobs/quickstart.sh check        the same set-up, then every test, on 2 and 3 ranks
#   sh jobs/quickstart.sh check-all    set-up, main job, then every test on more ranks, with more cases
# LONGSPAN_CONFIGURE holds more options for configure, such as --enable-werror.
set -eu
cd "$(dirname "$0")/.."

packages="gcc libc6-dev make autoconf automake libtool pkg-config
    libopenmpi-dev openmpi-bin libdnnl-dev libhwloc-dev libjansson-dev libxxhash-dev
    libcriterion-dev"

say() { printf '\n== %s\n' "$*"; }

# Prints a command, then runs it.
show()
{
    printf '+ %s\n' "$*"
    "$@"
}

missing_packages()
{
    for package in $packages; do
        status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || printf ' %s' "$package"
    done
}

# shellcheck disable=SC2086 # the names of the packages are several words
install_packages()
{
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        for tool in autoreconf libtoolize pkg-config make mpicc mpirun; do
            command -v $tool >/dev/null && continue
            say "this is not Debian, and $tool is missing"
            echo "Install what your system calls these packages of Debian, then run this again:"
            echo $packages
            exit 2
        done
        say "this is not Debian: building with what is here"
        return
    fi

    missing=$(missing_packages)
    if [ -z "$missing" ]; then
        say "all packages that the build needs are installed"
        return
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            say "packages are missing, and installing them needs root. Please run"
            echo "  sudo apt-get update && sudo apt-get install$missing"
            echo "and then this again."
            exit 2
        fi
        as_root="sudo -n"
    fi
    say "installing$missing"
    # Up-to-date lists are not essential where a mirror is out of reach; the packages are.
    $as_root apt-get update -q || echo "the package lists could not be updated; going on with the old"
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends $missing </dev/null
}

build()
{
    [ -x configure ] || show ./bootstrap
    mkdir -p build
    cd build
    # shellcheck disable=SC2086 # the options are several words
    [ -f config.status ] || show ../configure ${LONGSPAN_CONFIGURE-}
    show make -j "$(nproc)"
}

# Two ranks share the cores; the launcher may neither count them nor bind a rank to one of them.
main_job()
{
    threads=$(($(nproc) / 2))
    [ "$threads" -ge 1 ] || threads=1
    export OMP_NUM_THREADS=$threads
    set -- --oversubscribe --bind-to none
    [ "$(id -u)" -ne 0 ] || set -- --allow-run-as-root "$@"
    show mpirun -n 2 "$@" ./longspan attend --random 1,8,8,65536,65536,64 --causal --verify
}

case ${1-} in
'' | check | check-all) ;;
*)
    echo "usage: sh jobs/quickstart.sh [check | check-all]" >&2
    exit 2
    ;;
esac

install_packages
say "building in $(pwd)/build"
build
if [ "${1-}" != check ]; then
    say "causal attention over 65,536 tokens, 8 heads of dimension 64, on 2 ranks, verified"
    (main_job)
fi
if [ -n "${1-}" ]; then
    say "the tests, one more at a time than there are cores: many of them wait"
    show make -j "$(($(nproc) + 1))" "$1"
fi
