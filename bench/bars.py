"""What the benchmarks share: a line of a table, and runs of the longspan command."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


def cpu_flags():
    """Instruction set extensions of this CPU, as Linux names them."""
    match = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match.group(1).split() if match else []


@dataclass
class Row:
    """One line of a table. `value` is judged by the bar, None if there is no bar for this CPU."""

    what: str
    ours: str
    theirs: str
    value: float
    bar: float | None
    at_most: bool = False

    def verdict(self):
        """What the bar says."""
        if self.bar is None:
            return "reported"
        held = self.value <= self.bar if self.at_most else self.value >= self.bar
        return "met" if held else "MISSED"

    def cells(self):
        """The row as text."""
        sign = "<=" if self.at_most else ">="
        bar = "-" if self.bar is None else f"{sign} {self.bar:.3g}"
        return [self.what, self.ours, self.theirs, f"{self.value:.3g}", bar, self.verdict()]


def add_launcher(add):
    """The options of a Runner."""
    root = " --allow-run-as-root" if os.geteuid() == 0 else ""
    flags = os.environ.get("MPIEXEC_FLAGS", "--oversubscribe --bind-to none" + root)
    add("--longspan", metavar="PATH", default=os.environ.get("LONGSPAN", "./longspan"))
    add("--mpiexec", metavar="COMMAND", help="with its flags (%(default)s)",
        default=f"{os.environ.get('MPIEXEC', 'mpirun')} {flags}")
    add("--rounds", type=int, default=5, metavar="N", help="turns of each side (%(default)s)")


class Runner:
    """Runs the longspan command and reads its JSON."""

    def __init__(self, options, without_amx=False):
        self.program = str(Path(options.longspan).resolve())
        self.mpiexec = shlex.split(options.mpiexec)
        self.rounds = options.rounds
        self.amx = "amx_bf16" in cpu_flags() and not without_amx

    def __call__(self, command, ranks=1, threads=1):
        line = [self.program, *shlex.split(command), "--json", "-"]
        if threads:
            line += ["--threads", str(threads)]
        if ranks > 1:
            line = [*self.mpiexec, "-n", str(ranks), *line]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{Path(sys.argv[0]).name}: {shlex.join(line)}: status {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout)


def problem(s, h, d, causal=False, s_q=None):
    """The options of a random problem of one batch."""
    return f"--random 1,{h},{h},{s_q or s},{s},{d}{' --causal' if causal else ''}"


def best(results, key):
    """The highest rate, or the least time, of several rounds."""
    return (min if key.endswith("seconds") else max)(result[key] for result in results)
