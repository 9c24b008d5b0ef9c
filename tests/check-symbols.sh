#!/bin/sh
# The shared library exports what the public headers mark with LS_API, and nothing else. HEADERS are
# those that this build installs, below the source folder. And functions that are cloned for several
# instruction sets have names of their own: clang makes global symbols of them, even if they are static.
set -u
twice=$(find "${srcdir-.}/src" -name '*.[ch]' -exec cat {} + | tr '\n' ' ' |
    grep -oE 'LS_CLONED static [^(;]*\(' | grep -oE '[a-z0-9_]+\($' | sort | uniq -d)
[ -z "$twice" ] || { echo "cloned functions of one name: $twice"; exit 1; }
library=.libs/liblongspan.so
if [ ! -e "$library" ]; then
    echo "SKIPPED: there is no shared library in this build"
    exit 77
fi
exported=$(mktemp) || exit 99
declared=$(mktemp) || exit 99
trap 'rm -f "$exported" "$declared"' EXIT

nm -D --defined-only "$library" | awk '{ print $3 }' | sort >"$exported"
for header in $HEADERS; do cat "${srcdir-.}/$header"; done | tr '\n' ' ' |
    grep -oE 'LS_API[^;(]*\(' | grep -oE 'ls_[a-z0-9_]+ *\($' | tr -d ' (' | sort >"$declared"
[ -s "$declared" ] || { echo "no LS_API function found in the headers"; exit 1; }
diff "$declared" "$exported" && exit 0
echo "'<' is declared but not exported, '>' is exported but not declared"
exit 1
