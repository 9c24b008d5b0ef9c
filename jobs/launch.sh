# shellcheck shell=sh disable=SC2154 # submitted, the job's script, is set by who sources this
# What the job scripts share: the program, its threads, and launch, which starts the ranks.

fail()
{
    echo "${submitted##*/}: $*" >&2
    exit 2
}

if [ -z "${LONGSPAN-}" ]; then
    LONGSPAN=longspan
    [ ! -x ./longspan ] || LONGSPAN=./longspan
fi
command -v "$LONGSPAN" >/dev/null || fail "there is no program $LONGSPAN; set LONGSPAN to its path"

# With --hint=nomultithread a CPU of SLURM is a core.
cores=${SLURM_CPUS_PER_TASK-$((SLURM_CPUS_ON_NODE / SLURM_NTASKS_PER_NODE))}
export OMP_NUM_THREADS="$cores"
export OMP_PLACES="${OMP_PLACES-cores}" OMP_PROC_BIND="${OMP_PROC_BIND-close}"
# `sbatch --export` says what this script gets; the ranks get all that it has.
export SLURM_EXPORT_ENV=ALL

# Since SLURM 22.05, srun does not take the cores of a task over from sbatch. Ranks that fail alike
# are given time to end by themselves: of one that is killed the exit status would be 143.
# SLURM's other fences, tree and mixed, let some ranks out of MPI_Init before all have come: then one
# that is still in it gets a message, and Open MPI crashes.
launch()
{
    case ${LAUNCHER-srun} in
    srun)
        SRUN_CPUS_PER_TASK=$cores SLURM_PMIX_FENCE="${SLURM_PMIX_FENCE-ring}" \
            srun --mpi="${SLURM_MPI_TYPE-pmix}" --cpu-bind=cores --kill-on-bad-exit=0 --wait=10 "$@"
        ;;
    mpirun) mpirun --map-by "ppr:$SLURM_NTASKS_PER_NODE:node:pe=$cores" --bind-to core "$@" ;;
    *) fail "LAUNCHER is '$LAUNCHER', not srun or mpirun" ;;
    esac
}
