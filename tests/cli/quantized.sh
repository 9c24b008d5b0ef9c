#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# Keys and values of 8 bits: made by --kv-dtype, they are the oracle's; brought by a file, with their
# scales, they are what they stand for; and one clear line where they cannot be.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99

refused() { [ "$status" -eq 2 ] && [ "$(wc -l <stderr)" -eq 1 ] && grep -qE -e "$1" stderr; }
verified() { [ "$status" -eq 0 ] && grep -q '^verified: ok' stdout; }
bad() { holds "$1" refused "$2"; }

# ---- made of others

for type in i8 e4m3; do
    longspan attend --random 2,4,2,300,700,40/24 --kv-dtype $type --causal --verify --strict \
        --threads 1 --out alone.out
    holds "$type" verified
    holds "$type: how far it is from what was given" grep -q '^quantized  *o is 0.0[0-4]' stdout
    has_mpi || continue
    on_ranks 3 attend --random 2,4,2,300,700,40/24 --kv-dtype $type --causal --strict \
        --threads 1 --out other.out --method ring
    holds "$type: the same bytes on three ranks" cmp alone.out other.out
done
longspan plan attend --random 1,4,2,1024,1024,64 --ranks 4 --kv-dtype i8 --json - # 3 x 1024 x 2 x 2 x 68
holds "a ring sends rows of 8 bits" grep -q '"bytes_sent": *835584,' stdout

# ---- brought by a file: 2 batches of 300 positions, 4 heads of 16 and 2 of keys, small numbers

# repeat BYTES N: these bytes, as printf has them, so many times
repeat()
{
    printf %b "$1" >once
    : >all
    left=$2
    while [ "$left" -gt 0 ]; do
        [ $((left % 2)) -eq 0 ] || cat once >>all
        cat once once >twice
        mv twice once
        left=$((left / 2))
    done
    cat all
}
bf16 1 2 300 4 16 bshd >q.raw
numbers=$((2 * 300 * 2 * 16)) rows=$((2 * 300 * 2))
repeat '\0001\0376\0003\0000\0377' $((numbers / 5)) >i8.raw            # 1 -2 3 0 -1
repeat '\0070\0300\0104\0000\0270' $((numbers / 5)) >e4m3.raw
repeat '\0200\0077\0000\0300\0100\0100\0000\0000\0200\0277' $((numbers / 5)) >bf16.raw
repeat '\0000\0000\0200\0077' $rows >ones.raw
repeat '\0000\0000\0200\0077' 4 >four.raw
repeat '\0000\0000\0000\0000' 64 >mean.raw

entry() { printf '"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}' "$@"; }

# file NAME:TYPE:SHAPE:DATA...: a .safetensors file of these
file()
{
    at=0 header=''
    : >data
    for tensor in "$@"; do
        raw=${tensor##*:} rest=${tensor%:*}
        shape=${rest##*:} rest=${rest%:*}
        end=$((at + $(wc -c <"$raw")))
        header="$header${header:+,}$(entry "${rest%:*}" "${rest##*:}" "$shape" $at $end)"
        cat "$raw" >>data
        at=$end
    done
    safetensors "{$header}" <data
}
q=q:BF16:2,300,4,16:q.raw
file $q k:BF16:2,300,2,16:bf16.raw v:BF16:2,300,2,16:bf16.raw >wide.in
k=k:I8:2,300,2,16:i8.raw v=v:I8:2,300,2,16:i8.raw
ks=k_scale:F32:2,300,2:ones.raw vs=v_scale:F32:2,300,2:ones.raw
file $q $k $v $ks $vs >i8.in
file $q k:F8_E4M3:2,300,2,16:e4m3.raw v:F8_E4M3:2,300,2,16:e4m3.raw k_scale:F32:2,2:four.raw \
    v_scale:F32:2,2:four.raw >e4m3.in
file $q $k $v $ks $vs k_mean:F32:2,2,16:mean.raw >mean.in
options="--order bshd --causal --threads 1"

# shellcheck disable=SC2086 # several options
longspan attend --input wide.in $options --out wide.out
for type in i8 e4m3 mean; do
    # shellcheck disable=SC2086 # several options
    longspan attend --input $type.in $options --out $type.out --verify
    holds "$type of a file" verified
    holds "$type of a file are the numbers that they stand for" cmp wide.out $type.out
    # shellcheck disable=SC2086 # several options
    longspan check --input $type.in --result wide.out $options
    holds "check of $type" verified
    has_mpi || continue
    # shellcheck disable=SC2086 # several options
    on_ranks 3 attend --input $type.in $options --method usp --verify
    holds "$type of a file on three ranks" verified
done
rm -f ./*.out

# a mean of 1 in each number of the first head: other keys
{
    repeat '\0000\0000\0200\0077' 16
    repeat '\0000\0000\0000\0000' 48
} >mean.raw
file $q $k $v $ks $vs k_mean:F32:2,2,16:mean.raw >mean.in
# shellcheck disable=SC2086 # several options
longspan attend --input mean.in $options --out mean.out --verify
holds "keys with their mean" verified
# shellcheck disable=SC2086 # several options
longspan check --input i8.in --result mean.out $options
holds "lse is that of keys with their mean" grep -q '^verified: FAILED, lse: ' stdout
rm -f mean.out

# ---- what cannot be

scale() # BYTES: of the 700th row
{
    head -c $((700 * 4)) ones.raw
    printf %b "$1"
    tail -c +$((701 * 4 + 1)) ones.raw
}
for case in 'nan:\0000\0000\0300\0177' '0:\0000\0000\0000\0000' '-1:\0000\0000\0200\0277'; do
    scale "${case#*:}" >bad.raw
    file $q $k $v $ks v_scale:F32:2,300,2:bad.raw >bad.in
    longspan attend --input bad.in --order bshd --out x.out
    bad "a scale of ${case%%:*}" "v_scale: .* ${case%%:*} at batch 1, position 50, head 0.*above 0"
done
file $q $k $v $ks >bad.in
longspan attend --input bad.in --order bshd --out x.out
bad "no scales of v" "no tensor 'v_scale'"
file $q $k $v $ks v_scale:F32:2,2:four.raw >bad.in
longspan attend --input bad.in --order bshd --out x.out
bad "scales of heads for i8" "v_scale: shape is 2,2, must be 2,300,2"
file $q $k v:BF16:2,300,2,16:bf16.raw $ks $vs >bad.in
longspan attend --input bad.in --order bshd --out x.out
bad "keys of 8 bits, values of 16" "v: type is bf16, k has i8"
file q:I8:2,300,2,16:i8.raw $k $v $ks $vs >bad.in
longspan attend --input bad.in --order bshd --out x.out
bad "queries of 8 bits" "q: type is i8: only k and v"
longspan attend --input i8.in --order bshd --kv-dtype e4m3 --out x.out
bad "8 bits again" "--kv-dtype: k and v of the input are i8 already"
longspan attend --input i8.in --order bshd --backward --out x.out
bad "gradients of 8 bits" "i8 are for forward alone"
longspan attend --random 1,1,1,8,8,4 --kv-dtype i4 --out x.out
bad "another type" "--kv-dtype: .*i4.*i8"
holds "nothing is written" test ! -e x.out
exit "$failed"
