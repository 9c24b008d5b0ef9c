#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# Files as people have them say what the usual one says: the same q, k and v in other formats, under
# other names and in other shapes give the same file of results, on one rank and on three.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99

refused() { [ "$status" -eq 2 ] && [ "$(wc -l <stderr)" -eq 1 ] && grep -qE -e "$1" stderr; }
verified() { [ "$status" -eq 0 ] && tail -n 1 stdout | grep -q '^verified: ok'; }
options="--order bshd --causal --threads 1"

# ---- the usual file: 2 batches of 300 positions, 4 heads of 16 and 2 of keys

for tensor in q k v; do
    case $tensor in
    q) bf16 1 2 300 4 16 bshd ;;
    k) bf16 2 2 300 2 16 bshd ;;
    v) bf16 3 2 300 2 16 bshd ;;
    esac >$tensor.raw
done
q_bytes=$((2 * 300 * 4 * 16 * 2)) k_bytes=$((2 * 300 * 2 * 16 * 2))
entry() { printf '"%s":{"dtype":"BF16","shape":[%s],"data_offsets":[%s,%s]}' "$@"; }

# input Q K V Q_SHAPE K_SHAPE: q, k and v under these names and of these shapes
input()
{
    cat q.raw k.raw v.raw |
        safetensors "{$(entry "$1" "$4" 0 $q_bytes),$(entry "$2" "$5" $q_bytes $((q_bytes + k_bytes))),$(
            entry "$3" "$5" $((q_bytes + k_bytes)) $((q_bytes + 2 * k_bytes)))}"
}
input q k v 2,300,4,16 2,300,2,16 >usual.in
# shellcheck disable=SC2086 # several options
longspan attend --input usual.in $options --out usual.out --verify
holds "the usual file" verified

# same NAME FILE: a result is FILE, byte by byte
same()
{
    holds "$1" cmp "$2" other.out
    rm -f other.out
}

# means_usual NAME OPTION...: what the options name gives the usual result
means_usual()
{
    name=$1
    shift
    # shellcheck disable=SC2086 # several options
    longspan attend "$@" $options --out other.out
    same "$name" usual.out
}

# means_usual_on_ranks NAME OPTION...: on three ranks too
means_usual_on_ranks()
{
    means_usual "$@"
    has_mpi || return 0
    shift
    # shellcheck disable=SC2086 # several options
    on_ranks 3 attend "$@" $options --method allgather --verify
    holds "3 ranks: $name" verified
}

# ---- bf16 in .npy, as ml_dtypes has it written

for tensor in q k v; do
    heads=2
    [ $tensor = q ] && heads=4
    { npy_header '<V2' False "2, 300, $heads, 16"; cat $tensor.raw; } >$tensor.npy
done
means_usual_on_ranks "bf16 in .npy" --q q.npy --k k.npy --v v.npy
{ npy_header '<V1' False "2, 300, 8, 16"; cat q.raw; } >eight.npy
# shellcheck disable=SC2086 # several options
longspan attend --q eight.npy --k k.npy --v v.npy $options
holds "numbers of 8 bits are refused" refused "eight.npy: .*'<V1'.*8 bits.*save a .safetensors file.*a.astype"

# ---- a pipe, which one rank reads for all

mkfifo pipe
# through FILE: a process that writes it into the pipe
through() { timeout 60 cat "$1" >pipe & }
through usual.in
means_usual "a pipe" --input pipe
through usual.out
longspan check --input usual.in --order bshd --causal --result pipe
holds "check: a pipe" verified
through usual.out
longspan check pipe usual.out
holds "check of two results: a pipe" grep -q '^compared (o, lse): ok' stdout
through /dev/null
longspan attend --input pipe
holds "nothing comes" refused "pipe: is empty"
# shellcheck disable=SC2086 # several options
if has_mpi; then
    through usual.in
    on_ranks 3 attend --input pipe $options --verify
    holds "3 ranks: a pipe" verified
fi
# a rank that does not see the first one's files stands for one of another node
# shellcheck disable=SC2086 # several options
case $MPIEXEC in
*mpirun* | *mpiexec*)
    if unshare -p -f --mount-proc true 2>/dev/null; then
        through usual.in
        run "$MPIEXEC" $MPIEXEC_FLAGS -n 1 "$LONGSPAN" attend --input pipe $options : \
            -n 1 unshare -p -f --mount-proc "$LONGSPAN" attend --input pipe $options
        holds "a pipe on two nodes" grep -q 'rank 1: pipe: .*several nodes cannot share' stderr
    else
        echo "SKIPPED: a pipe on two nodes: only root can have one of its own"
    fi
    ;;
esac

# ---- other names

input query key value 2,300,4,16 2,300,2,16 >named.in
names=q=query,k=key,v=value
means_usual "other names" --input named.in --names $names
means_usual "names in several options" --input named.in --names q=query,v=value --names k=key
input v q k 2,300,4,16 2,300,2,16 >turned.in
means_usual "names that trade places" --input turned.in --names q=v,k=q,v=k
# shellcheck disable=SC2086 # several options
{
    longspan attend --input named.in $options
    holds "a name that is not there" refused "holds no tensor 'q'; it holds .*'query'.*--names q="
    longspan attend --input named.in --names q=querry,k=key,v=value $options
    holds "the nearest of those that are there" refused "no tensor 'querry'; is 'query' meant"
    longspan attend --input named.in --names $names,do=gradient --backward $options
    holds "a name that was given has to be there" refused "no tensor 'gradient'"
    longspan attend --input named.in --names key=k $options
    holds "a tensor that is none" refused "--names: there is no tensor 'key'"
    longspan attend --input named.in --names q $options
    holds "a name that names nothing" refused "--names: 'q' is not a tensor and what"
    longspan attend --random 1,1,1,4,4,4 --names q=a
    holds "--names without a file" refused "--names is of files"
    LC_ALL=C sed -e 's/"o"/"0"/' -e 's/"lse"/"log"/' usual.out >named.out
    longspan check --input named.in --names $names,o=0,lse=log $options --result named.out
    holds "check: names in both files" verified
    longspan check --input usual.in --names o=0,lse=l $options --result named.out
    holds "check: a name that is not there" refused "no tensor 'l'"
    longspan check named.out named.out --names o=0,lse=log
    holds "check of two results: their names" grep -q '^compared (o, lse): ok' stdout
    longspan check named.out usual.out --names o=0
    holds "check of two results: a name that one has not" refused "usual.out: holds no tensor '0'"
    printf '\000\000\200?\000\000\000@\000\000\200\277\000\000\000\000' |
        safetensors '{"s":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},
            "t":{"dtype":"F32","shape":[0],"data_offsets":[16,16]}}' >sinks.in
    longspan attend --input usual.in $options --sinks sinks.in --names sinks=s --verify
    holds "a name of sinks" verified
}

# ---- a single sequence, whose batch of one nobody wrote down

half() { head -c "$(($1 / 2))" "$2"; }
{ npy_header '<V2' False "1, 300, 4, 16"; half $q_bytes q.raw; } >q1.npy
{ npy_header '<V2' False "300, 4, 16"; half $q_bytes q.raw; } >qs.npy
for tensor in k v; do
    { npy_header '<V2' False "300, 2, 16"; half $k_bytes $tensor.raw; } >${tensor}s.npy
done
gradients="--backward --sinks=1,0,-1,2"
# shellcheck disable=SC2086 # several options
{
    longspan attend --q q1.npy --k ks.npy --v vs.npy $options $gradients --out one.out
    longspan attend --q qs.npy --k ks.npy --v vs.npy $options $gradients --out single.out
    for shape in 300,4,16 4,300 300,2,16; do
        holds "results of shape $shape" grep -q "\"shape\":\[$shape\]" single.out
    done
    data=$((300 * (2 * 4 * 16 * 2 + 2 * 2 * 16 * 2 + 4 * 4) + 4 * 4)) # o, dq; dk, dv; lse; dsinks
    tail -c $data one.out >expected
    tail -c $data single.out >other.out
    same "the same bytes" expected
    longspan check --q q1.npy --k ks.npy --v vs.npy --order bshd --causal --sinks=1,0,-1,2 \
        --result single.out
    holds "check: a result of a single sequence" verified
    longspan check --q q.npy --k k.npy --v v.npy --order bshd --causal --sinks=1,0,-1,2 \
        --result single.out
    holds "check: two are more" refused "single.out: shape is 300,4,16, the input asks for 2,300"
}

# ---- no keys: o and gradients are 0, lse -inf

npy_header '<V2' False "2, 0, 2, 16" >none.npy
none="--q q.npy --k none.npy --v none.npy --causal --threads 1"
{
    zeros $q_bytes
    for _ in $(seq 2400); do printf '\000\000\200\377'; done
    zeros $q_bytes
} >expected
# shellcheck disable=SC2086 # several options
{
    longspan attend $none --backward --verify --out none.out
    holds "no keys" verified
    tail -c $((2 * q_bytes + 2400 * 4)) none.out >other.out
    same "no keys: o, lse, dq; dk and dv have no bytes" expected
    longspan check $none --result none.out
    holds "no keys: check" verified
    longspan check none.out none.out
    holds "no keys: check of two results" grep -q '^compared (o, lse, dq, dk, dv): ok' stdout
    longspan plan attend --random 2,4,2,300,0,16 --ranks 3 --backward
    holds "no keys: plan" test "$status" -eq 0
    if has_mpi; then
        on_ranks 3 attend $none --backward --strict --verify --out other.out
        holds "3 ranks: no keys" verified
        same "3 ranks: no keys" none.out
        on_ranks 3 attend $none --method ulysses --backward --sinks=1,0,-1,2 --verify
        holds "3 ranks: no keys, but sinks" verified
    fi
}

# ---- q, k and v packed in one tensor

# packed Q_BYTES K_BYTES [Q K V]: pieces of q, k and v, one of each after the other
packed()
{
    q=${3-q.raw} k=${4-k.raw} v=${5-v.raw}
    rm -rf pieces
    mkdir pieces
    split -a 4 -b "$1" "$q" pieces/q.
    split -a 4 -b "$2" "$k" pieces/k.
    split -a 4 -b "$2" "$v" pieces/v.
    for tensor in q k v; do
        find pieces -name "$tensor.*" | sort >$tensor.list
    done
    paste -d '\n' q.list k.list v.list | xargs cat
}
# tensor NAME SHAPE: a file of the bytes of stdin
tensor() { safetensors "{$(entry "$1" "$2" 0 $((q_bytes + 2 * k_bytes)))}"; }
heads="--heads 4 --kv-heads 2"
packed 128 64 >s3hd.raw
packed 64 32 >sgd.raw
{ npy_header '<V2' False "2, 300, 128"; cat s3hd.raw; } >s3hd.npy
tensor qkv 2,300,8,16 <s3hd.raw >s3hd.in
tensor qkv 2,300,2,4,16 <sgd.raw >sgd.in
tensor w 2,300,2,64 <sgd.raw >w.in
alone=$options
options="--causal --threads 1"
# shellcheck disable=SC2086 # several options
{
    means_usual_on_ranks "s3hd" --input s3hd.in --packed s3hd $heads
    means_usual "s3hd in one dimension, .npy" --input s3hd.npy --packed s3hd $heads
    means_usual_on_ranks "sgd" --input sgd.in --packed sgd $heads
    means_usual "sgd under another name, in two" --input w.in --packed sgd $heads --names qkv=w
    longspan check --input sgd.in --packed sgd $heads --causal --result usual.out
    holds "check: packed" verified
    longspan attend --input sgd.in --packed s3hd $heads $options --quiet
    holds "sgd is not s3hd" refused "sgd.in: .*shape is 2,300,2,4,16: no s3hd of 4 heads and 2"
    longspan attend --input s3hd.npy --packed sh3d $heads
    holds "sh3d has no groups" refused "as many heads of k as of q; .*sgd"
    longspan attend --input s3hd.npy --packed s3hd
    holds "heads have to be said" refused "--packed s3hd needs --heads"
    longspan attend --input s3hd.npy --packed s3hd --heads 4 --kv-heads 3
    holds "groups have to fit" refused "--heads 4 is no multiple of --kv-heads 3"
    longspan attend --input usual.in --heads 4
    holds "heads of what is not packed" refused "are of --packed"
    longspan attend --input s3hd.npy --packed s3hd $heads --order bshd
    holds "an order of what is packed" refused "--packed and --order"
    longspan attend --q q.npy --k k.npy --v v.npy --packed s3hd $heads
    holds "--packed without --input" refused "--packed is of the tensor qkv"
    longspan attend --input s3hd.in
    holds "packed without a word of it" refused "no tensor 'q'; it holds 'qkv'.*--packed"
}
tensor qkv 800,8,12 <s3hd.raw >both.in
longspan attend --input both.in --packed s3hd --heads 4 --kv-heads 2 --quiet --causal
holds "one reading: 800 positions, no batch" test "$status" -eq 0
tensor qkv 300,16,16 <s3hd.raw >both.in
longspan attend --input both.in --packed s3hd --heads 8 --kv-heads 4
holds "two readings" refused "batch 1 of 300 positions, head dim 16, or batch 300 of 16, head dim 1: save it as .b, s, h . 2 h_kv, d"

# of each head q, k and v: those of k and v, which have as many heads
cat k.raw v.raw k.raw | safetensors "{$(entry q 2,300,2,16 0 $k_bytes),$(
    entry k 2,300,2,16 $k_bytes $((2 * k_bytes))),$(
    entry v 2,300,2,16 $((2 * k_bytes)) $((3 * k_bytes)))}" >heads.in
{ npy_header '<V2' False "2, 300, 2, 3, 16"; packed 32 32 k.raw v.raw k.raw; } >sh3d.npy
# shellcheck disable=SC2086 # several options
longspan attend --input heads.in $alone --out usual.out
means_usual "sh3d" --input sh3d.npy --packed sh3d --heads 2

exit "$failed"
