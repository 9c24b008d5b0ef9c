#!/bin/sh
# Shows that the tests notice classic mistakes. Each tests/mutants/NAME.patch is one, with lines
#   Tests: tests/cpu/test_simd.unit    programs or scripts of `make check`, one of which must fail
#   Only: */*generic                   those of its tests that are run, as a pattern (default all)
#   Ranks: 3                           numbers of ranks for MPI tests (default 3)
# above the patch. Mutants are applied one at a time to a copy of the sources in the current folder
# and built there; the unchanged copy has to pass the same tests first.
#   run.sh [NAME...]    these mutants, else all
# The last line is "N mutants, N killed"; the exit status is 1 unless those are equal, 2 if a mutant
# cannot be tried.
set -u
jobs=$(nproc 2>/dev/null || echo 2)
export LS_TEST_TIMEOUT=180
export CRITERION_FAIL_FAST=1

die()
{
    echo "mutants: $*" >&2
    exit 2
}

field()
{
    sed -n "s/^$1: *//p" "$2"
}

ranks_of()
{
    ranks=$(field Ranks "$1")
    echo "${ranks:-3}"
}

# build TESTS: the programs among them, and the command for scripts
build()
{
    # shellcheck disable=SC2046,SC2086 # several words
    make -s -j "$jobs" $(printf '%s\n' $1 | sed 's/.*\.sh$/longspan/' | sort -u) >build.log 2>&1
}

# hold TESTS RANKS ONLY: whether all of them pass. No other programs are built.
hold()
{
    LS_TEST_NP=$2 LS_TEST_ONLY=$3 make -s check-TESTS check_PROGRAMS= TESTS="$1" >tests.log 2>&1
}

# Lines "ranks only tests", each combination once.
combinations()
{
    for patch; do
        only=$(field Only "$patch")
        echo "$(ranks_of "$patch" | tr ' ' ,) ${only:-*} $(field Tests "$patch")"
    done | sort -u
}

check_unchanged()
{
    combinations "$@" | while read -r ranks only tests; do
        build "$tests" || { cat build.log; exit 1; }
        hold "$tests" "$(echo "$ranks" | tr , ' ')" "$only" && continue
        cat tests.log
        echo "without a mutant, on $ranks ranks, these do not pass: $tests"
        exit 1
    done
}

# try PATCH: prints what became of it; status 0 if a test noticed
try()
{
    tests=$(field Tests "$1")
    since=$(date +%s)
    patch -s -p1 -F0 <"$1" || die "$1 does not apply"
    build "$tests" || { cat build.log >&2; die "$1 does not compile"; }
    hold "$tests" "$(ranks_of "$1")" "$(field Only "$1")"
    noticed=$?
    patch -s -R -p1 -F0 <"$1" || die "$1 cannot be taken back"
    if [ "$noticed" -ne 0 ]; then verdict=killed; else verdict=SURVIVED; fi
    printf '%-40s %-8s %3d s\n' "$(basename "$1" .patch)" "$verdict" $(($(date +%s) - since))
    [ "$noticed" -ne 0 ]
}

patches()
{
    [ $# -gt 0 ] || set -- tests/mutants/*.patch
    for name; do
        echo "tests/mutants/$(basename "$name" .patch).patch"
    done
}

# shellcheck disable=SC2046 # names have no blanks
set -- $(patches "$@")
for patch; do
    [ -f "$patch" ] || die "there is no $patch"
    [ -n "$(field Tests "$patch")" ] || die "$patch names no tests"
    patch -s -p1 -F0 --dry-run <"$patch" || die "$patch does not apply"
done
check_unchanged "$@" || die "the tests must pass first"
killed=0
for patch; do
    if try "$patch"; then killed=$((killed + 1)); fi
done
echo "$# mutants, $killed killed"
[ "$killed" -eq $# ]
