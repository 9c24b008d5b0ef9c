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

from bars import MIB, Runner, add_launcher  # noqa: E402

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


PLOTS = {"memory-by-length": memory_by_length, "memory-by-ranks": memory_by_ranks}


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
