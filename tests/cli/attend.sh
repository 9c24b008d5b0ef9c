#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# What a user of the command relies on: `attend` verified, its JSON and its files; the same numbers
# for any number of ranks and either order; `check` passes what is right and finds what is not.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99
mkdir out

succeeded() { [ "$status" -eq 0 ]; }
found_wrong() { [ "$status" -eq 1 ] && tail -n 1 stdout | grep -q 'FAILED'; }
verified() { succeeded && tail -n 1 stdout | grep -q '^verified: ok'; }
stdout_has() { succeeded && grep -qE -e "$1" stdout; }
silent() { succeeded && [ ! -s stdout ] && [ ! -s stderr ]; }

# ---- the main job, its text and its JSON

random="--random 1,4,2,1000,1000,64,7 --causal"
names="method layout ranks threads isa seconds gflops gflops_per_thread gemm_gflops_per_thread
    bytes_sent exposed_comm_seconds ledger_peak_bytes rss_peak_bytes tile_q tile_k tiles_computed
    verify rel_o max_units abs_lse ok"

# shellcheck disable=SC2086
longspan attend $random --verify --json a.json --out out/a.safetensors
holds "attend, verified" verified
for name in $names; do
    holds "JSON names $name" grep -q "\"$name\": *[^ ,]" a.json
done
holds "JSON: verified" grep -q '"ok": *true' a.json
# shellcheck disable=SC2086
longspan attend $random --verify=8 --json -
holds "--json -: standard output is the object" stdout_has '^\{'
holds "--json -: the text goes to standard error" grep -q '^verified: ok' stderr
# shellcheck disable=SC2086
longspan attend $random --quiet --repeat 3
holds "--quiet" silent

# shellcheck disable=SC2086
longspan attend $random --method auto --layout auto
holds "--method auto and --layout auto are the defaults" stdout_has '^method +local'
longspan attend --random 1,1,1,4,1,16 --verify
holds "one key: no element errs" stdout_has 'no element errs'

for dtype in f32 f16; do
    # shellcheck disable=SC2086
    longspan attend $random --dtype $dtype --verify --out out/$dtype.safetensors
    holds "--dtype $dtype, verified" verified
    upper=$(echo $dtype | tr f F)
    holds "--dtype $dtype: o has that type" \
        grep -qa "\"o\":{\"dtype\":\"$upper\"" out/$dtype.safetensors
done
longspan attend --random 2,3,1,1,700,40 --scale 0.3 --threads 2 --verify
holds "one query, 700 keys, head dim 40, a scale" verified
for scale in 1e8 -1e9 1e30; do
    longspan attend --random 1,2,2,300,300,64 --scale $scale --verify
    holds "logits that f32 counts in steps above one, scale $scale" verified
done
longspan attend --random 1,1,1,64,1,128,4 --dtype f32 --scale 1 --verify
holds "rows that see one key, f32" verified
longspan attend --random 1,2,2,600,300,16 --causal --verify
holds "rows that see no key" verified

# ---- two results

# shellcheck disable=SC2086
longspan attend $random --out out/again.safetensors
holds "the same command gives the same bytes" cmp out/a.safetensors out/again.safetensors
longspan check out/a.safetensors out/again.safetensors
holds "check: equal results" succeeded
if has_mpi; then
    for ranks in 2 3; do
        # shellcheck disable=SC2086
        on_ranks $ranks attend $random --verify --threads 1 --out out/p$ranks.safetensors
        holds "$ranks ranks, verified" verified
        longspan check out/a.safetensors out/p$ranks.safetensors
        holds "check: $ranks ranks beside 1" succeeded
    done
    OMP_THREAD_LIMIT=1 # fewer threads than the kernel asks for: nobody waits for the others
    export OMP_THREAD_LIMIT
    # shellcheck disable=SC2086
    on_ranks 2 attend $random --threads 2 --method ring --verify
    holds "two ranks that get one thread for two" verified
    unset OMP_THREAD_LIMIT
    # shellcheck disable=SC2086
    on_ranks 2 attend $random --threads 1 --method ring --layout striped --json -
    holds "--method and --layout are obeyed" stdout_has '"layout": *"striped"'
    holds "bytes are counted" stdout_has '"bytes_sent": *[1-9]'
else
    echo "SKIPPED: several ranks, there is no MPI launcher"
fi

# ---- files: q, k, v in both orders; 700 positions, so that the order shows

# qkv ORDER Q_SHAPE KV_SHAPE: 1 batch, 4 heads, 2 key/value heads, head dim 32
qkv()
{
    q_bytes=$((700 * 4 * 32 * 2)) k_bytes=$((700 * 2 * 32 * 2))
    k_end=$((q_bytes + k_bytes))
    { bf16 0 1 700 4 32 "$1"; bf16 1 1 700 2 32 "$1"; bf16 2 1 700 2 32 "$1"; } | safetensors "{
        \"q\":{\"dtype\":\"BF16\",\"shape\":[$2],\"data_offsets\":[0,$q_bytes]},
        \"k\":{\"dtype\":\"BF16\",\"shape\":[$3],\"data_offsets\":[$q_bytes,$k_end]},
        \"v\":{\"dtype\":\"BF16\",\"shape\":[$3],\"data_offsets\":[$k_end,$((k_end + k_bytes))]}}"
}
qkv bshd 1,700,4,32 1,700,2,32 >bshd.safetensors
qkv bhsd 1,4,700,32 1,2,700,32 >bhsd.safetensors

for order in bshd bhsd; do
    longspan attend --input $order.safetensors --order $order --causal --verify \
        --out out/$order.safetensors
    holds "order $order, verified" verified
    longspan attend --input $order.safetensors --causal --out out/guess.safetensors
    holds "order $order is guessed" cmp out/$order.safetensors out/guess.safetensors
    longspan check --input $order.safetensors --result out/$order.safetensors --causal
    holds "check: the result in order $order" succeeded
    tail -c $((4 * 700 * 4)) out/$order.safetensors >$order.lse
done
holds "both orders give the same numbers" cmp bshd.lse bhsd.lse

# spoil BITS: the result with one element of o replaced
spoil()
{
    header=$(od -An -tu8 -N8 out/bshd.safetensors)
    cp out/bshd.safetensors spoiled.safetensors
    little_endian 2 "$1" |
        dd of=spoiled.safetensors bs=1 seek=$((8 + header + 2 * 54321)) conv=notrunc 2>/dev/null
}
spoil 0x4000 # 2, where |o| < 1
longspan check --input bshd.safetensors --result spoiled.safetensors --causal
holds "check: finds one wrong element" found_wrong
longspan check out/bshd.safetensors spoiled.safetensors
holds "check: finds it beside another result" found_wrong
spoil 0x7fc0
longspan check --input bshd.safetensors --result spoiled.safetensors --causal
holds "check: finds a NaN" found_wrong
longspan check --input bshd.safetensors --result out/bshd.safetensors
holds "check: finds that the mask was forgotten" found_wrong

# ---- what is no number

# rows SHAPE BITS...: f32 numbers, 4 of each of the bits
rows()
{
    npy_header '<f4' False "$1"
    shift
    for bits; do little_endian 4 "$bits" >number; cat number number number number; done
}
told() { [ "$status" -eq 1 ] && tail -n 1 stdout | grep -q "FAILED, $1"; }

one=0x3f800000 nan=0x7fc00000
rows 1,3,1,4 $one $one $one >ones.npy
rows 1,3,1,4 $nan $nan $nan >nothing.npy
rows 1,3,1,4 $one $nan $one >some.npy
for q in nothing some; do
    longspan attend --q $q.npy --k ones.npy --v ones.npy --order bshd --allow-nonfinite --verify \
        --out out/$q.safetensors
    case $q in
    some) holds "rows of numbers beside one of NaN, verified" verified ;;
    *) holds "a result of NaN alone is not verified" told 'o: nothing finite was compared' ;;
    esac
done
longspan check --q nothing.npy --k ones.npy --v ones.npy --order bshd --allow-nonfinite \
    --result out/nothing.safetensors
holds "check: a result of NaN alone" told 'o: nothing finite was compared'
longspan check out/nothing.safetensors out/nothing.safetensors --json why.json
holds "check: two results of NaN alone" told 'o: nothing finite was compared'
holds "JSON: why" grep -q '"why": *"nothing finite was compared"' why.json
longspan check out/some.safetensors out/some.safetensors
holds "check: two results with NaN in the same place" succeeded
longspan check out/some.safetensors out/nothing.safetensors
holds "check: numbers and NaN" told 'o: an error is beyond its limit'
longspan attend --random 1,1,1,4,4,16 --causal --query-offset=-9 --verify --out out/empty.safetensors
holds "no row sees a key, verified" verified
longspan check out/empty.safetensors out/empty.safetensors
holds "check: no row sees a key" succeeded

# ---- targets that exist

longspan attend --input bshd.safetensors --causal --out out/again.safetensors
holds "an existing file is replaced" cmp out/bshd.safetensors out/again.safetensors
mkfifo pipe
timeout 60 cat pipe >through-pipe & # opening a pipe that nobody writes would wait for ever
longspan attend --input bshd.safetensors --causal --out pipe
wait
holds "a pipe is written" cmp out/bshd.safetensors through-pipe
holds "a pipe stays a pipe" [ -p pipe ]
holds "no temporary file stays" [ -z "$(find out ! -type d ! -name '*.safetensors')" ]

# ---- the other subcommands

longspan info
holds "info names the instruction set" stdout_has '^isa +(amx|avx|generic)'
holds "info names the library that multiplies" stdout_has '^products +(oneDNN [23]\.[0-9]+\.[0-9]+|own products)$'
holds "info names the MPI library" stdout_has '^mpi +([A-Z].* v?[0-9]+\.[0-9]|a build without MPI)'
longspan methods
holds "methods" stdout_has 'ring'
longspan plan attend --random 1,8,8,65536,65536,64 --causal --ranks 4
for method in local allgather ring ring2 halo ulysses usp allreduce tree; do
    holds "plan tells of $method" stdout_has "$method"
done
longspan bench gemm --json -
holds "bench gemm" stdout_has '"gflops": *[1-9]'
longspan bench attend --random 1,2,2,512,512,64 --json -
holds "bench attend" stdout_has '"gemm_gflops_per_thread": *[1-9]'

exit "$failed"
