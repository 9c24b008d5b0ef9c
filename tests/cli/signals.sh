#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# A signal at any moment leaves whole files or none, and nothing else; one line tells whether
# anything was written, and the process ends by the signal. What nobody can catch leaves at most
# what the next start for the same target removes.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99
mkdir out
job="attend --random 1,2,2,6000,6000,64 --threads 1 --out out/o.safetensors --json out/j.json --trace out/t.json"

# start RANKS: the job, each process of which writes its number into pid.RANK
start()
{
    ranks=$1
    # shellcheck disable=SC2016 # for the shell that is started
    set -- sh -c 'echo $$ >pid.${OMPI_COMM_WORLD_RANK-${PMI_RANK-0}}; exec "$@"' sh "$LONGSPAN"
    # shellcheck disable=SC2086 # several words
    if [ "$ranks" -gt 1 ]; then
        run "$MPIEXEC" $MPIEXEC_FLAGS -n "$ranks" "$@" $job
    else
        run "$@" $job
    fi
}

left() { find out ! -type d; }

# begun RANKS: waits for the process; of several, for their file, since a launcher may hang if one
# of them dies while it starts
begun()
{
    until [ -s pid.0 ]; do sleep 0.01; done
    until [ "$1" -eq 1 ] || [ -n "$(left)" ]; do sleep 0.01; done
}

# interrupt RANKS SIGNAL RANK SECONDS: starts the job and sends the signal to one of its processes,
# so long after it began
interrupt()
{
    rm -rf pid.* out
    mkdir out
    { begun "$1"; sleep "$4"; kill -s "$2" "$(cat "pid.$3")"; } 2>/dev/null &
    start "$1"
    wait
}

# whole RANKS: each file that is there is one that the job writes, to its end
whole()
{
    find out -mindepth 1 >files
    while read -r file; do
        case $file in
        out/o.safetensors) cmp -s "$file" "o.$1" ;;
        out/j.json) sed '/^$/d' "$file" | tail -n 1 | grep -q '^}$' ;;
        out/t.json) tail -n 1 "$file" | grep -q '"dropped":0}}$' ;;
        *) false ;;
        esac || return 1
    done <files
}

# told: no more than one line, and a true one
told()
{
    grep '^longspan' stderr >lines
    [ "$(wc -l <lines)" -le 1 ] || return 1
    ! grep -q 'nothing was written' lines || [ -z "$(left)" ]
}

ended_by()
{
    case $1 in HUP) number=1 ;; INT) number=2 ;; TERM) number=15 ;; *) number=24 ;; esac
    [ "$status" -eq $((128 + number)) ]
}
says() { [ "$(grep -cE "^longspan attend: SIG$1( while [a-z]+)?: nothing was written" stderr)" -eq 1 ]; }
clean() { [ -z "$(left)" ]; }

# seconds RANKS: from when the job has begun until its last file is there; keeps its result
seconds()
{
    rm -rf pid.* out
    mkdir out
    { begun "$1"; date +%s.%N; until [ -e out/j.json ]; do sleep 0.01; done; date +%s.%N; } >dates &
    start "$1"
    wait
    cp out/o.safetensors "o.$1"
    awk 'NR == 2 { print $1 - began } { began = $1 }' dates
}

# part_of SECONDS: a random part of them
part_of() { od -An -N2 -tu2 /dev/urandom | awk -v most="$1" '{ print $1 / 65536 * most }'; }

kills=0 wrong=0
for ranks in 1 2; do
    [ "$ranks" -eq 1 ] || has_mpi || continue
    most=$(seconds "$ranks")
    for signal in TERM INT HUP XCPU TERM INT HUP XCPU TERM INT; do
        kills=$((kills + 1))
        rank=$((kills % ranks))
        delay=$(part_of "$most")
        interrupt "$ranks" $signal $rank "$delay"
        if ! whole "$ranks" || ! told || { [ "$status" -ne 0 ] && ! ended_by $signal; }; then
            fails "SIG$signal to rank $rank of $ranks after $delay s: status $status, left $(left)"
            wrong=$((wrong + 1))
        fi
    done
done
holds "$kills kills" [ "$wrong" -eq 0 ]

# ---- in the midst of a computation of minutes

job=$(echo "$job" | sed 's/6000,6000/200000,200000/')
for signal in TERM INT; do
    interrupt 1 $signal 0 1.5
    holds "SIG$signal ends the process" ended_by $signal
    holds "SIG$signal: a line says so" says $signal
    holds "SIG$signal leaves nothing" clean
done

# Nobody reads what is said, and more than one signal comes.
mkfifo nobody
# shellcheck disable=SC2016,SC2086 # for the shell that is started; several words
sh -c 'echo $$ >pid.1; exec "$@" 2>nobody' sh "$LONGSPAN" $job &
started=$!
: <nobody
until [ -s pid.1 ]; do sleep 0.01; done
sleep 1
kill -s TERM "$started"
kill -s INT "$started" 2>/dev/null
ended() { ! kill -0 "$started" 2>/dev/null; }
for _ in $(seq 100); do ended || sleep 0.1; done
holds "two signals, and nobody to tell, end the process" ended
kill -s KILL "$started" 2>/dev/null
wait "$started"
run env nohup sh -c 'echo $$ >pid.0; exec "$@"' sh "$LONGSPAN" attend --random 1,1,1,8,8,8 --quiet
holds "nohup still works" [ "$status" -eq 0 ]

# SIGKILL: the file without a name is gone, and what had one goes at the next start
for ranks in 1 2; do
    [ "$ranks" -eq 1 ] || has_mpi || continue
    interrupt $ranks KILL 0 1.5
    [ -z "$(find out -name '?*.safetensors' ! -name '.*')" ] || fails "SIGKILL: a result is there"
    longspan attend --random 1,1,1,8,8,8 --quiet --out out/o.safetensors --json out/j.json \
        --trace out/t.json
    holds "$ranks ranks: what SIGKILL leaves is swept" [ "$(left | wc -l)" -eq 3 ]
done

# What a living process writes is not swept: its own target would never be.
if has_mpi; then
    rm -rf pid.* out
    mkdir out
    {
        begun 2
        left | sort >before
        "$LONGSPAN" attend --random 1,1,1,8,8,8 --quiet --out out/o.safetensors
        left | sort >after
        kill "$(cat pid.0)"
    } &
    start 2
    wait
    holds "what a living process writes is not swept" [ -z "$(comm -23 before after)" ]
fi
exit "$failed"
