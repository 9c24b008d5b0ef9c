#!/usr/bin/env python3
"""Longspan beside an earlier commit of itself: what a change did to speed.

`bench/vs_commit.py COMMIT` builds that commit in a folder of its own, which is kept in the user's
cache; `--against PATH` takes a program that is built already.
The two run in turns, round by round, the one that starts changing; a ratio is the best of one over
the best of the other. Noise only adds time, so a case that is under the bar gets up to five times
as many rounds. Exit status 1 if a ratio stays under the bar.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bars import Row, Runner, add_launcher, best, problem

ROOT = Path(__file__).resolve().parent.parent


def cases():
    """What is timed: a name, a command, ranks, threads."""
    for dtype in ("bf16", "f16", "f32"):
        for d in (64, 128):
            for causal in (False, True):
                shape = f"{problem(4096, 2, d, causal)} --dtype {dtype}"
                name = f"{dtype}, d {d}, {'causal' if causal else 'full'}"
                yield f"forward {name}", f"{shape} --repeat 5", 1, 1
                yield f"backward {name}", f"{shape} --backward --repeat 2", 1, 1
    long = problem(16384, 4, 64, True)
    for method in ("ring", "ulysses", "allgather", "allreduce"):
        yield f"{method}, 2 ranks, causal", f"{long} --method {method} --repeat 2", 2, 1
        yield (f"{method}, 2 ranks, causal, backward",
               f"{long} --method {method} --backward --repeat 1", 2, 1)
    yield "two threads, causal", f"{long} --repeat 3", 1, 2
    yield "strict ring, 2 ranks", f"{long} --method ring --strict --repeat 2", 2, 1
    yield ("strict ring, 2 ranks, backward",
           f"{long} --method ring --strict --backward --repeat 1", 2, 1)
    yield "window 1024", f"{problem(32768, 1, 64, True)} --window 1023,0 --repeat 3", 1, 1
    yield "ALiBi", f"{problem(4096, 2, 64, True)} --alibi --repeat 5", 1, 1
    yield "soft cap", f"{problem(4096, 2, 64, True)} --soft-cap 30 --repeat 5", 1, 1
    yield ("soft cap, backward",
           f"{problem(4096, 2, 64, True)} --soft-cap 30 --backward --repeat 2", 1, 1)
    yield "dropout", f"{problem(4096, 2, 64, True)} --dropout 0.1 --repeat 3", 1, 1
    yield "decode", f"{problem(65536, 8, 128, s_q=1)} --order bhsd --repeat 10", 1, 1
    yield "many short", "--random 32,12,12,256,256,64 --causal --repeat 10", 1, 2


def built(commit):
    """The program of a commit, built if it is not there yet."""
    name = subprocess.run(["git", "-C", ROOT, "rev-parse", f"{commit}^{{commit}}"],
                          stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    tree = cache / "longspan" / f"commit-{name[:12]}"
    program = tree / "build" / "longspan"
    if not program.exists():
        subprocess.run(f"""rm -rf '{tree}' && git clone -q '{ROOT}' '{tree}' && cd '{tree}' &&
            git checkout -q {name} && ./bootstrap && mkdir -p build && cd build &&
            ../configure -q --disable-shared --disable-tests && make -s -j {os.cpu_count()}""",
                       shell=True, stdout=sys.stderr, check=True)
    return program


def compare(name, command, ranks, threads, sides):
    """The row of one case; sides are this program and the other one."""
    key = "backward_seconds" if "--backward" in command else "seconds"
    runs, rounds, row = ([], []), sides[0].rounds, None
    for turn in range(5 * rounds):
        if turn >= rounds and row.verdict() == "met":
            break
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            runs[side].append(sides[side](f"bench attend {command}", ranks=ranks, threads=threads))
        ours, theirs = (best(results, key) for results in runs)
        row = Row(name, f"{1e3 * ours:.2f} ms", f"{1e3 * theirs:.2f} ms", theirs / ours,
                  sides[0].bar)
    return row


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    add = parser.add_argument
    add("commit", nargs="?", help="what to compare with")
    add("--against", metavar="PATH", help="a program to compare with, instead of a commit")
    add("--bar", type=float, default=0.98, help="the least ratio (%(default)s)")
    add("--only", metavar="TEXT", default="", help="cases whose names have this in them")
    add_launcher(add)
    options = parser.parse_args()
    if (options.commit is None) == (options.against is None):
        parser.error("expected a commit or --against")
    return options


def main():
    """Prints each row as soon as it is there."""
    options = arguments()
    sides = Runner(options), Runner(options)
    sides[1].program = str(Path(options.against or built(options.commit)).resolve())
    sides[0].bar = options.bar
    print(f"{'ratio':>6}  {'here':>10}  {'there':>10}  what")
    missed = 0
    for case in cases():
        if options.only not in case[0]:
            continue
        row = compare(*case, sides)
        missed += row.verdict() == "MISSED"
        print(f"{row.value:6.3f}  {row.ours:>10}  {row.theirs:>10}  {row.what}"
              f"{'  MISSED' if row.verdict() == 'MISSED' else ''}", flush=True)
    print(f"\n{missed} under {options.bar}")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
