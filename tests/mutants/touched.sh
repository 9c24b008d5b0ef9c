#!/bin/sh
# touched.sh N MOST: on one line the names of the mutants of what the last N commits touched, be it the
# file that is patched, a test that has to notice, or the patch; all names where there is no history.
# Of more than MOST those that the last commit draws: another one draws others.
set -u
cd "$(dirname "$0")/../.." || exit
files='' last=''
if [ -e .git ]; then
    files=$(git log -n "$1" --name-only --pretty=format: | sed '/^$/d' | sort -u)
    last=$(git rev-parse HEAD)
fi

# of PATCH: itself, what it patches and the sources of its tests
of()
{
    echo "$1"
    sed -n 's,^+++ b/,,p; s,^Tests: *,,p' "$1" | tr ' ' '\n' | sed 's,\.\(unit\|mpi\)$,.c,'
}

# drawn NAME: a number and the name
drawn() { printf '%s %s\n' "$(printf %s "$last $1" | cksum | cut -d ' ' -f 1)" "$1"; }

for patch in tests/mutants/*.patch; do
    if [ -z "$files" ] || of "$patch" | grep -qxF "$files"; then drawn "$(basename "$patch" .patch)"; fi
done | sort -n | head -n "$2" | cut -d ' ' -f 2 | sort | paste -s -d ' '
