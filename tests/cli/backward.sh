#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# Gradients on the command line: `attend --backward` verified on one rank and several, with masks, in
# every type; what it writes is judged by `check`, which finds gradients that trade places, also
# between two results.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99

found_wrong() { [ "$status" -eq 1 ] && tail -n 1 stdout | grep -q 'FAILED'; }
verified() { [ "$status" -eq 0 ] && tail -n 1 stdout | grep -q '^verified: ok'; }
stdout_has() { [ "$status" -eq 0 ] && grep -qE -e "$1" stdout; }

integers 0 100 100 413 600 >documents.npy
random="--random 1,4,2,500,600,32,5 --threads 1 --backward --verify=32"

# try [OPTION...]: on one rank, and on three
# shellcheck disable=SC2086
try()
{
    longspan attend $random "$@"
    holds "attend $*" verified
    for gradient in dq dk dv $also; do
        holds "$gradient is judged" stdout_has "^ +$gradient +rel"
    done
    has_mpi || return 0
    on_ranks 3 attend $random "$@"
    holds "3 ranks: $*" verified
}

also=
try --causal
try --dtype f32 --method ring --window 100,20 --prefix 9
try --dtype f16 --causal --documents documents.npy --layout balanced --strict
try --slices 0,200,0,600,1,200,500,100,400,3

random="--random 1,4,2,500,600,32/20,5 --threads 1 --backward --verify=32"
try --causal
try --dtype f32 --method allreduce --strict

also=dsinks
try --causal --sinks=0.5,-1,2,0 --dropout 0.2
try --method allreduce --window 100,20 --sinks=0.5,-1,2,-6 --dtype f32

also=ddistance_bias
# 0.5, -1 and 2, of each head
{
    npy_header '<f4' False '4, 3'
    set -- 0x3f000000 0xbf800000 0x40000000
    for bits in "$@" "$@" "$@" "$@"; do little_endian 4 "$bits"; done
} >biases.npy
try --causal --distance-bias biases.npy --dropout 0.2
try --method allreduce --strict --window 100,20 --distance-bias biases.npy --dtype f32

also=dbias
# pair_biases DIMENSIONS N: 0.5, -1, 2, -inf and 0.25, over and over
pair_biases()
{
    npy_header '<f4' False "$1"
    {
        for bits in 0x3f000000 0xbf800000 0x40000000 0xff800000 0x3e800000; do
            little_endian 4 $bits
        done
    } | repeated $(($2 * 4))
}
pair_biases '500, 600' 300000 >shared-biases.npy
pair_biases '1, 4, 500, 600' 1200000 >head-biases.npy
try --causal --bias shared-biases.npy --dropout 0.2
try --method allreduce --strict --window 100,20 --bias head-biases.npy --dtype f32
longspan attend --random 1,4,2,500,600,32 --bias shared-biases.npy --backward --out biased.out --quiet
longspan check --random 1,4,2,500,600,32 --bias shared-biases.npy --result biased.out
holds "check: dbias" stdout_has '^ +dbias +units'
longspan check --random 1,4,2,500,600,32 --bias head-biases.npy --result biased.out
holds "dbias of other heads is refused" test "$status" -eq 2
longspan check --random 1,4,2,500,600,32 --result biased.out
holds "dbias without biases is refused" grep -q 'give --bias' stderr
longspan check biased.out biased.out
holds "check of two results: dbias too" stdout_has '^compared .*dbias\): ok'

# ---- files: do of the input, in either order, and results

entry() { printf '"%s":{"dtype":"BF16","shape":[%s],"data_offsets":[%s,%s]}' "$@"; }

# input ORDER SHAPE: q, k, v and do, 300 positions of 2 heads of 16
input()
{
    n=$((300 * 2 * 16 * 2))
    for t in 1 2 3 4; do bf16 $t 1 300 2 16 "$1"; done |
        safetensors "{$(entry q "$2" 0 $n),$(entry k "$2" $n $((2 * n))),$(
            entry v "$2" $((2 * n)) $((3 * n))),$(entry 'do' "$2" $((3 * n)) $((4 * n)))}" >"$1.in"
}
input bshd 1,300,2,16
input bhsd 1,2,300,16
for order in bshd bhsd; do
    longspan attend --input $order.in --order $order --causal --backward --verify --out $order.out
    holds "$order: do of the input" verified
    longspan check --input $order.in --order $order --causal --result $order.out
    holds "$order: check" verified
    holds "$order: check judges gradients" stdout_has '^ +dv +units'
done

# renamed FROM TO: the result with two tensors that have each other's names
renamed() { LC_ALL=C sed -e "s/\"$1\"/\"xx\"/" -e "s/\"$2\"/\"$1\"/" -e "s/\"xx\"/\"$2\"/" bshd.out; }
for pair in 'dq dk' 'dk dv' 'dq dv'; do
    # shellcheck disable=SC2086
    renamed $pair >renamed.out
    longspan check --input bshd.in --order bshd --causal --result renamed.out
    holds "check: $pair trade places" found_wrong
    longspan check bshd.out renamed.out
    holds "check of two results: $pair trade places" found_wrong
done
longspan check bshd.out bshd.out
holds "check of two results: gradients too" stdout_has '^compared \(o, lse, dq, dk, dv\): ok'
LC_ALL=C sed -e 's/"o"/"u"/' -e 's/"lse"/"esl"/' bshd.out >gradients.out
longspan check bshd.out gradients.out --json g.json
holds "check of two results: gradients alone" stdout_has '^compared \(dq, dk, dv\): ok'
holds "the limits of their type" grep -q '"contract": *"bf16"' g.json
LC_ALL=C sed -e 's/"o"/"u"/' -e 's/"d\([qkv]\)"/"x\1"/g' bshd.out >lse.out
longspan check lse.out bshd.out --contract f32
holds "check of two results: lse alone" stdout_has '^compared \(lse\): ok'
longspan check lse.out bshd.out
holds "lse alone does not say whose limits hold" test "$status" -eq 2
holds "--contract would, says the message" grep -q -e '--contract' stderr
longspan check lse.out gradients.out
holds "nothing in common" test "$status" -eq 2
holds "nothing in common, says the message" grep -q 'none of o, lse' stderr
longspan attend --random 1,2,2,300,300,16,1 --causal --backward --out random.out --quiet
longspan check --random 1,2,2,300,300,16,1 --causal --result random.out
holds "do by the seed" verified
if has_mpi; then
    on_ranks 2 check --input bhsd.in --order bhsd --causal --result bhsd.out --rows 20
    holds "2 ranks: check" verified
fi

# ---- values narrower than keys

entries=
place=0
for tensor in q:24 k:24 v:16 "do:16"; do
    bytes=$((300 * 2 * ${tensor#*:} * 2))
    entries="$entries${entries:+,}$(entry "${tensor%:*}" "1,300,2,${tensor#*:}" $place $((place + bytes)))"
    place=$((place + bytes))
done
bf16 1 1 300 2 80 bshd | safetensors "{$entries}" >narrow.in
longspan attend --input narrow.in --order bshd --causal --backward --verify --out narrow.out
holds "narrow values: attend" verified
holds "narrow values: said so" stdout_has 'head dim 24, of v 16'
longspan check --input narrow.in --order bshd --causal --result narrow.out
holds "narrow values: check" verified
holds "narrow values: o is as wide as v, dk as k" \
    grep -qaE '"o":\{[^}]*\[1,300,2,16\].*"dk":\{[^}]*\[1,300,2,24\]' narrow.out
longspan attend --input narrow.in --names do=q --order bshd --causal --backward
holds "do that is wider than v" test "$status" -eq 2
holds "do that is wider than v: both are named" grep -qE \
    'narrow.in.* shape is 1,300,2,24, that of o is 1,300,2,16, with the head dim of narrow.in.*v' stderr

# ---- sinks, judged wherever their gradients are, and only with them

# hurt OFFSET: the result with another byte, counted from its end, where dsinks has the last place
hurt()
{
    head -c -"$1" sinks.out
    printf '\201'
    tail -c "$(($1 - 1))" sinks.out
}
sinks="--sinks=1,-0.5 --causal"
# shellcheck disable=SC2086
{
    longspan attend --input bshd.in --order bshd $sinks --backward --verify --out sinks.out
    holds "sinks: attend" verified
    longspan check --input bshd.in --order bshd $sinks --result sinks.out
    holds "sinks: check" verified
    holds "sinks: check judges them" stdout_has '^ +dsinks units .*worst at head [01]'
    hurt 2 >hurt.out
    longspan check --input bshd.in --order bshd $sinks --result hurt.out --rows 1
    holds "sinks: a wrong one is found" found_wrong
    holds "sinks: it is named" grep -q '^verified: FAILED, dsinks: ' stdout
    longspan check sinks.out hurt.out
    holds "sinks: it is found between two results" found_wrong
}
longspan check sinks.out sinks.out
holds "check of two results: dsinks too" stdout_has '^compared \(o, lse, dq, dk, dv, dsinks\): ok'
longspan check --input bshd.in --order bshd --causal --result sinks.out
holds "dsinks without sinks cannot be judged" test "$status" -eq 2
holds "--sinks would, says the message" grep -q -e '--sinks' stderr
LC_ALL=C sed -e 's/"o"/"u"/' -e 's/"d\([qkv]\)"/"x\1"/g' sinks.out >heads.out
longspan check heads.out sinks.out
holds "lse and dsinks do not say whose limits hold" test "$status" -eq 2
LC_ALL=C sed -e 's/"lse"/"esl"/' sinks.out >no-lse.out
# shellcheck disable=SC2086
longspan check --input bshd.in --order bshd $sinks --result no-lse.out
holds "dsinks are judged by lse" test "$status" -eq 2
if has_mpi; then
    # shellcheck disable=SC2086
    on_ranks 3 check --input bshd.in --order bshd $sinks --result sinks.out --rows 20
    holds "3 ranks: dsinks" verified
fi

# ---- limits

longspan attend --random 1,1,1,4,1,64 --dtype f32 --backward --verify
holds "one key, whose dq is 0" verified
holds "one key: dq has a limit" stdout_has 'dq +rel +[0-9.e-]+ +limit [0-9.e-]+, absolute'
for dtype in f32 bf16; do
    longspan attend --random 1,1,1,64,64,64 --dtype $dtype --scale 1e5 --backward --verify
    holds "logits of 10^6: $dtype has no gradients to speak of" found_wrong
    holds "logits of 10^6: $dtype says why" grep -q '^verified: FAILED, dq: the limit is inf' stdout
done

# ---- the report

longspan bench attend --random 1,2,2,512,512,64 --backward --json -
for name in backward_seconds backward_gflops backward_gflops_per_thread; do
    holds "bench attend: $name" stdout_has "\"$name\": *[0-9]*[1-9.]"
done
longspan attend --random 1,2,2,64,64,16 --backward --verify --json -
for name in rel_dq rel_dk rel_dv; do
    holds "JSON names $name" stdout_has "\"$name\": *[0-9]"
done

exit "$failed"
