#!/bin/sh
# shellcheck disable=SC2154 # variables of the harness
# A control group that allows less memory or processor time than the machine has is seen and named:
# what cannot fit is refused, not killed, and by default there are as many threads as it has time for.
# Threads without processors, for a launcher has bound the rank to fewer, are worth a line.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
unset OMP_NUM_THREADS
groups=
trap 'rmdir $groups 2>/dev/null; rm -rf "$work"' EXIT

# make_group CONTROLLER: $group is a new one below that of this test, by either version.
make_group()
{
    own=$(sed -nE "s/^[0-9]+:([a-z]+,)*$1(,[a-z]+)*:(.*)/\3/p" /proc/self/cgroup)
    mount=$(awk -v word="(^|,)$1(,|\$)" '/ - cgroup / && $NF ~ word { print $5; exit }' \
        /proc/self/mountinfo)
    if [ -z "$mount" ]; then
        own=$(sed -n 's/^0:://p' /proc/self/cgroup)
        mount=$(awk '/ - cgroup2 / { print $5; exit }' /proc/self/mountinfo)
    fi
    group=$mount$own
    [ -d "$group" ] || group=$mount
    echo "+$1" 2>/dev/null >"$group/cgroup.subtree_control"
    group=$group/longspan-test-$$-$1
    mkdir "$group" 2>/dev/null && groups="$groups $group"
}

# limit VALUE FILE...: that of the group, in the file that there is
limit()
{
    value=$1
    shift
    for file; do
        [ ! -e "$group/$file" ] || { echo "$value" 2>/dev/null >"$group/$file" && return 0; }
    done
    return 1
}

# in_group COMMAND...
in_group()
{
    # shellcheck disable=SC2016 # of the shell that is started
    run sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@"
}

# says NAME STATUS PATTERN STREAM: judges the last run.
says()
{
    if [ "$status" -eq "$2" ] && grep -qE -e "$3" "$work/$4"; then
        passed "$1"
    else
        fails "$1: status $status, or no '$3'"
    fi
}

if make_group memory && limit 157286400 memory.max memory.limit_in_bytes; then
    name="/longspan-test-$$-memory: 150 MiB"
    in_group "$LONGSPAN" info
    says "150 MiB are seen" 0 "^memory +1[34][0-9] MiB available \(limit of cgroup .*$name\)" stdout
    in_group "$LONGSPAN" attend --random 1,8,8,65536,65536,64
    says "more is refused" 3 \
        "^longspan attend: not enough memory: 1 rank .*available \(limit of cgroup .*$name\)" stderr
    task="--random 1,8,8,8192,8192,64 --causal --backward --threads 2"
    # shellcheck disable=SC2086 # several words
    longspan plan attend $task --json -
    planned=$(sed -nE 's/.*"bytes_per_rank": *([0-9]+).*/\1/p' "$work/stdout" | head -n 1)
    limit $((planned + 2097152)) memory.max memory.limit_in_bytes
    # shellcheck disable=SC2086 # several words
    in_group "$LONGSPAN" attend $task
    says "what would fit, but not the process, too" 3 "not enough memory: .*limit of cgroup" stderr
else
    echo "SKIPPED: memory of a control group: none can be made here"
fi

if make_group cpu && { limit "100000 100000" cpu.max || limit 100000 cpu.cfs_quota_us; }; then
    in_group "$LONGSPAN" info
    says "the time of one processor: one thread" 0 "^threads +1 a rank" stdout
    says "the group is named" 0 "limit of cgroup .*/longspan-test-$$-cpu: 1 processor\$" stdout
    in_group env OMP_NUM_THREADS=3 "$LONGSPAN" info
    says "OMP_NUM_THREADS wins" 0 "^threads +3 a rank" stdout
    in_group "$LONGSPAN" attend --random 1,1,1,64,64,16 --threads 2
    says "--threads wins" 0 "1 rank x 2 threads" stdout
else
    echo "SKIPPED: processors of a control group: none can be made here"
fi

# hint NAME COUNT PATTERN: judges how often the last run hinted at how it is bound.
hint()
{
    if [ "$status" -eq 0 ] && [ "$(grep -c "bound to 1 of .*$3" "$work/stderr")" -eq "$2" ]; then
        passed "$1"
    else
        fails "$1: status $status, or not $2 times '$3'"
    fi
}

small="--random 1,1,1,64,64,16"
# shellcheck disable=SC2086 # several words
if [ "$(nproc)" -gt 1 ] && run taskset -c 0 true && [ "$status" -eq 0 ]; then
    run taskset -c 0 "$LONGSPAN" attend $small --threads 2
    hint "two threads on one processor" 1 "2 threads; .*--bind-to none .*PE=2.*--cpus-per-task=2"
    run taskset -c 0 "$LONGSPAN" attend $small --threads 2 --quiet
    hint "quietly" 0
    run taskset -c 0 "$LONGSPAN" attend $small
    hint "one thread on one processor" 0
    longspan attend $small --threads $(($(nproc) + 1))
    hint "more threads than there are processors, not bound" 0
    if has_mpi && "$LONGSPAN" info | grep -q 'Open MPI'; then
        run "$MPIEXEC" -n 1 "$LONGSPAN" bench attend $small --repeat 1
        hint "one core by default" 1 "1 thread; .*--bind-to none"
        run "$MPIEXEC" --bind-to core -n 1 "$LONGSPAN" bench attend $small --repeat 1
        hint "one core as asked for" 0
        run env OMP_NUM_THREADS=1 "$MPIEXEC" -n 1 "$LONGSPAN" bench attend $small --repeat 1
        hint "one thread as asked for" 0
        run "$MPIEXEC" --oversubscribe -n 2 "$LONGSPAN" attend $small --threads 3
        hint "ranks of three threads on a core each" 1 "3 threads; .*PE=3"
    fi
else
    echo "SKIPPED: ranks bound to fewer processors than they have threads"
fi

exit "$failed"
