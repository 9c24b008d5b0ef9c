#!/bin/sh
# shellcheck disable=SC2016,SC2086,SC2154,SC2317 # for another shell; options of several words;
# variables of the harness; functions that `holds` calls
# `bench layer`: what it plans is what it measures, on every rank; results keep the contract on any
# grid and are those of the weights in a file; what cannot be is refused in words.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99
one="--threads 1 --repeat 1"
shape="--hidden 48 --heads 4 --seq 300"

# number NAME: its first value in j.json; numbers NAME: all of them
numbers() { sed -nE "s/.*\"$1\": *(-?[0-9.e+-]+).*/\1/p" j.json; }
number() { numbers "$1" | head -n 1; }

# layer RANKS OPTION...: on several ranks, or alone
layer()
{
    n=$1
    shift
    rm -f j.json
    if [ "$n" -gt 1 ]; then
        on_ranks "$n" bench layer $one "$@" --json j.json
    else
        longspan bench layer $one "$@" --json j.json
    fi
}

same() { [ "$(numbers "$1_planned")" = "$(numbers "$1_measured")" ] && [ -n "$(numbers "$1_planned")" ]; }

# as_planned: each number in all, and on every rank
as_planned()
{
    [ "$status" -eq 0 ] && same activation_kept && same activation_peak && same bytes_sent &&
        same kept && same peak && same sent && grep -q '"as_planned": true' j.json
}

# honest LEAST: resident memory grew by no more than the ledger says, and by as much at least
honest()
{
    awk -v grown="$(number resident_grown)" -v peak="$(number ledger_peak)" -v least="$1" \
        'BEGIN { exit !(peak > least && grown <= 1.05 * peak + 64 * 1048576 && grown > peak / 2) }'
}

# floats FILE: the elements of a .safetensors file, of f32, one a line
floats() { od -An -v -w4 -tf4 -j $((8 + $(od -An -tu8 -N8 "$1"))) "$1"; }

# near A B: relative distance, of all elements together
near()
{
    floats "$1" >"$1.txt"
    floats "$2" | paste "$1.txt" - |
        awk '{ n++; d += ($1 - $2) ^ 2; s += $1 ^ 2 } END { exit !(n > 1000 && d <= 1e-10 * s) }'
}

within() { awk -v limit="$1" '/limit/ { n++; bad += $NF != limit } END { exit !(n && !bad) }' stdout; }

verified() { [ "$status" -eq 0 ] && [ "$(tail -n 1 stdout)" = "verified: ok" ]; }

# ---- alone

layer 1 $shape --layers 3 --recompute norm,activation
holds "planned is measured" as_planned
holds "nothing is sent" test "$(number bytes_sent_measured)" -eq 0
for name in seconds tokens_per_second gflops ratio activation_kept_planned; do
    holds "$name is there" test -n "$(number $name)"
done
kept=$(number activation_kept_measured)
layer 1 $shape --layers 3 --recompute norm,activation --dropout-mask regenerated
holds "masks are not kept" test "$(number activation_kept_measured)" -eq $((kept - 3 * 2 * 300 * 48))
holds "nor planned" as_planned
layer 1 $shape --verify --dtype f32 --norm rms --activation swiglu --no-bias --rope 10000 --causal \
    --mlp 80 --kv-heads 2
holds "f32, as of Llama" verified
holds "f32 is within 2e-5" within 2.00e-05
layer 1 $shape --verify --core materialized --recompute selective --causal --layers 2 --mlp 80
holds "a materialized core, probabilities made again" verified
holds "as planned" as_planned
layer 1 $shape --verify --post-norm --activation relu --layers 2
holds "norms behind, two layers" verified
layer 1 $shape --verify --parallel --recompute core,mlp
holds "blocks in parallel" verified
holds "and as planned" as_planned
layer 1 $shape --layers 3 --recompute none/full/core,norm
holds "layers that differ" as_planned
holds "and say so" grep -q '"recompute": "none/full/core,norm"' j.json

# chosen RANKS OPTION...: a budget in the middle between all kept and nothing kept
chosen()
{
    layer "$@" --recompute none
    most=$(number ledger_peak)
    layer "$@" --recompute full
    budget=$((($(number ledger_peak) + most) / 2))
    layer "$@" --recompute auto --memory "$budget"
    holds "chosen on $1: as planned" as_planned
    holds "chosen on $1: fits" test "$(number ledger_peak)" -le "$budget"
    holds "chosen on $1: something is computed again" test "$(number ledger_peak)" -lt "$most"
}
chosen 1 $shape --seq 512 --layers 4
longspan bench layer $shape --threads 2 --repeat 2 --trace trace.json
holds "a trace" grep -q '"name": *"backward"' trace.json

run sh -c 'ulimit -v 4000000; exec "$0" --version' "$LONGSPAN"
if [ "$status" -eq 0 ]; then # not with a sanitizer
    layer 1 --hidden 256 --heads 4 --seq 2048 --layers 4 --threads 2
    holds "resident memory is what the ledger says" honest 80000000
fi

# ---- what is refused

# refused NAME RANKS WORDS OPTION...
refused()
{
    name=$1 ranks=$2 words=$3
    shift 3
    layer "$ranks" "$@"
    if [ "$status" -eq 2 ] && [ ! -s stdout ] && [ ! -e j.json ] &&
        [ "$(grep -c '^longspan' stderr)" -eq 1 ] && grep -qF -e "$words" stderr; then
        passed "$name: $(grep '^longspan' stderr)"
    else
        fails "$name: status $status, not 2 and '$words'"
    fi
}

refused "no shape" 1 "needs --hidden, --heads and --seq" --hidden 48
refused "heads" 1 "--hidden 48 cannot be shared evenly by --heads 5" $shape --heads 5
refused "groups" 1 "--heads 4 is not a multiple of --kv-heads 3" $shape --kv-heads 3
refused "ranks" 1 "2 ranks, and there is 1: start as many (mpirun -n 2)" $shape --tp 2
refused "a piece" 1 "(activation?)" $shape --recompute norm,activaton
refused "what chooses pieces" 1 "(auto?)" $shape --recompute atuo --memory 1GiB
refused "a choice for one layer" 1 "no piece \"auto\"" $shape --layers 2 --recompute auto/none
refused "a list of pieces" 1 "is of 2 layers, --layers of 3" $shape --layers 3 --recompute full/none
refused "no budget" 1 "needs --memory BYTES" $shape --recompute auto
refused "a budget for nothing" 1 "--recompute auto" $shape --recompute full --memory 1GiB
refused "too small a budget" 1 "more than 1000" $shape --recompute auto --memory 1000
refused "a norm" 1 "is 'layer' meant?" $shape --norm layr
refused "an option" 1 "is --recompute meant?" $shape --recomptue full
refused "a core" 1 "is 'materialized' meant?" $shape --core materialised
refused "what chooses a method" 1 "is 'auto' meant?" $shape --method atuo
refused "a method of none" 1 "method ring is for a fused core" $shape --core materialized --method ring
refused "dropout" 1 "must be 0 to below 1" $shape --dropout 1
refused "f16" 1 "not f16" $shape --dtype f16
refused "no file" 1 "none.safetensors" $shape --weights none.safetensors
refused "no folder" 1 "none/o.safetensors" $shape --out none/o.safetensors
layer 1 --hidden 1048576 --heads 16384 --seq 1048576
holds "more than there is memory" test "$status" -eq 3

# ---- files

# Weights of 0: all but the residual path vanishes. x is 1.5.
header='{"norm1":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
"qkv":{"dtype":"F32","shape":[6,2],"data_offsets":[8,56]},
"out":{"dtype":"F32","shape":[2,2],"data_offsets":[56,72]},
"norm2":{"dtype":"F32","shape":[2],"data_offsets":[72,80]},
"up":{"dtype":"F32","shape":[8,2],"data_offsets":[80,144]},
"down":{"dtype":"F32","shape":[2,8],"data_offsets":[144,208]},
"x":{"dtype":"F32","shape":[1,3,2],"data_offsets":[208,232]}}'
{
    zeros 208
    for _ in 1 2 3 4 5 6; do printf '\000\000\300\077'; done
} | safetensors "$header" >zeros.safetensors
tiny="--hidden 2 --heads 1 --seq 3 --norm rms --no-bias --dtype f32"
layer 1 $tiny --weights zeros.safetensors --verify --out o.safetensors
holds "x goes through" test "$(floats o.safetensors | head -n 6 | sort -u | tr -d ' ')" = 1.5
refused "a shape" 1 "zeros.safetensors: up: shape is 8,2, the layer has 10,2" $tiny --mlp 10 \
    --weights zeros.safetensors
refused "another length" 1 "x: shape is 1,3,2, the layer has 1,4,2" $tiny --seq 4 \
    --weights zeros.safetensors
refused "no bias in the file" 1 "no tensor 'qkv_bias'" --hidden 2 --heads 1 --seq 3 --norm rms \
    --weights zeros.safetensors

# Logits of thousands: what f32 rounds of them is more than the contract has for those of unit size.
header='{"norm1":{"dtype":"BF16","shape":[8],"data_offsets":[0,16]},
"qkv":{"dtype":"BF16","shape":[24,8],"data_offsets":[16,400]},
"out":{"dtype":"BF16","shape":[8,8],"data_offsets":[400,528]},
"norm2":{"dtype":"BF16","shape":[8],"data_offsets":[528,544]},
"up":{"dtype":"BF16","shape":[32,8],"data_offsets":[544,1056]},
"down":{"dtype":"BF16","shape":[8,32],"data_offsets":[1056,1568]},
"x":{"dtype":"BF16","shape":[1,4,8],"data_offsets":[1568,1632]}}'
{
    for _ in 1 2 3 4 5 6 7 8; do printf '\000\103'; done
    bf16 0 1 1 1 808 bshd
} | safetensors "$header" >large.safetensors
layer 1 --hidden 8 --heads 1 --seq 4 --norm rms --no-bias --dtype f32 --weights large.safetensors \
    --verify
holds "what is not within limits is told" test "$status $(tail -n 1 stdout)" = "1 verified: FAILED"
holds "which tensor" grep -q 'dqkv .*FAILED' stdout

has_mpi || exit "$failed"

# ---- on several ranks

refused "columns" 2 "3 key/value heads cannot be shared evenly by 2" --hidden 48 --heads 6 \
    --kv-heads 3 --seq 300 --tp 2
refused "width" 2 "99 columns of the MLP cannot be shared evenly by 2" $shape --mlp 99 --tp 2
refused "leaves" 3 "3 context-parallel ranks share the sequence in leaves of 256" $shape --cp 3
refused "a grid" 3 "--tp 2 x --cp 2 are 4 ranks, and there are 3" $shape --tp 2 --cp 2

# 2 s b h elements of 2 bytes go and come four times
layer 2 --hidden 64 --heads 4 --seq 512 --tp 2 --dropout 0
holds "16 s b h (t - 1) / t" test "$(number sent_measured)" -eq $((16 * 512 * 64 / 2))
layer 2 --hidden 64 --heads 4 --seq 512 --tp 2 --sp --dropout 0
holds "and the inputs once more" test \
    $(($(number sent_measured) - $(number sent_for_vectors))) -eq $(((16 + 4) * 512 * 64 / 2))

# rows that nothing divides: the second context has three of them, fewer than there are ranks
for grid in "2 1" "4 1 --sp" "1 2" "2 2" "2 2 --sp" "4 2 --sp"; do
    set -- $grid
    layer $(($1 * $2)) $shape --seq 259 --batch 2 --causal --tp "$1" --cp "$2" ${3-} \
        --recompute full --layers 2
    holds "planned is measured, t $1 c $2 ${3-}" as_planned
done

layer 2 $shape --tp 2 --sp --kv-heads 2 --verify
holds "t 2" verified
chosen 2 $shape --seq 512 --layers 4 --tp 2 --sp
layer 4 $shape --tp 4 --sp --kv-heads 2 --parallel --verify --recompute qkv,mlp
holds "t 4, two ranks a key/value head" verified
holds "and as planned" as_planned
layer 2 $shape --cp 2 --causal --core materialized --kv-heads 2 --recompute selective --verify
holds "a materialized core gathers keys" verified
holds "as planned" as_planned
layer 3 $shape --seq 600 --cp 3 --verify --method ring
holds "c 3" verified
layer 4 $shape --tp 2 --cp 2 --sp --verify --causal
holds "t 2 c 2" verified

# the same layer whoever computes it
longspan bench layer $one $shape --kv-heads 2 --dtype f32 --activation swiglu --out a.safetensors
layer 2 $shape --kv-heads 2 --dtype f32 --activation swiglu --tp 2 --sp --out b.safetensors
holds "on two ranks as on one" near a.safetensors b.safetensors

# the same bits
strict="--hidden 48 --heads 4 --seq 1100 --batch 2 --causal --strict"
longspan bench layer $one $strict --out a.safetensors
layer 3 $strict --cp 3 --recompute full --layout zigzag --out b.safetensors
holds "strict: on three ranks as on one" cmp a.safetensors b.safetensors
holds "planned is measured, strict" as_planned
holds "with which machine" grep -q '"fingerprint": "longspan' j.json
strict_core="$strict --core materialized --kv-heads 2 --dtype f32"
longspan bench layer $one $strict_core --out a.safetensors
layer 3 $strict_core --cp 3 --recompute selective --layout striped --out b.safetensors
holds "strict: a materialized core on three ranks as on one" cmp a.safetensors b.safetensors
holds "planned is measured, strict, materialized" as_planned
holds "and with which machine" grep -q '"fingerprint": "longspan' j.json
layer 2 $strict --tp 2 --out a.safetensors
layer 4 $strict --tp 2 --cp 2 --sp --method ring --layout striped --out b.safetensors
holds "strict: whatever the sequence is cut in" cmp a.safetensors b.safetensors
holds "planned is measured, strict, t 2 c 2" as_planned
exit "$failed"
