#!/bin/sh
# shellcheck disable=SC2086,SC2154,SC2317 # options of several words; the harness; what `holds` calls
# What is written takes nobody's place: no output is an input's file or another output's, whatever
# name it has; - is standard output for each of them; a file that is replaced keeps its mode.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99
small="--random 1,2,2,64,64,16"

succeeded() { [ "$status" -eq 0 ]; }

# refused WORD...: status 2 and one line that has all the words; `victim` is what it was
refused()
{
    [ "$status" -eq 2 ] && [ "$(grep -c '^longspan' stderr)" -eq 1 ] || return 1
    [ ! -s stdout ] && [ "$(cat victim)" = precious ] || return 1
    for word; do grep -q -e "$word" stderr || return 1; done
}

echo precious >victim

# ---- every option that names a file, beside every option that writes one

# files SUBCOMMAND: the options of its --help that take a file
files() { sed -nE 's/^ *--([a-z-]+)=[^ ]*FILE.*/\1/p' "$1"; }

# outputs SUBCOMMAND: those whose description begins with "Write"
outputs()
{
    awk '/^ *--[a-z-]+=/ { sub(/=.*/, "", $1); name = $1 } { $1 = $1 }
        name && /(^| )Write / { print substr(name, 3) }
        { if (!/^--[^ ]*$/) name = "" }' "$1"
}

pairs=0
for subcommand in attend check "plan attend" "bench attend" "bench gemm" "bench comm" \
    "bench memory" methods info; do
    "$LONGSPAN" $subcommand --help >help
    for output in $(outputs help); do
        for other in $(files help); do
            [ "$other" != "$output" ] || continue
            longspan $subcommand --$other=victim --$output=victim
            refused "--$output" "--$other" ||
                fails "$subcommand: --$output where --$other is"
            echo precious >victim
            pairs=$((pairs + 1))
        done
    done
done
holds "$pairs pairs of an output and another file" [ "$pairs" -ge 60 ]
longspan check result.safetensors victim --json victim
holds "a result that is compared" refused --json
longspan attend $small --out victim --out o.safetensors --json victim --json o.json
holds "only the last of each option counts" succeeded

# ---- one file by several names

mkdir folder elsewhere
ln victim hard
ln -s victim soft
ln -s ../folder elsewhere/link
for alias in ./victim folder/../victim "$PWD/victim" hard soft; do
    longspan attend --input victim --out "$alias"
    holds "--input victim --out $alias" refused --input --out
    echo precious >victim
    longspan attend $small --trace victim --json "$alias"
    holds "--trace victim --json $alias" refused --trace --json
    echo precious >victim
done
longspan attend $small --out folder/new --json elsewhere/link/new
holds "a file that is not there yet" refused --out --json
longspan attend $small --out folder/new --json elsewhere/new --quiet
holds "one name in two folders" succeeded
mkfifo pipe
timeout 10 cat pipe >/dev/null &
longspan attend $small --trace pipe --json pipe
kill $! 2>/dev/null
holds "a pipe for two" refused --trace --json
longspan attend $small --quiet --out /dev/null --trace /dev/null --json /dev/null
holds "a device for all" succeeded
run sh -c '"$1" attend --random 1,1,1,8,8,8 --json log >log' sh "$LONGSPAN"
holds "where standard output goes" refused --json "standard output"
run sh -c '"$1" attend --random 1,1,1,8,8,8 --out log 2>log; s=$?; cat log >&2; exit $s' sh "$LONGSPAN"
holds "where standard error goes" refused --out "standard error"

# ---- standard output

longspan attend $small --out o.safetensors --json o.json
for flags in "--out -" "--trace -" "--json -"; do
    longspan attend $small $flags --verify
    holds "$flags: the text goes to standard error" grep -q '^verified: ok' stderr
    cp stdout "stdout${flags% -}"
done
holds "--out -: all of the file" cmp -- o.safetensors stdout--out
holds "--trace -: all of the file" sh -c 'head -n 1 ./stdout--trace | grep -q "^{.*traceEvents" &&
    tail -n 1 ./stdout--trace | grep -q "dropped.*}}$"'
holds "--json -: all of the file" sh -c 'grep -q "^{" ./stdout--json && tail -n 2 ./stdout--json | grep -q "^}"'
longspan attend $small --trace - --json -
holds "standard output for two" refused --trace --json
run sh -c '"$1" attend --random 1,1,1,8,8,8 --out - >&-' sh "$LONGSPAN"
holds "standard output that is closed" refused "standard output"
if has_mpi; then
    on_ranks 2 attend $small --threads 1 --out - --quiet
    cp stdout o2.safetensors
    longspan check o.safetensors o2.safetensors
    holds "2 ranks: --out -" succeeded
    on_ranks 2 attend $small --out victim --json victim
    holds "2 ranks: two outputs in one file" refused --out --json
fi

# ---- what a target is called, and its mode

for name in o.npy o.NPY o.npz; do
    longspan attend $small --out $name
    holds "--out $name" refused "--out $name" safetensors
done
umask 077
for mode in 644 600 755 620; do
    for option in --out --trace --json; do
        echo old >replaced
        chmod $mode replaced
        longspan attend $small --quiet $option replaced
        holds "$option: mode $mode" [ "$status-$(stat -c %a replaced)" = "0-$mode" ]
    done
done
exit "$failed"
