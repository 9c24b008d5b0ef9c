#!/bin/sh
# shellcheck disable=SC2154 # variables of the harness
# A trace is what its readers expect (valid, a process for each rank, events that nest and follow
# each other) and tells the truth: its tiles and bytes are those of the report, each message is sent
# and received, tiles run while messages travel, and the ranks' clocks agree.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
command -v python3 >/dev/null || { echo "SKIPPED: no python3 to read JSON"; exit 77; }
cd "$work" || exit 99

cat >judge.py <<'EOF_JUDGE'
# judge.py RANKS THREADS REPEATS: of t.json and j.json
import collections, json, sys

ranks, threads, repeats = map(int, sys.argv[1:])
trace, report = json.load(open("t.json")), json.load(open("j.json"))
names = [e for e in trace["traceEvents"] if e["ph"] == "M"]
events = [e for e in trace["traceEvents"] if e["ph"] != "M"]
lines = collections.defaultdict(list)
for e in events:
    lines[e["pid"], e["tid"]].append(e)


def total(what, of):
    return sum(e["args"].get(what, 0) for e in events if of(e["name"]))


def messages(name, peer, flip):
    return sorted((e["args"][peer], e["pid"])[::flip] + (e["args"]["bytes"],)
                  for e in events if e["name"] == name)


def nests(line):
    open_until = []
    now = 0
    for e in line:
        begin, end = round(1000 * e["ts"]), round(1000 * (e["ts"] + e["dur"]))
        if begin < now or end < begin:
            return False
        now = begin
        while open_until and open_until[-1] <= begin:
            open_until.pop()
        if open_until and end > open_until[-1]:
            return False
        open_until.append(end)
    return True


def hides(rank):
    """Between each message's start and the next wait a tile begins."""
    computed = True
    for e in sorted((e for e in events if e["pid"] == rank), key=lambda e: e["ts"]):
        if e["name"] == "send":
            computed = False
        computed = computed or e["name"] == "tile"
        if e["name"] == "wait" and not computed:
            return False
    return True


def span(rank):
    line = lines[rank, 0]
    return line[0]["ts"], max(e["ts"] + e["dur"] for e in line)


kinds = {e["name"] for e in events}
other = trace["otherData"]
spans = [span(r) for r in range(ranks)]
checks = {
    "one process for each rank": sorted(e["pid"] for e in names if e["name"] == "process_name")
        == list(range(ranks)),
    "each thread has a name": sorted((e["pid"], e["tid"]) for e in names
        if e["name"] == "thread_name") == [(r, t) for r in range(ranks) for t in range(threads)],
    "only complete events": {e["ph"] for e in events} == {"X"},
    "events of a thread nest and follow each other": all(map(nests, lines.values())),
    "tiles, packs and finishes or merges": kinds >= {"tile", "pack", "forward"}
        and kinds & {"finish", "merge"},
    "tiles as reported": total("tiles", "tile".__eq__) == repeats * report["tiles_computed"],
    "bytes as reported": total("bytes", "receive".__ne__) == repeats * report["bytes_sent"],
    "each message is sent and received":
        messages("send", "to", -1) == messages("receive", "from", 1),
    "messages and waits": ranks == 1 or report["method"] == "local" or "wait" in kinds,
    "the ring hides messages": report["method"] != "ring" or all(map(hides, range(ranks))),
    "one clock": max(s[0] for s in spans) < min(s[1] for s in spans),
    "counted": other["events"] == len(events) and other["dropped"] == 0,
    "about this run": other["ranks"] == ranks and other["threads"] == threads,
}
for check, holds in checks.items():
    if not holds:
        print("not so:", check)
sys.exit(not all(checks.values()))
EOF_JUDGE

# judged NAME RANKS THREADS REPEATS: the last run and its trace
judged()
{
    if [ "$status" -eq 0 ] && python3 -B judge.py "$2" "$3" "$4" >"$work/stdout" 2>&1; then
        passed "$1"
    else
        fails "$1"
    fi
    rm -f t.json j.json
}

# ---- one process

task="--random 1,4,2,1300,1300,32 --causal --quiet"
traced="$task --trace t.json --json j.json"
# shellcheck disable=SC2086
{
    longspan attend $traced --threads 1 --out traced.safetensors
    judged "one thread" 1 1 1
    longspan attend $traced --threads 3 --repeat 2
    judged "three threads, twice" 1 3 2
    longspan attend --random 1,1,1,100,6000,32 --quiet --trace t.json --json j.json --threads 2
    judged "few queries, whose keys are split" 1 2 1
    longspan attend $task --threads 1 --out untraced.safetensors
    if cmp -s traced.safetensors untraced.safetensors; then
        passed "a trace changes no bit"
    else
        fails "a trace changes no bit"
    fi
}

# 66,000 heads of one query: two events each, and a thread has room for 131,072
longspan attend --random 1,66000,66000,1,1,1 --threads 1 --trace t.json
if [ "$status" -eq 0 ] && grep -q '^longspan attend: t.json: .*events' "$work/stderr" &&
    tail -n 1 t.json | grep -q '"events":131072,"dropped":[1-9]'; then
    passed "events beyond the limit are counted and told"
else
    fails "events beyond the limit are counted and told"
fi

# ---- several ranks

has_mpi || { echo "SKIPPED: several ranks, there is no MPI launcher"; exit "$failed"; }
methods=$("$LONGSPAN" methods | awk '$1 == "method" { exit } $1 != "local" { print $1 }')
for method in $methods; do
    window=
    [ "$method" != halo ] || window="--window 300,0"
    # shellcheck disable=SC2086
    on_ranks 2 attend $traced --threads 1 --method "$method" $window
    judged "$method on two ranks" 2 1 1
done
# shellcheck disable=SC2086
on_ranks 3 attend $traced --threads 2 --method ring --repeat 2
judged "three ranks of two threads, twice" 3 2 2

# Two clocks, of which one is a day ahead.
ahead="unshare --time --monotonic 86400"
if $ahead true 2>/dev/null; then
    for rank in 0 1; do
        if [ $rank -eq 0 ]; then first=$ahead second=''; else first='' second=$ahead; fi
        # shellcheck disable=SC2086
        run "$MPIEXEC" $MPIEXEC_FLAGS -n 1 $first "$LONGSPAN" attend $traced --threads 1 : \
            -n 1 $second "$LONGSPAN" attend $traced --threads 1
        judged "the clock of rank $rank is ahead" 2 1 1
    done
else
    echo "SKIPPED: clocks that differ: unshare --time is not allowed"
fi

exit "$failed"
