#!/usr/bin/env python3
"""Draws the plots of docs/plots with gnuplot: memory as planned, time as measured here.

`bench/plots/draw.py` draws all, `--only NAME` one. Curves of memory come from `longspan plan
model`, those of time from `longspan bench` on this machine: these differ from run to run.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))

from bars import MIB, Runner, add_launcher, problem  # noqa: E402

GIB = 1 << 30

# Schemes of Korthikanti et al. 2022, with the core that they had. What selective recomputation keeps
# is what a fused core keeps, but for LSE.
SCHEMES = {
    "tensor parallel": "",
    "with sequence parallelism": "--sp",
    "and selective recomputation (or a fused core)": "--sp --recompute selective",
    "full recomputation": "--sp --recompute full",
}

AXES = "set logscale x 2; set logscale y 10; set format y '%h'"


def kept(longspan, scheme, s=2048, t=8):
    """MiB of activations that a layer of gpt-22b keeps on a rank, one sequence."""
    plan = longspan(f"plan model --preset gpt-22b --batch 1 --seq {s} --tp {t} "
                    f"--core materialized {scheme}",
                    threads=None)
    return sum(row["bytes"] for row in plan["layer"] if row["kept"]) / MIB


def memory_by_length(longspan):
    """A layer of 22B on 8 tensor-parallel ranks, by the length of its sequence"""
    lengths = [1024 << i for i in range(8)]
    yield (AXES, 'set xlabel "tokens of a sequence"',
           'set ylabel "MiB kept by a layer on a rank"')
    for name, scheme in SCHEMES.items():
        yield name, [(s, kept(longspan, scheme, s=s)) for s in lengths]


def memory_by_ranks(longspan):
    """A layer of 22B with 2048 tokens, by tensor-parallel ranks"""
    yield (AXES, 'set xlabel "tensor-parallel ranks"',
           'set ylabel "MiB kept by a layer on a rank"')
    for name, scheme in SCHEMES.items():
        yield name, [(t, kept(longspan, scheme, t=t)) for t in (1, 2, 4, 8, 16, 32, 64)]


def frontier(longspan):
    """GPT-3 on 64 ranks, materialized, with SP: what computing again costs, by a rank's bytes"""
    plan = longspan("plan model --preset gpt-175b --interleave 1 --sp --core materialized --rate 150 "
                    "--bandwidth 1700 --recompute auto --memory 80GiB", threads=None)
    yield ('set xlabel "GiB of a rank"', 'set ylabel "ms of a micro-batch spent on it"')
    yield "each layer its own pieces", [(point["bytes_per_rank"] / GIB, 1e3 * point["seconds"])
                                        for point in plan["frontier"]]


def steps(longspan):
    """A layer of width 1024, 16 heads, 2048 tokens on this machine: its step, by what it keeps"""
    yield ('set xlabel "MiB kept"', 'set ylabel "ms forward and backward"')
    for core in ("materialized", "fused"):
        points = []
        for pieces in ("none", "selective", "activation", "norm,activation", "core",
                       "core,norm,activation", "core,norm,mlp", "full"):
            run = longspan("bench layer --hidden 1024 --heads 16 --seq 2048 --repeat 5 "
                           f"--core {core} --recompute {pieces}", threads=2)
            points.append((run["activation_kept_measured"] / MIB, 1e3 * run["seconds"]))
        yield f"{core} core", sorted(points)


def attention(longspan):
    """Causal attention of 4 heads of 64 on this machine, bf16, by the length of its sequence"""
    yield ("set logscale x 2", 'set xlabel "tokens"', 'set ylabel "GF/s"', "set yrange [0:*]")
    lengths = [1024 << i for i in range(6)]
    for threads in (1, 2):
        yield f"{threads} threads", [
            (s, longspan(f"bench attend {problem(s, 4, 64, True)} --repeat 3", threads=threads)
             ["gflops"]) for s in lengths]
    yield "2 ranks of a thread, ring", [
        (s, longspan(f"bench attend {problem(s, 4, 64, True)} --repeat 3 --method ring", ranks=2)
         ["gflops"]) for s in lengths]


PLOTS = {
    "memory-by-length": memory_by_length,
    "memory-by-ranks": memory_by_ranks,
    "frontier": frontier,
    "steps": steps,
    "attention": attention,
}


def draw(path, title, setting, curves):
    """One plot of curves, (name, points) each, as SVG."""
    data = [f"$curve{i} << end\n" + "\n".join(f"{x} {y}" for x, y in points) + "\nend"
            for i, (_, points) in enumerate(curves)]
    lines = [f'$curve{i} using 1:2 with linespoints linewidth 2 title "{name}"'
             for i, (name, _) in enumerate(curves)]
    script = ["set terminal svg size 800,500 background rgb 'white'", f"set output '{path}'",
              f'set title "{title}"', "set grid", "set key outside below", *setting, *data,
              "plot " + ", ".join(lines)]
    subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=True)


def main():
    """Draws what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    add_launcher(parser.add_argument)
    parser.add_argument("--only", action="append", choices=PLOTS)
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=ROOT / "docs" / "plots")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    longspan = Runner(options)
    for name in options.only or PLOTS:
        setting, *curves = PLOTS[name](longspan)
        draw(options.out / f"{name}.svg", PLOTS[name].__doc__, setting, curves)


if __name__ == "__main__":
    main()
