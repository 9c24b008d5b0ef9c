# shellcheck shell=sh disable=SC2034 # variables are for the tests that source this
# What the tests of the command share: a work folder that vanishes, the command run alone and on
# several ranks, files to feed it, and the count of what failed. A test ends with `exit "$failed"`.
# LONGSPAN, MPIEXEC and MPIEXEC_FLAGS come from make; the defaults serve a run by hand.
export LC_ALL=C OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
LONGSPAN=${LONGSPAN-$PWD/longspan}
MPIEXEC=${MPIEXEC-mpirun}
MPIEXEC_FLAGS=${MPIEXEC_FLAGS---oversubscribe --bind-to none}
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT
failed=0

# passed NAME, fails NAME: the verdict on a case; what the command printed explains a failure.
passed() { echo "ok - $1"; }
fails()
{
    echo "not ok - $1"
    for stream in stdout stderr; do
        [ ! -s "$work/$stream" ] || sed "s/^/    $stream: /" "$work/$stream"
    done
    failed=1
    [ -z "${CRITERION_FAIL_FAST-}" ] || exit 1 # one is enough, as for the other tests
}

# holds NAME COMMAND...: a condition as a test case
holds()
{
    name=$1
    shift
    if "$@"; then passed "$name"; else fails "$name"; fi
}

# run COMMAND...: keeps stdout, stderr and the exit status; an answer is due within a minute.
run()
{
    timeout -k 5 "${LS_TEST_TIMEOUT-60}" "$@" >"$work/stdout" 2>"$work/stderr" </dev/null
    status=$?
}

# longspan ARGUMENT..., on_ranks N ARGUMENT...: run the command, alone or on N ranks.
longspan() { run "$LONGSPAN" "$@"; }
on_ranks()
{
    ranks=$1
    shift
    # shellcheck disable=SC2086 # the flags are several words
    run "$MPIEXEC" $MPIEXEC_FLAGS -n "$ranks" "$LONGSPAN" "$@"
}

has_mpi() { [ -n "$MPIEXEC" ] && command -v "$MPIEXEC" >/dev/null; }

# little_endian BYTES NUMBER: the number as that many bytes.
little_endian()
{
    left=$1 number=$2
    while [ "$left" -gt 0 ]; do
        printf %b "\\0$(printf %o $((number & 255)))"
        number=$((number >> 8)) left=$((left - 1))
    done
}

# zeros BYTES
zeros() { head -c "$1" /dev/zero; }

# repeated BYTES: so many bytes of what stdin has, over and over
repeated()
{
    cat >"$work/repeated"
    while [ "$(wc -c <"$work/repeated")" -lt "$1" ]; do
        cat "$work/repeated" "$work/repeated" >"$work/twice"
        mv "$work/twice" "$work/repeated"
    done
    head -c "$1" "$work/repeated"
}

# safetensors HEADER: a .safetensors file on stdout; what stdin has follows the header.
safetensors()
{
    little_endian 8 ${#1}
    printf %s "$1"
    cat
}

# bf16 TENSOR B S H D ORDER: bf16 numbers between -2 and 2 on stdout, in the order bshd or bhsd. A
# number depends on its batch, position, head and element, so that both orders hold the same tensor.
bf16()
{
    awk -v t="$1" -v nb="$2" -v ns="$3" -v nh="$4" -v nd="$5" -v order="$6" '
        function put(b, s, h, e,    x)
        {
            x = (((((t * 3 + b) * 5003 + s) * 37 + h) * 263 + e) * 48271) % 2147483647
            x = (x * 16807) % 2147483647
            printf "%c%c", x % 256, (int(x / 256) % 2 ? 61 : 189) + int(x / 512) % 3
        }
        BEGIN {
            for (b = 0; b < nb; b++)
                for (i = 0; i < (order == "bshd" ? ns : nh); i++)
                    for (j = 0; j < (order == "bshd" ? nh : ns); j++)
                        for (e = 0; e < nd; e++)
                            if (order == "bshd") put(b, i, j, e); else put(b, j, i, e)
        }'
}

# npy_header DESCR FORTRAN SHAPE
npy_header()
{
    header="{'descr': '$1', 'fortran_order': $2, 'shape': ($3), }"
    printf '\223NUMPY\001\000'
    little_endian 2 ${#header}
    printf %s "$header"
}

# integers NUMBER...: a .npy file of int64 on stdout
integers()
{
    npy_header '<i8' False "$#,"
    for integer; do little_endian 8 "$integer"; done
}

# table COLUMNS NUMBER...: a .npy file of int64 [n, COLUMNS] on stdout
table()
{
    columns=$1
    shift
    npy_header '<i8' False "$(($# / columns)), $columns"
    for integer; do little_endian 8 "$integer"; done
}
