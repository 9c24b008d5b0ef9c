#!/bin/sh
# shellcheck disable=SC2086,SC2154 # several words; $status is set in harness.sh
# --timeout: a job in which a rank is killed or stopped, or whose link is cut, ends with status 3 and
# says who waited for whom; one with a rank that is only slow is waited for. (Of kernels that
# never end, or are slow, see tests/mpi/test_timeout.c.)
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"

skip()
{
    echo "SKIPPED: $*"
    exit 77
}

has_mpi || skip "there is no MPI launcher"
"$LONGSPAN" info | grep -q 'Open MPI' || skip "its launcher is told things that are Open MPI's own"

# Each rank leaves the number of its process. The launcher, which would end the job by itself, is not
# to know of one that is killed.
cat >"$work/rank" <<'END'
#!/bin/sh
"$@" &
echo $! >"$0.$OMPI_COMM_WORLD_RANK"
wait $!
status=$?
[ $status -ne 137 ] || sleep 60
exit $status
END
chmod +x "$work/rank"

# More than a minute of ring steps of a fraction of a second each.
endless="attend --random 1,2,2,8192,8192,64 --dtype f32 --method ring --repeat 1000000 --threads 1"

# start LAUNCHER...: a job that goes on until something happens to it, in the background;
# returns when they compute.
start()
{
    rm -f "$work"/rank.?
    timeout -k 5 "${LS_TEST_TIMEOUT-60}" "$@" \
        "$work/rank" "$LONGSPAN" $endless --quiet --timeout 2 >"$work/stdout" 2>"$work/stderr" </dev/null &
    job=$!
    for rank in 0 1; do
        until [ -s "$work/rank.$rank" ] || ! kill -0 $job 2>/dev/null; do sleep 0.1; done
    done
    sleep 2
}

# ends NAME: judges the job of start
ends()
{
    wait $job
    status=$?
    [ $status -eq 3 ] || { fails "$1: exit status $status"; return; }
    grep -qE "longspan attend: rank [0-2] waits( in (ring forward|computing), step [0-9]+)? for rank $silent, of which it has heard nothing for [0-9]+ s \(the timeout is 2 s\), [0-9]+ bytes outstanding; last heard of: rank" \
        "$work/stderr" || { fails "$1: the message"; return; }
    passed "$1"
}

silent=1
start "$MPIEXEC" $MPIEXEC_FLAGS -n 3
kill -s STOP "$(cat "$work/rank.1")"
ends "a stopped rank"

start "$MPIEXEC" $MPIEXEC_FLAGS -n 3
kill -s KILL "$(cat "$work/rank.1")"
ends "a killed rank"

# ---- a rank that is slow

# It stands still for half of the timeout again and again, and for much longer than it altogether.
start "$MPIEXEC" $MPIEXEC_FLAGS -n 3
pulses=0
while [ $pulses -lt 5 ]; do
    kill -s STOP "$(cat "$work/rank.1")"
    sleep 1
    kill -s CONT "$(cat "$work/rank.1")"
    sleep 0.2
    pulses=$((pulses + 1))
done
if kill -0 $job 2>/dev/null; then passed "a slow rank"; else fails "a slow rank"; fi
kill $job
wait $job

# ---- a link that is cut

# Two hosts are two network namespaces, joined by a link for data and one for the launcher.
a=longspan-a-$$ b=longspan-b-$$
join()
{
    ip link add "$1a$$" netns $a type veth peer name "$1b$$" netns $b &&
        ip -n $a addr add "$2.1/24" dev "$1a$$" && ip -n $a link set "$1a$$" up &&
        ip -n $b addr add "$2.2/24" dev "$1b$$" && ip -n $b link set "$1b$$" up
}
make_hosts()
{
    [ "$(id -u)" -eq 0 ] && command -v ip >/dev/null && ip netns add $a && ip netns add $b &&
        ip -n $a link set lo up && ip -n $b link set lo up &&
        join d 10.77.0 && join l 10.78.0
}

# on_host NAME COMMAND: the launcher's way to another host. Each has its own name, too.
cat >"$work/on_host" <<'END'
#!/bin/sh
host=$1
shift
exec ip netns exec "$host" unshare -u sh -c "hostname $host; $*"
END
chmod +x "$work/on_host"

if make_hosts 2>"$work/stderr"; then
    trap 'ip netns delete $a; ip netns delete $b; rm -rf "$work"' EXIT
    start "$work/on_host" $a "$MPIEXEC" -n 2 --host "$a,$b" --map-by node --bind-to none \
        --mca plm_rsh_agent "$work/on_host" --mca btl tcp,self \
        --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.78.0.0/24
    ip -n $a link set "da$$" down
    silent="[01]"
    ends "a link that is cut"
else
    sed "s/^/    /" "$work/stderr"
    echo "SKIPPED: a link that is cut: this needs root, iproute2 and network namespaces"
fi

exit "$failed"
