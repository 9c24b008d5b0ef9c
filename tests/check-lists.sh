#!/bin/sh
# Every file is named in Makefile.am: one that was forgotten there would not be compiled, tested or
# packed, and nothing else would notice.
set -u
cd "${srcdir-.}" || exit 99

folders=$(ls -d include src tests examples bench jobs tools docs 2>/dev/null)
# shellcheck disable=SC2086 # the names are several words
missing=$(find $folders -name '*.[ch]' -o -name '*.sh' -o -name '*.sbatch' -o -name '*.py' \
    -o -name '*.md' -o -name '*.patch' | sort |
    while read -r file; do
        case $file in
        tests/*/test_*.c) name=${file%.c}.'(unit|mpi)' ;;
        *) name=$file ;;
        esac
        grep -qE "(^|[[:space:]])$name([[:space:]]|\$)" Makefile.am || echo "$file"
    done)
[ -z "$missing" ] && exit 0
echo "not in Makefile.am:"
echo "$missing"
exit 1
