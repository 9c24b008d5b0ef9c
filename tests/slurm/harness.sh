# shellcheck shell=sh disable=SC2034,SC2154 # variables are for the test that sources this
# A SLURM cluster of two nodes for the test that sources this. Both nodes are this machine, each
# with all of its cores, and the daemons are ours alone: own folder, own authentication service,
# free ports. All of it is gone when the test ends. Without SLURM, or not as root, it is skipped.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
PATH=$PATH:/usr/sbin:/sbin

skip()
{
    echo "SKIPPED: $*"
    exit 77
}

for daemon in munged slurmctld slurmd sbatch; do
    command -v $daemon >/dev/null || skip "there is no $daemon (Debian: munge and slurm-wlm)"
done
[ "$(id -u)" -eq 0 ] || skip "only root can start a SLURM cluster"
"$LONGSPAN" info | grep -q 'Open MPI' || skip "this is tried with Open MPI only"

# No trace of a cluster that this machine may be a part of.
for name in $(env | sed -nE 's/^((SLURM|SBATCH|SRUN|SALLOC|PMIX?|OMPI)_[A-Za-z0-9_]*)=.*/\1/p'); do
    unset "$name"
done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
# Two nodes of one host would take the same names for their shared memory.
export OMPI_MCA_btl=self,tcp

machine=$(slurmd -C | sed -n 's/^NodeName=[^ ]* //p') # CPUs=2 Boards=1 SocketsPerBoard=1 ...
machine_has() { expr " $machine " : ".* $1=\([0-9]*\) "; }
cores=$(($(machine_has Boards) * $(machine_has SocketsPerBoard) * $(machine_has CoresPerSocket)))
[ "$cores" -ge 2 ] || skip "this needs two cores"

# wait_for SECONDS COMMAND...: whether the command holds before that time is over.
wait_for()
{
    deadline=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

# ---- start and stop

# What belongs to the cluster, jobs included, has its SLURM_CONF in the environment; this does not.
processes()
(
    unset SLURM_CONF
    grep -lzxF "SLURM_CONF=$work/slurm.conf" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
)
none_left() { [ -z "$(processes)" ]; }
send()
{
    # shellcheck disable=SC2046 # process numbers
    kill -s "$1" $(processes) 2>/dev/null
}

# The time limits of make leave ten seconds for this.
stop_cluster()
{
    exec 2>/dev/null # where shells report what was killed
    send TERM
    wait_for 4 none_left || send KILL
    wait_for 2 none_left || echo "left running: $(processes)"
    rm -rf "$work"
}
trap stop_cluster EXIT
trap 'exit 1' HUP INT TERM

# free_ports COUNT: the first of that many TCP ports in a row that nobody has in use here.
free_ports()
{
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v count="$1" -v start=$$ '
        { used[substr($2, index($2, ":") + 1)] = 1 }
        END {
            # below those that the kernel hands out, and elsewhere for each test
            for (first = 10000 + start * 7 % 20000; free < count; first++)
                for (free = 0; free < count; free++)
                    if (sprintf("%04X", first + free) in used) break
            print first - 1
        }'
}

configure()
{
    port=$(free_ports 3)
    host=$(hostname)
    cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$work/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool.%n
TmpFS=$work/tmp.%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.%n.log
NodeName=node[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 2))] $machine
PartitionName=all Nodes=ALL Default=YES
END
}

authentication_works() { munge -n -S "$work/munge.socket" >/dev/null 2>&1; }
nodes_are_idle() { [ "$(timeout 5 sinfo -h -t idle -o %D 2>/dev/null)" = 2 ]; }

start_cluster()
{
    export SLURM_CONF="$work/slurm.conf"
    mkdir "$work/state" "$work/tmp" "$work/tmp.node1" "$work/tmp.node2"
    export TMPDIR="$work/tmp"
    configure
    (umask 077 && head -c 128 /dev/urandom >"$work/munge.key")
    munged --foreground --force --socket="$work/munge.socket" --key-file="$work/munge.key" \
        --pid-file="$work/munged.pid" --seed-file="$work/munge.seed" \
        --log-file="$work/munged.log" >"$work/munged.out" 2>&1 &
    wait_for 20 authentication_works || cluster_fails "munged does not answer"
    slurmctld -D -i >"$work/slurmctld.out" 2>&1 &
    for node in node1 node2; do
        slurmd -D -N $node >"$work/slurmd.$node.out" 2>&1 &
    done
    wait_for 60 nodes_are_idle || cluster_fails "the nodes do not come up"
}

cluster_fails()
{
    echo "not ok - the cluster: $*"
    sed "s/^/    slurm.conf: /" "$SLURM_CONF"
    for log in "$work"/*.out; do
        tail -n 30 "$log" | sed "s|^|    ${log##*/}: |"
    done
    exit 1
}

# ---- jobs

# field NAME: of the last job
field() { timeout 10 scontrol -o show job "$id" | sed -n "s/.* $1=\([^ ]*\).*/\1/p"; }
has_ended()
{
    case $(field JobState) in
    '' | PENDING | CONFIGURING | RUNNING | COMPLETING) return 1 ;;
    esac
}

# job ARGUMENT...: submits and waits. The state and the exit status, as in "COMPLETED 0:0", are in
# $ended, the output is $work/stdout.
job()
{
    rm -f "$work/stdout"
    id=$(timeout 30 sbatch --parsable --output="$work/stdout" "$@" 2>"$work/stderr") || {
        ended="not submitted"
        return
    }
    wait_for "${LS_TEST_TIMEOUT-120}" has_ended
    ended="$(field JobState) $(field ExitCode)"
    timeout 10 scancel -Q "$id"
}
