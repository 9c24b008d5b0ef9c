#!/usr/bin/env python3
"""Longspan beside PyTorch, oneDNN's matrix products and itself: the bars of speed, memory, error.

All figures are ratios of things measured in turns, round by round, in one run; each is the best
of its rounds. `--markdown FILE` puts the tables into FILE (docs/PERFORMANCE.md), in the place of
those of the last run. `--without-amx` hides the AMX unit from both sides, for the bars of machines
without one. Exit status 1 if a bar is missed. Torch comes from a cached environment (5 GB, once).
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import cached_venv  # noqa: E402

import family  # noqa: E402
import layer  # noqa: E402
from bars import MIB, Row, Runner, add_launcher, best, cpu_flags, problem  # noqa: E402

# MKL, which PyTorch calls for bf16, has its own switch. E2 is its best without AMX: E3 adds the
# AVX512_BF16 instructions and was slower than E2 on the CPUs tried.
WITHOUT_AMX = {
    "LONGSPAN_ISA": "avx512bf16",
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
    "MKL_ENABLE_INSTRUCTIONS": "AVX512_E2",
}


def torch_sdpa(dtype, s, h, d, causal):
    """A function that runs PyTorch's attention once, on one thread, and gives the seconds."""
    import torch  # here: environment variables that it reads are set in main

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    numbers = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[dtype]
    q, k, v = (torch.randn(1, h, s, d).to(numbers) for _ in range(3))

    def run():
        start = perf_counter()
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return perf_counter() - start

    run()
    return run


def one_thread(longspan):
    """Against PyTorch's sdpa and the share of the matrix product's rate, s 4096, h 2.

    The bars of f16 and of the share are for machines without AMX."""
    bars = {"bf16": 2.0, "f32": 1.15, "f16": 1.5}
    shares = {(64, False): 0.75, (128, False): 0.80, (64, True): 0.65, (128, True): 0.70}
    cases = [(dtype, d, causal) for dtype in bars for d in (64, 128) for causal in (False, True)]
    for dtype, d, causal in cases:
        command = f"bench attend {problem(4096, 2, d, causal)} --dtype {dtype} --repeat 5"
        sdpa = torch_sdpa(dtype, 4096, 2, d, causal)
        ours, theirs = [], []
        for _ in range(longspan.rounds):
            ours.append(longspan(command))
            theirs += [sdpa() for _ in range(5)]
        what = f"{dtype}, d {d}, {'causal' if causal else 'full'}"
        rate, gemm = (best(ours, key + "gflops_per_thread") for key in ("", "gemm_"))
        faster = min(theirs) / best(ours, "seconds")
        yield Row(f"{what}: over sdpa", f"{rate:.0f} GF/s", f"{rate / faster:.0f} GF/s",
                  faster, None if dtype == "f16" and longspan.amx else bars[dtype])
        share_bar = shares[d, causal] if dtype == "bf16" and not longspan.amx else None
        yield Row(f"{what}: over oneDNN's GEMM", f"{rate:.0f} GF/s", f"{gemm:.0f} GF/s",
                  rate / gemm, share_bar)


def two_threads(longspan):
    """Two threads over one, beside the same of two independent GEMM threads; bf16, s 8192, d 64."""
    for h in (4, 1):
        for causal in (False, True):
            command = f"bench attend {problem(8192, h, 64, causal)} --repeat 3"
            runs = {(name, t): [] for name in ("gemm", "attend") for t in (1, 2)}
            for _ in range(longspan.rounds):
                for (name, t), results in runs.items():
                    run = longspan("bench gemm" if name == "gemm" else command, threads=t)
                    results.append(run)
            gemm, ours = (best(runs[name, 2], "gflops") / best(runs[name, 1], "gflops")
                          for name in ("gemm", "attend"))
            yield Row(f"h {h}, {'causal' if causal else 'full'}", f"{ours:.2f} x", f"{gemm:.2f} x",
                      ours / gemm, 0.95)


def over_local(longspan, method, bar):
    """A method on 2 ranks of 1 thread over local, 1 rank of 2 threads; s 16384, h 4, d 64."""
    for causal in (False, True):
        command = f"bench attend {problem(16384, 4, 64, causal)} --repeat 3"
        local, split = [], []
        for _ in range(longspan.rounds):
            local.append(longspan(command + " --method local", threads=2))
            split.append(longspan(f"{command} --method {method}", ranks=2))
        ours, theirs = best(split, "gflops"), best(local, "gflops")
        yield Row("causal" if causal else "full", f"{ours:.0f} GF/s", f"{theirs:.0f} GF/s",
                  ours / theirs, bar)


def ring(longspan):
    """Ring, 2 ranks of 1 thread, over local, 1 rank of 2 threads; bf16, s 16384, h 4, d 64."""
    yield from over_local(longspan, "ring", 0.95)


def ulysses(longspan):
    """Ulysses, 2 ranks of 1 thread, over local, 1 rank of 2 threads; bf16, s 16384, h 4, d 64."""
    yield from over_local(longspan, "ulysses", 0.93)


def strict(longspan):
    """Strict over fast; bf16, s 8192, h 4, d 64, one thread a rank."""
    for ranks, bar in (1, 0.93), (2, 0.88):
        for causal in (False, True):
            command = f"bench attend {problem(8192, 4, 64, causal)} --repeat 3"
            command += " --method ring" if ranks > 1 else " --method local"
            pinned, fast = [], []
            for _ in range(longspan.rounds):
                pinned.append(longspan(command + " --strict", ranks=ranks))
                fast.append(longspan(command, ranks=ranks))
            ours, theirs = best(pinned, "gflops"), best(fast, "gflops")
            yield Row(f"{ranks} ranks, {'causal' if causal else 'full'}", f"{ours:.0f} GF/s",
                      f"{theirs:.0f} GF/s", ours / theirs, bar)


def allreduce(longspan):
    """All-reduce over ring where 64 queries meet 262144 keys, beside what `plan` predicts of it."""
    shape = problem(262144, 4, 64, s_q=64)
    runs = {method: [] for method in ("ring", "allreduce")}
    predicted = {method: [] for method in runs}
    for _ in range(longspan.rounds):
        for method, results in runs.items():
            results.append(longspan(f"bench attend {shape} --repeat 5 --method {method}", ranks=2))
        plan = longspan(f"plan attend {shape} --measure", ranks=2)
        for row in plan["methods"]:
            if row["method"] in predicted:
                predicted[row["method"]].append(row["seconds"])
    ring_seconds, seconds = (best(runs[method], "seconds") for method in runs)
    plan_ratio = min(predicted["ring"]) / min(predicted["allreduce"])
    ratio = ring_seconds / seconds
    yield Row("allreduce over ring", f"{1e3 * seconds:.1f} ms", f"{1e3 * ring_seconds:.1f} ms",
              ratio, 1.0)
    yield Row("off what plan predicts, either way", f"{ratio:.2f} x", f"{plan_ratio:.2f} x",
              max(ratio / plan_ratio, plan_ratio / ratio), 1.25, at_most=True)


def context_parallel(longspan):
    """Ring, 2 ranks of 1 thread, over PyTorch's two ways; bf16, full, s 4096, h 4, d 64."""
    script = [sys.executable, str(ROOT / "bench" / "context_parallel.py")]
    command = f"bench attend {problem(4096, 4, 64)} --method ring --repeat 8"
    ours, theirs = [], []
    for _ in range(longspan.rounds):
        ours.append(longspan(command, ranks=2))
        theirs.append(json.loads(subprocess.run(
            script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout))
    seconds = best(ours, "seconds")
    for way, note in ("context_parallel", "public"), ("ring", "its ring, called directly"):
        least = min(run[way] for run in theirs)
        yield Row(f"over context_parallel ({note})", f"{1e3 * seconds:.1f} ms",
                  f"{1e3 * least:.1f} ms", least / seconds, None if longspan.amx else 2.5)


def memory(longspan):
    """Peak resident memory of each of 2 ranks; bf16, causal, s 262144, h 1, d 64."""
    s, d, ranks = 262144, 64, 2
    run = longspan(f"attend {problem(s, 1, d, causal=True)} --method ring", ranks=ranks)
    share = 4 * 2 * s * d // ranks
    limit = 3 * share + 150 * MIB
    peak = run["rss_peak_bytes"]
    yield Row("over 3 x its q, k, v, o + 150 MiB", f"{peak / MIB:.0f} MiB",
              f"{limit / MIB:.0f} MiB", peak / limit, 1.0, at_most=True)


def errors(longspan):
    """Relative error of o against the oracle, f32 storage, full, d 64, and how it grows."""
    def error(s, ranks):
        command = f"attend {problem(s, 1, 64, s_q=min(s, 4096))} --dtype f32 --verify=64"
        return longspan(command, ranks=ranks, threads=1 if ranks > 1 else 2)["verify"]["rel_o"]

    first = error(1024, 1)
    for s in (4096, 16384, 65536, 262144):
        other = error(s, 1)
        yield Row(f"s {s} over s 1024", f"{other:.2e}", f"{first:.2e}", other / first, 1.5, True)
    one, eight = error(16384, 1), error(16384, 8)
    yield Row("8 ranks over 1, s 16384", f"{eight:.2e}", f"{one:.2e}", eight / one, 1.2, True)


SECTIONS = {
    "one-thread": one_thread,
    "two-threads": two_threads,
    "ring": ring,
    "strict": strict,
    "ulysses": ulysses,
    "allreduce": allreduce,
    "context-parallel": context_parallel,
    "memory": memory,
    "errors": errors,
    **family.SECTIONS,
    **layer.SECTIONS,
}


def cpu_line():
    """This CPU: model, family and number, cores, extensions that matter here."""
    text = Path("/proc/cpuinfo").read_text()
    model, family, number = (re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE)[1]
                             for key in ("model name", "cpu family", "model"))
    units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in cpu_flags()]
    return f"{model} (family {family}, model {number}), {os.cpu_count()} cores, {', '.join(units)}"


def heading(options, longspan):
    """Where the figures come from."""
    import torch

    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
                            capture_output=True, text=True, check=False).stdout.strip()
    isa = longspan(f"bench attend {problem(256, 1, 64)}")["isa"]
    units = "all units of the CPU in use"
    if not longspan.amx:
        units = "AMX hidden from both sides" if options.without_amx else "not shown: no AMX"
    return [
        f"CPU: {cpu_line()}; {units}",
        f"Longspan {commit or 'without a commit'} on {isa}; PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}",
        f"{datetime.date.today()}, best of {options.rounds} rounds",
    ]


def text_table(rows):
    """Rows of cells, aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def markdown_table(rows):
    """Rows of cells as markdown, the first one the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def save_markdown(path, name, lines):
    """Replaces the part of a file between this run's two marks, or appends it."""
    begin, end = f"<!-- vs_pytorch.py: {name} -->", f"<!-- end of {name} -->"
    part = "\n".join([begin, *lines, end])
    text = Path(path).read_text() if Path(path).exists() else ""
    if begin in text:
        before, _, rest = text.partition(begin)
        text = before + part + rest.partition(end)[2]
    else:
        text += f"\n{part}\n"
    Path(path).write_text(text)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    add = parser.add_argument
    add_launcher(add)
    add("--only", action="append", choices=SECTIONS, help="a section; may be given several times")
    add("--without-amx", action="store_true", help="hide the AMX unit from both sides")
    add("--markdown", metavar="FILE", help="put the tables into FILE")
    return parser.parse_args()


def main():
    """Runs the sections and prints each as soon as it is there."""
    options = arguments()
    cached_venv.enter("torch", ["torch", "numpy"])
    if options.without_amx:
        os.environ.update(WITHOUT_AMX)
    longspan = Runner(options, options.without_amx)
    head = heading(options, longspan)
    print("\n".join(head))
    markdown, missed = ["", *(line + "  " for line in head)], 0
    for name in options.only or SECTIONS:
        rows = list(SECTIONS[name](longspan))
        missed += sum(row.verdict() == "MISSED" for row in rows)
        table = [["what", "Longspan", "beside", "ratio", "bar", ""], *(row.cells() for row in rows)]
        title = SECTIONS[name].__doc__.split("\n", maxsplit=1)[0]
        print("\n".join(["", title, *text_table(table)]), flush=True)
        markdown += ["", title, "", *markdown_table(table)]
    if options.markdown:
        name = "without AMX" if options.without_amx else "all units"
        save_markdown(options.markdown, name, markdown)
    print(f"\n{missed} bars missed")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
