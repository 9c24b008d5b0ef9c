#!/bin/sh
# shellcheck disable=SC2154 # variables of the harness
# Bad input is answered by exit status 2 and one line that begins "longspan SUBCOMMAND: ", what
# fails while running by status 3; nothing is written, nothing left behind, and no rank hangs.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
mkdir "$work/in" "$work/out" "$work/tmp" || exit 99
cd "$work/in" || exit 99
out=$work/out/o.safetensors

# Computing this takes minutes: what can be known before is known before the time limit.
long="--random 1,4,4,262144,262144,64"

# Open MPI's own files are removed by a daemon of its, a little later.
left_behind() { find "$work/out" "$work/tmp" ! -type d ! -path "*/ompi.*" 2>/dev/null; }

# expect NAME STATUS PATTERN PROGRAM: judges the last run. A launcher adds lines of its own.
expect()
{
    grep '^longspan' "$work/stderr" >"$work/lines"
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        fails "$1: no answer in time"
    elif [ "$status" -ne "$2" ]; then
        fails "$1: exit status $status, not $2"
    elif [ "$(wc -l <"$work/lines")" -ne 1 ] || ! grep -qE "^$4( [a-z]+)?: " "$work/lines"; then
        fails "$1: not one line that begins with '$4: '"
    elif ! grep -qE -e "$3" "$work/lines"; then
        fails "$1: the line does not say '$3'"
    elif [ -s "$work/stdout" ]; then
        fails "$1: something on standard output"
    elif [ -n "$(left_behind)" ]; then
        fails "$1: left behind $(left_behind)"
    else
        passed "$1: $(cat "$work/lines")"
    fi
    find "$work/out" "$work/tmp" ! -type d -exec rm -f {} +
}

# bad NAME STATUS PATTERN SUBCOMMAND [OPTION...], on one process
bad()
{
    name=$1 wanted=$2 pattern=$3
    shift 3
    run env "TMPDIR=$work/tmp" "$LONGSPAN" "$@"
    [ "$(wc -l <"$work/stderr")" -eq 1 ] || fails "$name: more than one line on standard error"
    expect "$name" "$wanted" "$pattern" "longspan $1"
}

# bad_on_ranks NAME STATUS PATTERN SUBCOMMAND [OPTION...], on two
bad_on_ranks()
{
    has_mpi || return 0
    name=$1 wanted=$2 pattern=$3
    shift 3
    on_ranks 2 "$@"
    expect "2 ranks: $name" "$wanted" "$pattern" "longspan $1"
}

# bad_everywhere: both
bad_everywhere()
{
    bad "$@"
    bad_on_ranks "$@"
}

# ---- .npy: f32, 300 positions, 2 heads of 16

shape="1, 300, 2, 16"
bytes=$((300 * 2 * 16 * 4))

# npy DESCR FORTRAN SHAPE BYTES: a file of zeros on stdout
npy()
{
    npy_header "$1" "$2" "$3"
    zeros "$4"
}

npy '<f4' False "$shape" $bytes >good.npy
good="--k good.npy --v good.npy --order bshd"

: >empty.npy
head -c 20000 good.npy >truncated.npy
head -c 40 good.npy >cut-header.npy
{ cat good.npy; zeros 4; } >over-long.npy
{ printf X; tail -c +2 good.npy; } >magic.npy
npy '>f4' False "$shape" $bytes >big-endian.npy
npy '<f4' True "$shape" $bytes >fortran.npy
npy '|O' False "$shape" $bytes >pickled.npy
npy '<i4' False "$shape" $bytes >integers.npy
npy '<f4' False "1, 300, 2, -16" $bytes >negative.npy
npy '<f4' False "4611686018427387904, 300, 2, 16" $bytes >huge.npy

# attend with a bad q; $good is several words, without spaces in them
# shellcheck disable=SC2086
bad_q() { bad "$1" 2 "$2" attend --q "$1" $good --out "$out"; }
# shellcheck disable=SC2086
bad_q_on_ranks() { bad_on_ranks "$1" 2 "$2" attend --q "$1" $good --out "$out"; }

bad_q missing.npy "missing.npy: .*No such file"
bad_q_on_ranks missing.npy "missing.npy: .*No such file"
bad_q empty.npy "empty.npy: .*empty"
bad_q truncated.npy "truncated.npy: .*38400.*"
bad_q_on_ranks truncated.npy "truncated.npy: .*38400.*"
bad_q cut-header.npy "cut-header.npy: .*truncated"
bad_q over-long.npy "over-long.npy: .*trailing"
bad_q magic.npy "magic.npy: "
bad_q big-endian.npy "big-endian.npy: .*big-endian"
bad_q fortran.npy "fortran.npy: .*[Ff]ortran"
bad_q pickled.npy "pickled.npy: .*pickle"
bad_q integers.npy "integers.npy: .*<i4"
bad_q negative.npy "negative.npy: .*-16"
bad_q huge.npy "huge.npy: .*4611686018427387904"
bad_q "$work/in" "in: "

# ---- .safetensors: bf16, 1 x 8 x 1 x 4

# entry NAME TYPE SHAPE FIRST END: one tensor of a header
entry() { printf '"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}' "$@"; }

# bad_file NAME PATTERN HEADER: a file with that header and 192 bytes of zeros
bad_file()
{
    zeros 192 | safetensors "$3" >"$1.safetensors"
    bad "$1.safetensors" 2 "$1.safetensors: $2" attend --input "$1.safetensors" --out "$out"
}

q=$(entry q BF16 1,8,1,4 0 64)
k=$(entry k BF16 1,8,1,4 64 128)
v=$(entry v BF16 1,8,1,4 128 192)

bad_file no-v ".*'v'; it holds 'q', 'k', 'w'" "{$q,$k,$(entry w BF16 1,8,1,4 128 192)}"
bad_file overlapping ".*overlap" "{$q,$k,$(entry v BF16 1,8,1,4 64 128)}"
bad_file beyond-the-end "" "{$q,$k,$(entry v BF16 1,8,1,4 256 320)}"
bad_file offsets-reversed "" "{$q,$k,$(entry v BF16 1,8,1,4 192 128)}"
bad_file offsets-negative "" "{$q,$k,$(entry v BF16 1,8,1,4 -64 0)}"
bad_file size-and-offsets "" "{$q,$k,$(entry v BF16 1,8,2,4 128 192)}"
bad_file duplicate ".*(duplicate|twice)" "{$q,$k,$v,$(entry q BF16 1,8,1,4 0 64)}"
bad_file unknown-type ".*BF17" "{$q,$k,$(entry v BF17 1,8,1,4 128 192)}"
bad_file of-whole-numbers ".*\"v\" has .*I64.*BF16" "{$q,$k,$(entry v I64 8 128 192)}"
bad_file of-six-dimensions ".*\"v\" has 6 dim.* 5" "{$q,$k,$(entry v BF16 1,1,1,8,1,4 128 192)}"
bad_file two-to-the-62 "" "{$q,$k,$(entry v BF16 4611686018427387904,8,1,4 128 192)}"
bad_file product-overflows "" "{$q,$k,$(entry v BF16 4294967296,4294967296,1,4 128 192)}"
bad_file negative-dimension "" "{$q,$k,$(entry v BF16 -1,8,1,4 128 192)}"
bad_file not-json "" "{$q,$k"
bad_file nested "" "{\"a\":$(zeros 100000 | tr '\0' '[')$(zeros 100000 | tr '\0' ']')}"
bad_on_ranks nested.safetensors 2 nested.safetensors attend --input nested.safetensors --out "$out"

# What nobody asks for may be of any kind, the metadata too.
zeros 280 | safetensors "{\"__metadata__\":null,$q,$k,$v,$(entry position_ids I64 8 192 256),$(
    entry mask BOOL 1,1,1,1,8 256 264),$(entry "$(zeros 64 | tr '\0' n)" F8_E5M2 4,4 264 280)}" \
    >mixed.safetensors
longspan attend --input mixed.safetensors --order bshd --quiet
if [ "$status" -eq 0 ]; then passed "tensors of other kinds"; else fails "tensors of other kinds"; fi
zeros 64 | safetensors "{$(entry position_ids I64 8 0 64)}" >lone.safetensors
bad "sinks of another kind" 2 "\"position_ids\" has .*I64" attend --random 1,1,1,8,8,4 \
    --sinks lone.safetensors
printf '' | safetensors "{}" >no-tensors.safetensors
bad "no tensors at all" 2 "'q'; it holds none" attend --input no-tensors.safetensors
bad "two files without tensors" 2 "none of o" check no-tensors.safetensors no-tensors.safetensors

{ little_endian 8 1000000; printf '{}'; } >long-header.safetensors
bad "header length over the file" 2 long-header.safetensors \
    attend --input long-header.safetensors --out "$out"
printf '\377\377\377\377\377\377\377\377{}' >huge-header.safetensors
bad "header length 2^64 - 1" 2 huge-header.safetensors attend --input huge-header.safetensors

# ---- shapes

npy '<f4' False "1, 300, 2, 8" $((bytes / 2)) >d8.npy
npy '<f4' False "2, 300, 2, 8" $bytes >b2.npy
npy '<f4' False "1, 150, 2, 16" $((bytes / 2)) >s150.npy
npy '<f4' False "1, 200, 3, 16" $bytes >h3.npy
npy '<f4' False "600, 16" $bytes >two-dims.npy
npy '<f4' False "1, 8, 2, 600" $bytes >d600.npy
npy '<f4' False "1, 300, 2, 0" 0 >d0.npy
npy '<f4' False "1, 30, 20, 16" $bytes >both.npy
npy '<f4' False "75, 8, 16" $bytes >two.npy

# bad_shape NAME PATTERN Q K V [OPTION...]
bad_shape()
{
    name=$1 pattern=$2 q=$3 k=$4 v=$5
    shift 5
    bad "$name" 2 "$pattern" attend --q "$q" --k "$k" --v "$v" --out "$out" "$@"
}

bad_shape "head dims disagree" "8.*16|16.*8" good.npy d8.npy d8.npy --order bshd
bad_shape "batches disagree" "1.*2|2.*1" d8.npy b2.npy b2.npy --order bshd
bad_shape "k and v disagree" "150.*300|300.*150" good.npy good.npy s150.npy --order bshd
bad_shape "2 dimensions" "two-dims.npy: .*600,16.*batch" two-dims.npy good.npy good.npy --order bshd
bad_shape "heads no multiple" "2.*3" good.npy h3.npy h3.npy --order bshd
bad_shape "both orders fit" "--order" both.npy both.npy both.npy
bad_shape "head dim 600" "600" d600.npy d600.npy d600.npy --order bshd
bad_shape "head dim 0" "head dim is 0" d0.npy d0.npy d0.npy --order bshd
bad_everywhere "packed, two readings" 2 "two.npy: shape 75,8,16 can be .* or batch 75 of 8.*save it as" \
    attend --input two.npy --packed s3hd --heads 4 --kv-heads 2 --out "$out"
bad "random: heads no multiple" 2 "5.*2" attend --random 1,5,2,64,64,64 --out "$out"
bad "random: head dim 577" 2 "577" attend --random 1,2,2,64,64,577 --out "$out"
bad "random: no queries" 2 "number of queries is 0" attend --random 1,2,2,0,64,16 --out "$out"
bad "random: head dim 0" 2 "head dim is 0" attend --random 1,2,2,64,64,0 --out "$out"
bad "random: head dim of v 577" 2 "577" attend --random 1,2,2,64,64,64/577 --out "$out"
bad "random: head dim of v 0" 2 "head dim is 0" attend --random 1,2,2,64,64,64/0 --out "$out"
bad "random: a batch in two" 2 "number 1" attend --random 1/2,2,2,64,64,64 --out "$out"
bad_on_ranks "random: head dim 577" 2 "577" attend --random 1,2,2,64,64,577 --out "$out"
bad "o is wider than v" 2 "good.npy: shape is 1,300,2,16, .*1,300,2,8, .*d8.npy" check --q good.npy \
    --k good.npy --v d8.npy --order bshd --result good.npy
bad "result of another shape" 2 "d8.npy" check --q good.npy --k good.npy --v good.npy --order bshd \
    --result d8.npy

# ---- NaN and infinity: element 3 of head 1 at position 299, which the last rank holds

last=$(((299 * 2 + 1) * 16 + 3))

# spoiled BITS: good.npy with one element replaced
spoiled()
{
    npy_header '<f4' False "$shape"
    zeros $((4 * last))
    little_endian 4 "$1"
    zeros $((bytes - 4 * last - 4))
}

spoiled 0x7fc00000 >nan.npy
spoiled 0xff800000 >inf.npy
spoiled 0x7f7fffff >too-large.npy
bad_q nan.npy "nan.npy: .*NaN.* position 299, head 1, element 3"
bad_q_on_ranks nan.npy "nan.npy: .*NaN.* position 299, head 1, element 3"
bad_shape "infinity in v" "inf.npy: .*inf.* position 299" good.npy good.npy inf.npy --order bshd
bad_shape "not finite in f16" "too-large.npy: .*3.4.*e\+?38" too-large.npy good.npy good.npy \
    --order bshd --dtype f16
spoiled 0x7effc99e >1.7e38.npy
spoiled 0x7b4097ce >1e36.npy
bad_shape "v that may overflow when 300 of it are summed" \
    "1.7e38.npy: 1.7e\+38, .*less than 1.13.*e\+36, .*position 299" good.npy good.npy 1.7e38.npy \
    --order bshd
bad_shape "v that may overflow when it is multiplied by do" "1e36.npy: 1e\+36, .*less than 3.26.*e\+18" \
    good.npy good.npy 1e36.npy --order bshd --backward
longspan attend --q good.npy --k good.npy --v 1e36.npy --order bshd --dtype f32 --verify=300
if [ "$status" -eq 0 ]; then passed "v of 1e36"; else fails "v of 1e36"; fi
# shellcheck disable=SC2086
longspan attend --q nan.npy $good --out "$out" --allow-nonfinite
if [ "$status" -eq 0 ] && [ -s "$out" ]; then
    passed "--allow-nonfinite computes anyway"
else
    fails "--allow-nonfinite computes anyway"
fi
rm -f "$out"

# ---- options

small="--random 1,2,2,64,64,16"
# bad_option NAME PATTERN [OPTION...]
# shellcheck disable=SC2086
bad_option()
{
    name=$1 pattern=$2
    shift 2
    bad "$name" 2 "$pattern" attend $small --out "$out" "$@"
}

bad_option "unknown option" "--caussal.*--causal" --caussal
bad_option "unknown method" "rinq.*ring" --method rinq
bad_option "a grid that is none" "--grid: '2x' is no grid" --grid 2x
bad_option "a grid of nobody" "--grid: '0x1' is no grid" --grid 0x1
bad_option "a grid of other ranks" "grid of 2x3: the product must be .*, 1" --grid 2x3
bad_option "unknown placement" "--placement: .*node" --placement node
bad_option "no node" "node-size.*1 to" --node-size 0
bad_option "a window of one side" "--window: '3'" --window 3
bad_option "a window's side below 0" "--window: .*'-1'" --window -1,3
bad_option "a window's side that is no number" "--window: .*'x'" --window inf,x
bad_option "prefix beyond the keys" "prefix is 65.* 64 keys" --prefix 65
bad_option "prefix below 0" "--prefix: '-1'" --prefix -1
bad_option "queries placed twice" "placed twice" --align start --query-offset 3
bad_option "unknown side" "--align: .*middle" --align middle
bad_option "dropout of all" "--dropout: 1 " --dropout 1
bad_option "dropout below 0" "--dropout: -0.5 " --dropout -0.5
bad_option "a seed that is no number" "--dropout.*'x'" --dropout 0.5,x
bad_option "soft cap of 0" "--soft-cap: 0" --soft-cap 0
integers 0 30 64 >documents.npy
integers 0 40 30 64 >falling.npy
integers 0 30 63 >few.npy
integers 1 30 64 >late.npy
integers 0 >lone.npy
npy '<f4' False 3, 12 >three.npy
bad_option "documents out of order" "documents: 40 is followed by 30" --documents falling.npy
bad_option "documents of too few keys" "documents: .*63.* 64" --documents few.npy
bad_option "documents that begin late" "documents: .*begins at 1" --documents late.npy
bad_option "documents without an end" "lone.npy: 1 numbers" --documents lone.npy
bad_option "documents that are no whole numbers" "good.npy: has f32 .*int64" --documents good.npy
bad_option "documents that are missing" "missing.npy: .*No such file" --documents missing.npy
bad_option "a list of documents that is no list" "--documents: number 2 of '0,x,64'" --documents 0,x,64
bad_option "a list of documents without an end" "--documents 0: 1 numbers" --documents 0
bad_option "documents of queries alone" "--cu-seqlens-k is missing" --cu-seqlens-q 0,64
bad_option "documents of keys alone" "--cu-seqlens-q is missing" --cu-seqlens-k 0,64
bad_option "documents twice" "exclude each other" --documents 0,64 --cu-seqlens-k 0,64 --cu-seqlens-q 0,64
bad_option "documents of other counts" "are \\[1, 3\\], those of keys \\[1, 2\\]" \
    --cu-seqlens-q 0,9,64 --cu-seqlens-k 0,64
bad_option "documents beyond the queries" "documents of queries: they end at 65, and there are 64" \
    --cu-seqlens-q 0,65 --cu-seqlens-k 0,64
bad_option "documents beyond the keys" "documents of keys: they end at 65, and there are 64" \
    --cu-seqlens-q 0,64 --cu-seqlens-k 0,65
bad_option "documents of queries that fall" "documents of queries: 9 is followed by 8" \
    --cu-seqlens-q 0,9,8 --cu-seqlens-k 0,9,9
bad_option "lengths of other entries" "--q-lengths 1,2: 2 numbers, .*1 entries" --q-lengths 1,2
bad_option "more queries than there are" "query length of entry 0 is 65, must be 0 to 64" --q-lengths 65
bad_option "more keys than there are" "key length of entry 0 is 65, must be 0 to 64" --k-lengths 65
bad_option "lengths below 0" "--k-lengths.*'-1'" --k-lengths -1
bad_option "a side without padding" "--padding is of" --padding left
bad_option "an unknown tensor to ignore" "--ignore: 'k_length' .*did you mean k_lengths" --ignore k_length
bad_option "an unknown side of padding" "--padding: .*middle" --padding middle --k-lengths 3
table 5 0 64 0 64 1 >slices.npy
npy_header '<i8' True '5, 5' >fortran-slices.npy
table 4 0 1 0 1 >narrow-slices.npy
head -c 90 slices.npy >short-slices.npy
bad_option "slices that overlap" "slices 0 and 2 overlap: query 9 and key 0 " --slices 0,64,0,64,0,0,0,0,0,0,9,10,0,1,3
bad_option "a slice beyond the queries" "slice 1: queries 60 to 65 .* 64" --slices 0,1,0,1,0,60,65,0,1,0
bad_option "a slice beyond the keys" "slice 0: keys 3 to 65 .* 64" --slices 0,1,3,65,0
bad_option "a slice that ends before it begins" "slice 0: queries 9 to 8 " --slices 9,8,0,1,0
bad_option "a slice of an unknown type" "slice 0 is of type 4.* 3 .both." --slices 0,1,0,1,4
bad_option "a slice of four numbers" "--slices 0,1,0,1: 4 numbers, .*type" --slices 0,1,0,1
bad_option "slices that are a list" "documents.npy: 3 numbers, must be five" --slices documents.npy
bad_option "slices of four numbers" "narrow-slices.npy: 4 numbers, must be five" --slices narrow-slices.npy
bad_option "slices by columns" "fortran-slices.npy: Fortran" --slices fortran-slices.npy
bad_option "slices cut off" "short-slices.npy: " --slices short-slices.npy
{ npy_header '|b1' False '64, 63'; zeros 4032; } >narrow-mask.npy
{ npy_header '|u1' False '64, 64'; zeros 4096; } >byte-mask.npy
{ npy_header '|b1' False '3, 1, 64, 64'; zeros 12288; } >deep-mask.npy
{ npy_header '|b1' False '64, 64'; zeros 4095; } >short-mask.npy
printf '' | safetensors '{}' >no-mask.safetensors
bad_option "a mask of fewer keys" "narrow-mask.npy: is bool .64, 63., must be bool .64, 64." --mask narrow-mask.npy
bad_option "a mask of a byte for each pair" "is uint8 .64, 64., .* 8 bytes of bits" --mask byte-mask.npy
bad_option "a mask of other entries" "is bool .3, 1, 64, 64.,.* .[0-9]* or 1, " --mask deep-mask.npy
bad_option "a mask cut off" "short-mask.npy: truncated: bool" --mask short-mask.npy
bad_option "a mask of numbers" "good.npy: is f32 " --mask good.npy
bad_option "a mask of no name" "has no tensor .mask.; --names" --mask no-mask.safetensors
{ npy_header '<f4' False '2, 4'; zeros 32; } >even-biases.npy
{ npy_header '<f4' False '3, 5'; zeros 60; } >biases-of-3.npy
bad_option "an even number of biases" "even-biases.npy: must be .*odd" --distance-bias even-biases.npy
bad_option "biases of other heads" "biases-of-3.npy: must be .*n.* each head" --distance-bias biases-of-3.npy
bad_option "biases that are whole numbers" "documents.npy: has .*<i8" --distance-bias documents.npy
{ npy_header '<f4' False '64, 63'; zeros 16128; } >narrow-bias.npy
{ npy_header '<f4' False '1, 3, 64, 64'; zeros 49152; } >bias-of-3.npy
{ npy_header '<f4' False '64, 64'; zeros 16000; } >short-bias.npy
{ npy_header '<f4' False '64, 64'; zeros 512; little_endian 4 0x7fc00000; zeros 15868; } >nan-bias.npy
{ npy_header '<f4' False '64, 64 '; zeros 16380; little_endian 4 0xff7fffff; } >large-bias.npy
{ npy_header '<f2' False '64, 64'; zeros 8190; little_endian 2 0x7c00; } >infinite-bias.npy
bad_option "biases of fewer keys" "narrow-bias.npy: .*64,63.*must be .64, 64." --bias narrow-bias.npy
bad_option "biases of three heads" "bias-of-3.npy: .*must be .64, 64. or .*1, 64, 64" --bias bias-of-3.npy
bad_option "biases cut off" "short-bias.npy: truncated" --bias short-bias.npy
bad_option "a bias that is no number" "nan-bias.npy: .*query 2, key 0 is nan, no number" --bias nan-bias.npy
bad_option "a bias below all logits" "large-bias.npy: .*query 63, key 63 is .*beyond 2.126; .*-inf" --bias large-bias.npy
# shellcheck disable=SC2086
bad_on_ranks "a bias below all logits in the last rank's share" 2 "query 63, key 63 is .*beyond" \
    attend $small --bias large-bias.npy --out "$out"
bad_option "an infinite bias" "infinite-bias.npy: .*key 63 is inf, beyond" --bias infinite-bias.npy
bad_option "biases that are whole numbers" "documents.npy: has .*<i8" --bias documents.npy
bad_option "slices where documents are asked for" "documents: 64 is followed by 0" --documents slices.npy
bad_option "a list of sinks too short" "--sinks: '1' must be.* 2 heads" --sinks 1
bad_option "a list of sinks too long" "--sinks: '1,2,3' must be.* 2 heads" --sinks 1,2,3
bad_option "a list of sinks that is no list" "--sinks: '1,x' must be.* 2 heads" --sinks 1,x
bad_option "an infinite sink" "--sinks: '1,inf' must be.*finite" --sinks 1,inf
bad_option "sinks of the wrong length" "three.npy: .* 2 heads" --sinks three.npy
bad_option "a list of slopes too short" "--alibi: '1' must be.* 2 heads" --alibi=1
bad_option "slopes of the wrong length" "three.npy: .* 2 heads" --alibi=three.npy
bad_option "slopes without an equals sign" "unexpected argument '1,2'" --alibi 1,2
bad_option "sinks that are whole numbers" "documents.npy: .*<i8" --sinks documents.npy
# shellcheck disable=SC2086
bad_on_ranks "documents out of order" 2 "40 is followed by 30" \
    attend $small --out "$out" --documents falling.npy
bad "masks of two results" 2 "without an input" check a b --prefix 3
bad_option "sinks that are missing" "nowhere" --sinks nowhere.npy
qkv="$(entry q BF16 1,8,1,4 0 64),$(entry k BF16 1,8,1,4 64 128),$(entry v BF16 1,8,1,4 128 192)"
zeros 240 | safetensors "{$qkv,$(entry 'do' BF16 1,8,1,3 192 240)}" >do.safetensors
bad "do of another shape" 2 "do: .*1,8,1,3.*1,8,1,4" \
    attend --input do.safetensors --order bshd --backward --out "$out"
longspan attend --input do.safetensors --order bshd --quiet
[ "$status" -eq 0 ] || fails "do is read where nobody asks for gradients"
zeros 8192 | safetensors "{$(entry o BF16 1,64,2,16 0 4096),$(entry dk BF16 1,64,2,16 4096 8192)}" \
    >no-lse.safetensors
# shellcheck disable=SC2086
bad "dk without lse" 2 "no-lse.*'lse'" check $small --result no-lse.safetensors
zeros 8192 | safetensors "{$(entry o BF16 1,64,2,16 0 4096),$(entry dq BF16 1,32,4,16 4096 8192)}" \
    >dq.safetensors
# shellcheck disable=SC2086
bad "dq of another shape" 2 "dq: .*1,32,4,16.*1,64,2,16" check $small --result dq.safetensors
bad_option "unknown layout" "zigzug.*zigzag" --layout zigzug
bad_option "unknown method" "rign.*ring" --method rign
bad_option "unknown type" "bf61.*bf16" --dtype bf61
bad_option "option without its value" "--method" --method
bad_option "value of an option without one" "--causal takes no value" --causal=yes
bad_option "the beginning of two options" "--o can mean --order or --out" --o x
bad_option "value that is no number" "x7" --repeat x7
bad_option "scale beyond a float" "--scale: '1e300'" --scale 1e300
bad_option "no threads" "0" --threads 0
bad_option "surplus argument" "surplus" surplus
bad_option "two inputs" "--input" --input good.npy
bad "no input" 2 "--input" attend --out "$out"
bad "random with five numbers" 2 "--random" attend --random 1,2,3,4,5
bad "unknown option of check" 2 "--rezult.*--result" check --rezult a
bad "unknown bench" 2 "gem.*gemm" bench gem
# shellcheck disable=SC2086
bad "plan for no ranks" 2 "--ranks: .*0" plan attend $small --ranks 0
# shellcheck disable=SC2086
bad "one rank measures messages" 2 "--measure: one rank" plan attend $small --ranks 2 --measure
# shellcheck disable=SC2086
bad "times of backward" 2 "--measure.*--backward" plan attend $small --measure --backward
# shellcheck disable=SC2086
bad_on_ranks "unknown option" 2 "--caussal.*--causal" attend $small --out "$out" --caussal
# shellcheck disable=SC2086
bad_on_ranks "a method that cannot" 2 "local" attend $small --method local --out "$out"
bad_on_ranks "strict over too many stripes" 2 "ring.*35157 leaves in layout striped.*zigzag" \
    attend --random 1,1,1,9000000,9000000,1 --method ring --layout striped --strict --out "$out"
longspan atend
expect "unknown subcommand" 2 "atend.*attend" longspan

# ---- processes of one launcher that MPI does not know of

alone="sees one, .*(srun --mpi=pmix .*mpirun|a build with MPI).*LONGSPAN_SINGLE=1"
for variable in SLURM_STEP_NUM_TASKS PMI_SIZE OMPI_COMM_WORLD_SIZE; do
    export $variable=4
    # shellcheck disable=SC2086
    bad "attend, $variable=4" 2 "4 processes .*$variable.*$alone" attend $small --out "$out"
    if [ $variable != OMPI_COMM_WORLD_SIZE ]; then
        # a process of an mpirun that was started within
        # shellcheck disable=SC2086
        run env OMPI_COMM_WORLD_SIZE=1 "$LONGSPAN" attend $small --quiet
        [ "$status" -eq 0 ] || fails "one process of an mpirun, $variable=4"
    fi
    # shellcheck disable=SC2086
    run env LONGSPAN_SINGLE=1 "$LONGSPAN" attend $small --quiet
    [ "$status" -eq 0 ] || fails "LONGSPAN_SINGLE=1, $variable=4"
    unset $variable
done
export SLURM_STEP_NUM_TASKS=4
for bench in gemm memory comm attend linear; do
    run "$LONGSPAN" bench $bench
    expect "bench $bench of 4" 2 "$alone" "longspan bench"
done
# shellcheck disable=SC2086
bad "check of 4" 2 "$alone" check $small --result dq.safetensors
# shellcheck disable=SC2086
for command in info methods "plan attend $small"; do
    longspan $command
    [ "$status" -eq 0 ] || fails "$command of 4"
done
unset SLURM_STEP_NUM_TASKS
if has_mpi; then
    # shellcheck disable=SC2086
    on_ranks 1 attend $small --quiet
    [ "$status" -eq 0 ] || fails "mpirun of one process"
fi

# ---- targets

# shellcheck disable=SC2086
bad_everywhere "--out in a missing folder" 2 "none/o.safetensors" \
    attend $long --out "$work/out/none/o.safetensors"
# shellcheck disable=SC2086
bad "--json in a missing folder" 2 "none/o.json" attend $long --json "$work/out/none/o.json"
# shellcheck disable=SC2086
bad_everywhere "--trace in a missing folder" 2 "none/t.json" \
    attend $long --trace "$work/out/none/t.json"
# shellcheck disable=SC2086
bad "--json names no file" 2 "names no file" attend $long --json ""
# shellcheck disable=SC2086
bad "--out is a folder" 2 "$work/out" attend $long --out "$work/out"

echo precious >"$work/precious"
bad "bad input with an existing target" 2 missing.npy attend --q missing.npy --k good.npy \
    --v good.npy --out "$work/precious"
[ "$(cat "$work/precious")" = precious ] || fails "an existing target was touched by bad input"

# Root may write anywhere, so that the read-only folder is somebody else's.
mkdir "$work/out/read-only" && chmod 755 "$work" "$work/out" && chmod 777 "$work/tmp"
chmod 555 "$work/out/read-only"
as_nobody=
[ "$(id -u)" -ne 0 ] || as_nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
# shellcheck disable=SC2086
if $as_nobody "$LONGSPAN" --version >"$work/stdout" 2>&1; then
    run env "TMPDIR=$work/tmp" $as_nobody "$LONGSPAN" attend $long \
        --out "$work/out/read-only/o.safetensors"
    expect "--out in a read-only folder" 2 "read-only" "longspan attend"
else
    echo "SKIPPED: --out in a read-only folder: user nobody cannot run $LONGSPAN"
fi

# ---- what fails while running

for option in --out --json --trace; do
    # shellcheck disable=SC2086
    bad_everywhere "$option on a full device" 3 "/dev/full: .*No space" \
        attend $small --quiet $option /dev/full
done
[ -c /dev/full ] || fails "/dev/full was replaced"

# shellcheck disable=SC2086
"$LONGSPAN" attend $small >/dev/full 2>"$work/stderr"
status=$?
: >"$work/stdout"
expect "results on a full device" 3 "standard output: .*No space" "longspan attend"

mkdir "$work/out/small"
if [ "$(id -u)" -eq 0 ] && mount -t tmpfs -o size=64k none "$work/out/small" 2>/dev/null; then
    trap 'umount "$work/out/small"; rm -rf "$work"' EXIT
    # shellcheck disable=SC2086
    bad_everywhere "--out on a full disk" 3 "No space" \
        attend $long --out "$work/out/small/o.safetensors"
else
    echo "SKIPPED: --out on a full disk: only root can make a small one"
fi

bad_everywhere "more memory than the node has" 3 "memory" \
    attend --random 1,8,8,1000000000,1000000000,256

exit "$failed"
