#!/bin/sh
# Every shell script passes shellcheck.
set -u
cd "${srcdir-.}" || exit 99

if ! command -v shellcheck >/dev/null; then
    echo "SKIPPED: the scripts were not checked, shellcheck is not installed"
    exit 77
fi
scripts=$(ls bootstrap completions/longspan tests/fuzz tests/same-bits .ci/run 2>/dev/null) # .ci is not in the tarball
scripts="$scripts $(find jobs tests tools bench -name '*.sh' -o -name '*.sbatch' 2>/dev/null)"
# shellcheck disable=SC2086 # the names are several words
shellcheck $scripts
