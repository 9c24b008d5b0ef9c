#!/bin/sh
# What the command says of itself is complete: every option of `longspan SUBCOMMAND --help` is in the
# manual page and in the completion, neither names an option that no subcommand has, and every
# name in the JSON object is in the manual page.
set -u
manual=${srcdir-.}/docs/longspan.1
completion=${srcdir-.}/completions/longspan
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
failed=0

options_in() { grep -oE -e '--[a-z][a-z0-9-]*' | sort -u; }

# not_in WHAT A B: complains of the lines of A that B lacks
not_in()
{
    comm -23 "$2" "$3" >"$work/difference"
    [ -s "$work/difference" ] || return 0
    echo "$1:"
    cat "$work/difference"
    failed=1
}

# help WORD...: keeps the help of a subcommand, then of those that it lists in turn, each of which
# the manual page and the completion must name
help()
{
    "$LONGSPAN" "$@" --help >"$work/help" 2>&1 || {
        echo "longspan $* --help: exit status $?"
        failed=1
    }
    cat "$work/help" >>"$work/helps"
    words=$(sed -nE 's/^  ([a-z]+)  +.*/\1/p' "$work/help")
    for word in $words; do
        for document in "$manual" "$completion"; do
            grep -qw "$word" "$document" || { echo "$document: no $* $word"; failed=1; }
        done
        help "$@" "$word"
    done
}
help
[ "$(grep -c Usage "$work/helps")" -gt 1 ] || { echo "longspan --help lists nothing"; exit 1; }
options_in <"$work/helps" >"$work/help"
# a line that is only a launcher's command has options of that
sed -e '/^\.BR\? "\?\(srun\|mpirun\) /d' -e 's/\\-/-/g' "$manual" | options_in >"$work/manual"
options_in <"$completion" >"$work/completion"
not_in "options missing in the manual page" "$work/help" "$work/manual"
not_in "options missing in the completion" "$work/help" "$work/completion"
not_in "options in the manual page that no subcommand has" "$work/manual" "$work/help"
not_in "options in the completion that no subcommand has" "$work/completion" "$work/help"

# json ARGUMENT...: adds the names of the object that the command writes
json()
{
    "$LONGSPAN" "$@" --json "$work/json" >"$work/output" 2>&1 || {
        echo "longspan $*: exit status $?"
        cat "$work/output"
        failed=1
    }
    grep -oE '"[a-z0-9_]+" *:' "$work/json" | tr -d '": ' >>"$work/names"
}
small="--random 1,1,1,8,8,16"
# shellcheck disable=SC2086 # option and value
{
    json attend $small --sinks=0 --verify --backward --out "$work/o.safetensors"
    json check $small --sinks=0 --result "$work/o.safetensors"
    json plan attend $small --ranks 2 --backward
    json plan attend $small --ranks 1 --measure
}
json check "$work/o.safetensors" "$work/o.safetensors"
json plan model --preset gpt-22b --rate 1
json plan model --preset gpt-22b --rate 1 --link 1 --recompute auto --memory 80GiB
json plan model --preset gpt-22b --rate 1 --search --memory 80GiB
json bench gemm
json bench linear --tokens 8 --inputs 8 --outputs 8
json bench layer --hidden 8 --heads 2 --seq 8 --verify
json bench comm --largest 8
json methods
json info
sort -u -o "$work/names" "$work/names"
[ -s "$work/names" ] || { echo "no names in the JSON object"; failed=1; }
tr -cs 'a-z0-9_' '\n' <"$manual" | sort -u >"$work/words"
not_in "JSON names missing in the manual page" "$work/names" "$work/words"
exit $failed
