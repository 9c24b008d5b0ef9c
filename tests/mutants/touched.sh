#!/bin/sh
# touched.sh N: on one line the names of the mutants of what the last N commits touched, be it the
# file that is patched, a test that has to notice, or the patch; all names where there is no history.
set -u
cd "$(dirname "$0")/../.." || exit
files=
[ ! -e .git ] || files=$(git log -n "$1" --name-only --pretty=format: | sed '/^$/d' | sort -u)

# of PATCH: itself, what it patches and the sources of its tests
of()
{
    echo "$1"
    sed -n 's,^+++ b/,,p; s,^Tests: *,,p' "$1" | tr ' ' '\n' | sed 's,\.\(unit\|mpi\)$,.c,'
}

for patch in tests/mutants/*.patch; do
    if [ -z "$files" ] || of "$patch" | grep -qxF "$files"; then basename "$patch" .patch; fi
done | paste -s -d ' '
