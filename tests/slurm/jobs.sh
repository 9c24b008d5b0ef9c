#!/bin/sh
# shellcheck disable=SC2086,SC2154 # options are several words; variables of the harness
# The job scripts on a SLURM cluster, with srun and with mpirun: ranks, threads and cores are those
# asked for, the program is found, its results are there, and a job fails when the program does,
# with the same exit status.
jobs=$(cd "${srcdir-.}/jobs" && pwd) || exit 99
# shellcheck source=/dev/null
. "${srcdir-.}/tests/slurm/harness.sh"
mkdir "$work/submit" "$work/bin" && cd "$work/submit" || exit 99
program=$LONGSPAN
small="--random 1,2,1,600,600,64 --causal"
one_core_each="--ntasks-per-node=2 --cpus-per-task=1"
few_variables="--export=LONGSPAN,LAUNCHER,OMPI_ALLOW_RUN_AS_ROOT,OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"

# ends NAME STATE STATUS PATTERN...: judges the last job by its end and by what it printed.
ends()
{
    name=$1
    [ "$ended" = "$2 $3:0" ] || { fails "$name: $ended"; return; }
    shift 3
    for pattern in "$@"; do
        grep -qE -e "$pattern" "$work/stdout" || { fails "$name: no '$pattern'"; return; }
    done
    passed "$name"
}

# bound RANKS CORES: judges a job whose ranks each ran $work/bin/bound. A core may be more than one
# processor.
bound()
{
    processors="($2|$(($2 * $(machine_has ThreadsPerCore))))"
    [ "$(grep -cE "^$processors processors, $2 threads\$" "$work/stdout")" -eq "$1" ] ||
        ended="not on all $1 ranks"
    ends "$LAUNCHER: $1 ranks, each bound to $2 of the cores" COMPLETED 0
}

# script FILE: a program that stands in for longspan, from standard input
script()
{
    cat >"$1"
    chmod +x "$1"
}
script "$work/bin/bound" <<'END'
#!/bin/sh
echo "$(env -u OMP_NUM_THREADS nproc) processors, $OMP_NUM_THREADS threads"
END
script "$work/bin/one-ends" <<'END'
#!/bin/sh
[ "$PMIX_RANK" -eq 0 ] || exit 3
sleep 600
END

script "$work/bin/one-later" <<'END'
#!/bin/sh
[ "$PMIX_RANK" -ne 0 ] || sleep 1
exit 2
END

# The second rank stands still once it computes.
script "$work/bin/one-stops" <<END
#!/bin/sh
[ "\$PMIX_RANK" -ne 1 ] || { sleep 4; kill -s STOP \$\$; } &
exec "$program" "\$@"
END

start_cluster
echo "two nodes: $machine"

for launcher in srun mpirun; do
    export LAUNCHER=$launcher LONGSPAN="$program"

    job "$jobs/attend.sbatch" $small --verify
    ends "$launcher: a rank a node, a thread a core" COMPLETED 0 \
        "over 2 ranks x $cores threads?$" "^verified: ok"

    job $one_core_each "$jobs/attend.sbatch" --input missing.safetensors
    ends "$launcher: bad input" FAILED 2 "^longspan attend: missing.safetensors: "

    export LONGSPAN="$work/bin/bound"
    job "$jobs/attend.sbatch"
    bound 2 "$cores"
    job $one_core_each $few_variables "$jobs/attend.sbatch"
    bound 4 1

    export LONGSPAN="$work/bin/one-later"
    job "$jobs/attend.sbatch"
    ends "$launcher: all fail alike, one of them a second later" FAILED 2

    export LONGSPAN="$work/bin/one-ends"
    job "$jobs/attend.sbatch"
    case $ended in
    "FAILED "*) passed "$launcher: one rank that ends takes the others with it" ;;
    *) fails "$launcher: one rank that ends takes the others with it: $ended" ;;
    esac
done

# ---- ranks that do not find each other

export LAUNCHER=srun LONGSPAN="$program" SLURM_MPI_TYPE=none
job $one_core_each "$jobs/attend.sbatch" $small --out none.safetensors
[ ! -e none.safetensors ] || ended="$ended, and somebody wrote a result"
[ "$(grep -c '^longspan attend: ' "$work/stdout")" -eq 4 ] || ended="$ended, not a line each"
ends "srun without PMI" FAILED 2 "^longspan attend: 4 processes .*SLURM_.*srun --mpi=pmix"

export LONGSPAN_SINGLE=1
job $one_core_each "$jobs/attend.sbatch" $small --verify
[ "$(grep -c '^verified: ok' "$work/stdout")" -eq 4 ] || ended="$ended, not verified four times"
ends "srun without PMI: four runs on their own" COMPLETED 0 "over 1 rank x 1 thread"
unset SLURM_MPI_TYPE LONGSPAN_SINGLE

# ---- a rank that is silent

export LONGSPAN="$work/bin/one-stops"
export TIMEOUT=2
job "$jobs/attend.sbatch" --random 1,2,2,8192,8192,64 --method ring --repeat 1000000 --quiet
ends "a stopped rank" FAILED 3 "^longspan attend: rank 0 waits.* for rank 1, of which it has heard"
unset TIMEOUT

# ---- which program

unset LONGSPAN
script "$work/bin/longspan" <<'END'
#!/bin/sh
echo "in PATH: $*"
END
PATH=$work/bin:$PATH
job "$jobs/attend.sbatch"
ends "without options, longspan in PATH" COMPLETED 0 \
    "^in PATH: attend --timeout 300 --random 1,8,8,1048576,1048576,64 --causal --verify$"

script longspan <<'END'
#!/bin/sh
echo "here: $*"
END
export TIMEOUT=60
job "$jobs/attend.sbatch" --input "one file"
ends "with options, longspan here" COMPLETED 0 "^here: attend --timeout 60 --input one file$"
unset TIMEOUT

export LONGSPAN="$work/none"
for script in attend bench layer; do
    job "$jobs/$script.sbatch"
    ends "$script: no program" FAILED 2 "^$script.sbatch: there is no program $work/none;"
done

export LONGSPAN="$program" LAUNCHER=rsh
job "$jobs/attend.sbatch"
ends "no launcher" FAILED 2 "^attend.sbatch: LAUNCHER is 'rsh'"

# ---- a layer

export LAUNCHER=srun
job $one_core_each "$jobs/layer.sbatch" --hidden 64 --heads 4 --seq 600 --tp 2 --cp 2 --sp --verify
ends "layer: four ranks" COMPLETED 0 "^ranks +2 tensor \(and sequence\) x 2 context" "^verified: ok"

export LONGSPAN="$work/bin/longspan"
job "$jobs/layer.sbatch"
ends "layer: without options, all ranks" COMPLETED 0 \
    "^in PATH: bench layer --timeout 300 --hidden 1024 --heads 16 --seq 32768 --causal --cp 2$"
export LONGSPAN="$program"

# ---- measurements

# results FOLDER: the names of those that are of two ranks
results() { (cd "$1" && grep -lE '"ranks": *2,?' ./*.json | tr -d '\n'); }

export LAUNCHER=srun BENCH_ATTEND="$small --repeat 1" BENCH_COMM="--largest 1K"
job "$jobs/bench.sbatch"
[ "$(results "longspan-bench-$id")" = ./attend.json./comm.json./gemm.json./info.json ] ||
    ended="results are $(results "longspan-bench-$id")"
ends "bench: all results" COMPLETED 0 "^== longspan info" "^== longspan bench attend"

export RESULTS="$work/results" BENCH_GEMM="--size 0,0,0"
job "$jobs/bench.sbatch"
[ "$(results "$RESULTS")" = ./info.json ] || ended="results are $(results "$RESULTS")"
ends "bench: none after one that fails" FAILED 2 "^longspan bench gemm: --size"

exit "$failed"
