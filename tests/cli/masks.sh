#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# Masks and scores on the command line: `attend` verified on one rank and several, `check` of what it wrote with
# the same options and with others, and what the balanced layout does with packed documents.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99

found_wrong() { [ "$status" -eq 1 ] && tail -n 1 stdout | grep -q 'FAILED'; }
verified() { [ "$status" -eq 0 ] && tail -n 1 stdout | grep -q '^verified: ok'; }
stdout_has() { [ "$status" -eq 0 ] && grep -qE -e "$1" stdout; }

# number NAME: its value in the JSON object that the last run printed
number() { sed -nE "s/.*\"$1\": *(-?[0-9.e+-]+).*/\1/p" stdout; }

integers 0 100 100 613 900 >documents.npy
integers 0 101 101 613 900 >others.npy
table 5 0 300 100 900 1 300 700 0 500 2 300 700 500 900 0 >slices.npy

# truth ROWS COLUMNS FACTOR: a matrix of 0 and 1 as lines; packed COLUMNS: of these, bytes of eight
truth()
{
    awk -v r="$1" -v c="$2" -v f="$3" 'BEGIN {
        for (i = 0; i < r; i++) for (j = 0; j < c; j++) print (i * f + j * j) % 7 < 4 }'
}
packed()
{
    awk -v c="$1" '{ j = (NR - 1) % c; x += $1 * 2 ^ (j % 8)
        if (j % 8 == 7 || j == c - 1) { print x; x = 0 } }'
}
as_bytes() { LC_ALL=C awk '{ printf "%c", $1 + 0 }'; }
{ npy_header '|b1' False '700, 900'; truth 700 900 3 | as_bytes; } >mask.npy
{ npy_header '|b1' False '700, 900'; truth 700 900 4 | as_bytes; } >other-mask.npy
{ npy_header '|u1' False '700, 113'; truth 700 900 3 | packed 900 | as_bytes; } >bits.npy
{ npy_header '|b1' False '2, 4, 40, 50'; truth 320 50 5 | as_bytes; } >of-heads.npy
{ npy_header '|u1' False '1, 4, 40, 7'; truth 160 50 5 | packed 50 | as_bytes; } >of-one.npy
entry() { printf '"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}' "$@"; }

# logits 0.5, -1, 2 and 0, and others
sinks() { npy_header '<f4' False 4,; for bits; do little_endian 4 "$bits"; done; }
sinks 0x3f000000 0xbf800000 0x40000000 0 >sinks.npy
sinks 0x3f000000 0xbf800000 0 0 >other-sinks.npy
# five biases for each head, half of them others in the second file
biases() { npy_header '<f4' False '4, 5'; for bits in "$@" "$@" "$@" "$@"; do little_endian 4 "$bits"; done; }
biases 0x3f000000 0xbf800000 0x40000000 0 0x3e800000 >biases.npy
biases 0x3f000000 0xbf800000 0 0 0x3e900000 >other-biases.npy
# seven numbers over and over, at a place of the file that memory could have, and, as f16, in no such
# place; another one differs in one of them. repeated numbers are those of other pairs in each row
pair_bias() { for bits; do little_endian "$size" "$bits"; done | repeated $((630000 * size)); }
{
    npy_header '<f4' False '700, 900   '
    size=4 && pair_bias 0x3f000000 0xbf800000 0x40000000 0xff800000 0x3e800000 0 0xc0000000
} >bias.npy
{
    npy_header '<f2' False '700, 900'
    size=2 && pair_bias 0x3800 0xbc00 0x4000 0xfc00 0x3400 0 0xc000
} >half-bias.npy
{
    npy_header '<f4' False '700, 900   '
    size=4 && pair_bias 0x3f000000 0xbf800000 0x40000000 0xff800000 0x3e900000 0 0xc0000000
} >other-bias.npy
random="--random 1,4,2,700,900,32,5 --threads 1"

# try LINE OTHER [OPTION...]: the options are obeyed, told in the text, and missed by a judge who is
# told OTHER instead.
# shellcheck disable=SC2086
try()
{
    line=$1 other=$2
    shift 2
    longspan attend $random --out o.safetensors --verify "$@"
    holds "attend $*" verified
    holds "attend $* says so" stdout_has "$line"
    longspan check $random --result o.safetensors "$@"
    holds "check $*" verified
    longspan check $random --result o.safetensors $other
    holds "check '$other' of $*" found_wrong
    has_mpi || return 0
    on_ranks 3 attend $random --method ring --verify=64 "$@"
    holds "3 ranks: $*" verified
}

try 'aligned at the start' --causal --align start --causal
try 'from place 150 on' '--causal --query-offset 151' --causal --query-offset 150
try '100 keys before and 20 behind' '--window 101,20' --window 100,20
try 'inf keys before and 20 behind' '--window inf,inf' --window inf,20
try 'a prefix of 37 keys' '--window 9,9 --prefix 38' --window 9,9 --prefix 37
try '4 documents' '--causal --documents others.npy' --causal --documents documents.npy
table 4 0 100 100 700 0 200 300 650 >cu-q.npy
table 4 0 90 613 900 0 300 300 900 >cu-k.npy
batch="--random 2,2,1,700,900,32,5 --threads 1"
single=$random random=$batch
try 'entries of their own lengths, padded on the left' '--causal --q-lengths 300,700 --k-lengths 613,900' \
    --causal --q-lengths 300,700 --k-lengths 613,900 --padding left
try 'padded on the right' '--causal --k-lengths 613,870' --causal --k-lengths 613,900
try '3 documents of queries and of keys in each entry' \
    '--causal --cu-seqlens-q cu-q.npy --cu-seqlens-k cu-k.npy' \
    --causal --cu-seqlens-q cu-q.npy --cu-seqlens-k cu-k.npy --align start
random=$single
try '2 documents of queries and of keys' '--cu-seqlens-q 0,100,700 --cu-seqlens-k 0,690,900' \
    --cu-seqlens-q 0,100,700 --cu-seqlens-k 0,613,900
try 'pairs of a file$' '--mask other-mask.npy' --causal --mask mask.npy
try '3 slices' '--slices 0,300,100,900,0,300,700,0,500,2,300,700,500,900,0' --slices slices.npy
try '1 slice' '--slices 0,700,0,900,1' --causal --align start --slices 0,700,0,900,0
try ALiBi --soft-cap=900 --alibi
try ALiBi --alibi --alibi=sinks.npy
try 'soft cap 3$' '--soft-cap 3.2' --soft-cap 3
try 'biases by 5 distances$' '--causal --distance-bias other-biases.npy' --causal --distance-bias biases.npy
try 'biases of pairs$' '--bias other-bias.npy' --causal --bias bias.npy
try sinks '--sinks other-sinks.npy' --sinks sinks.npy
try 'dropout 0.25 by seed 7' '--dropout 0.25,8' --dropout 0.25,7 --causal
# shellcheck disable=SC2086
for bias in bias half-bias; do longspan attend $random --bias $bias.npy --out $bias.out --quiet; done
holds "biases of another type" cmp bias.out half-bias.out
{ for t in 1 2 3; do bf16 $t 1 64 4 16 bshd; done; tail -c 16 sinks.npy; } |
    safetensors "{$(entry q BF16 1,64,4,16 0 8192),$(entry k BF16 1,64,4,16 8192 16384),$(
        entry v BF16 1,64,4,16 16384 24576),$(entry sinks F32 4 24576 24592)}" >qkv.safetensors
for sinks in sinks.npy qkv.safetensors; do
    longspan attend --input qkv.safetensors --order bshd --sinks $sinks --out $sinks.out --quiet
done
holds "sinks of the input" cmp sinks.npy.out qkv.safetensors.out

# Bits are the truth values that they stand for; heads have masks of their own.
# shellcheck disable=SC2086
for mask in mask bits; do longspan attend $random --mask $mask.npy --out $mask.out --quiet; done
holds "bits of a mask" cmp mask.out bits.out
random=--random=2,4,2,40,50,16
try 'of each entry and of each head$' '--mask of-one.npy' --mask of-heads.npy
try 'pairs of a file of each head$' '--mask of-heads.npy' --mask of-one.npy
random=$single

# tensors that are used without being asked for, and left out
{
    for t in 1 2 3; do bf16 $t 1 64 4 16 bshd; done
    tail -c 16 sinks.npy
    little_endian 8 40
    little_endian 4 30
} | safetensors "{$(entry q BF16 1,64,4,16 0 8192),$(entry k BF16 1,64,4,16 8192 16384),$(
    entry v BF16 1,64,4,16 16384 24576),$(entry sinks F32 4 24576 24592),$(
    entry k_lengths I64 1 24592 24600),$(entry q_lengths I32 1 24600 24604)}" >own.safetensors
longspan attend --input own.safetensors --order bshd --out own.out --causal
holds "what the input brings is told" stdout_has 'used +q_lengths, k_lengths, sinks of the input'
longspan check --input own.safetensors --order bshd --result own.out --causal
holds "what the input brings is used by check" verified
longspan attend --input qkv.safetensors --order bshd --out asked.out --causal --q-lengths 30 --k-lengths 40
holds "what the input brings is as if asked for" cmp own.out asked.out
longspan attend --input own.safetensors --order bshd --out own.out --causal \
    --ignore sinks --ignore q_lengths --ignore k_lengths
longspan attend --input qkv.safetensors --order bshd --out asked.out --causal --ignore sinks
holds "what the input brings is left out" cmp own.out asked.out

{ for t in 1 2 3; do bf16 $t 1 64 4 16 bshd; done; tail -c 16384 bias.npy; } |
    safetensors "{$(entry q BF16 1,64,4,16 0 8192),$(entry k BF16 1,64,4,16 8192 16384),$(
        entry v BF16 1,64,4,16 16384 24576),$(entry bias F32 64,64 24576 40960)}" >biased.safetensors
longspan attend --input biased.safetensors --order bshd --out own.out --verify
holds "biases of the input are told" stdout_has 'used +bias of the input'
longspan attend --input qkv.safetensors --order bshd --ignore sinks --bias biased.safetensors --out asked.out
holds "biases of the input are as if asked for" cmp own.out asked.out
longspan attend --input biased.safetensors --order bshd --ignore bias --out own.out
longspan attend --input qkv.safetensors --order bshd --ignore sinks --out asked.out
holds "biases of the input are left out" cmp own.out asked.out

# standard_slopes HEADS LIST: what --alibi alone means, as the authors' code has it
standard_slopes()
{
    longspan attend --random "1,$1,1,70,90,16" --dtype f32 --quiet --out standard.out --alibi
    longspan attend --random "1,$1,1,70,90,16" --dtype f32 --quiet --out list.out "--alibi=$2"
    holds "slopes of $1 heads" cmp standard.out list.out
}
standard_slopes 6 0.25,0.0625,0.015625,0.00390625,0.5,0.125
standard_slopes 8 0.5,0.25,0.125,0.0625,0.03125,0.015625,0.0078125,0.00390625
standard_slopes 12 "0.5,0.25,0.125,0.0625,0.03125,0.015625,0.0078125,0.00390625,0.707106781,0.353553391,\
0.176776695,0.0883883476"

# as_good OPTION LIST: as the file of the same numbers
# shellcheck disable=SC2086
as_good()
{
    longspan attend $random --quiet --out file.out --$1=$1.npy
    longspan attend $random --quiet --out list.out --$1=$2
    holds "a list of $1" cmp file.out list.out
}
as_good documents 0,100,100,613,900
as_good sinks 0.5,-1,2e0,0
cp sinks.npy alibi.npy
as_good alibi 0.5,-1,2e0,0
# shellcheck disable=SC2086
longspan attend $random --window 100,inf --documents documents.npy --quiet --json -
holds "JSON: window" stdout_has '"window_left": 100'
holds "JSON: no limit" stdout_has '"window_right": null'
holds "JSON: documents" stdout_has '"documents": 4'
holds "JSON: aligned at the end" stdout_has '"align": "end"'
# shellcheck disable=SC2086
longspan attend $random --window 100,7 --causal --query-offset 4 --json -
holds "JSON: causal closes a window behind" stdout_has '"window_right": 0'
holds "causal closes a window behind" grep -q '100 keys before and 0 behind' "$work/stderr"
holds "JSON: an offset aligns with no side" stdout_has '"align": null'

# Packed documents of random length over eight ranks: tiles of the busiest over the mean.
# shellcheck disable=SC2046
integers 0 $(awk 'BEGIN { x = 9
    while (s < 65536) { x = x * 16807 % 2147483647; s += 1 + x % 6000; print s < 65536 ? s : 65536 }
}') >packed.npy
if has_mpi; then
    on_ranks 8 attend --random 1,1,1,65536,65536,16 --causal --documents packed.npy --threads 1 \
        --method ring --layout balanced --quiet --json -
    # 1.05 x the mean over 8 ranks
    holds "balanced documents" test $((100 * $(number tiles_computed_most) * 8)) -le \
        $((105 * $(number tiles_computed)))
fi

exit "$failed"
