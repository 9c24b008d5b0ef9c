#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that are called by name
# `longspan methods`: the table of what each can do is the one that the documentation shows, and
# JSON has the same.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
document=${srcdir-.}/docs/METHODS.md

# abilities METHOD: of the JSON object that the last run printed, one a line
abilities()
{
    tr -d ' \n' <"$work/stdout" |
        sed -E "s/.*\"name\":\"$1\",[^]]*\"capabilities\":\[([^]]*)\].*/\1/" | grep -o '"[a-z]*"'
}

longspan methods
sed -n '/^method /,$s/^/    /p' "$work/stdout" >"$work/table"
holds "there is a table" test -s "$work/table"
sed -n '/^    method  /,/^$/{/./p;}' "$document" >"$work/documented"
holds "docs/METHODS.md shows it" cmp "$work/table" "$work/documented"
longspan methods --json -
while read -r method row; do
    [ "$method" != method ] || continue
    shown=$(printf %s "$row" | grep -o yes | wc -l)
    holds "$method can do the same in JSON" test "$(abilities "$method" | wc -l)" -eq "$shown"
done <"$work/table"

exit "$failed"
