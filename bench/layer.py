"""A whole transformer layer, forward and backward, beside PyTorch and beside itself."""

import json
import random
import tempfile
from time import perf_counter

from bars import MIB, Row, best

WIDTH, HEADS = 768, 12


def torch_layer(s, threads, compiled):
    """A function that runs PyTorch's layer once, forward and backward, and gives the seconds."""
    import torch  # here: environment variables that it reads are set in main
    from torch import nn
    from torch.nn import functional as F

    class Layer(nn.Module):
        """Norms before the blocks, causal attention by sdpa, tanh-GELU, no dropout."""

        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            """x, y: [1, s, WIDTH]"""
            q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2)
                       for part in self.qkv(self.norm1(x)).chunk(3, 2))
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(o.transpose(1, 2).flatten(2))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    layer = Layer().bfloat16()
    x = torch.randn(1, s, WIDTH).bfloat16().requires_grad_()
    dy = torch.randn(1, s, WIDTH).bfloat16()
    step = torch.compile(layer) if compiled else layer

    def run():
        layer.zero_grad()
        x.grad = None
        start = perf_counter()
        step(x).backward(dy)
        return perf_counter() - start

    run()
    return run


def command(s, more=""):
    """Longspan's layer of the same kind."""
    return (f"bench layer --hidden {WIDTH} --heads {HEADS} --seq {s} --causal --dropout 0 {more}")


def over_pytorch(longspan):
    """Layer forward + backward over PyTorch's; bf16, width 768, causal, dropout 0, 2 threads."""
    bars = {2048: (2.5, 1.3), 8192: (3.0, 1.6)}
    for s, (amx_bar, bar) in bars.items():
        for compiled in (False, True):
            step = torch_layer(s, 2, compiled)
            ours, theirs = [], []
            for _ in range(longspan.rounds):
                ours.append(longspan(command(s), threads=2))
                theirs += [step() for _ in range(3)]
            seconds = best(ours, "seconds")
            wanted = amx_bar if longspan.amx else bar
            yield Row(f"s {s}{', torch.compile' if compiled else ''}", f"{1e3 * seconds:.0f} ms",
                      f"{1e3 * min(theirs):.0f} ms", min(theirs) / seconds,
                      None if compiled else wanted)


def tensor_parallel(longspan):
    """2 tensor-parallel ranks of 1 thread with SP over 1 rank of 2 threads; s 4096, width 768."""
    one, two = [], []
    for _ in range(longspan.rounds):
        one.append(longspan(command(4096), threads=2))
        two.append(longspan(command(4096, "--tp 2 --sp"), ranks=2))
    ours, theirs = best(two, "seconds"), best(one, "seconds")
    yield Row("t 2 with SP", f"{1e3 * ours:.0f} ms", f"{1e3 * theirs:.0f} ms", theirs / ours, 0.88)


# A layer of the shape of 22B, 5 a s / h = 106.7, half as wide: the paper's, materialized.
LIKE_22B = "bench layer --hidden 3072 --heads 64 --seq 1024 --core materialized"


def kept(longspan):
    """Bytes kept without anything over selective recomputation with SP; 22B's 5as/h, t 8."""
    plain = longspan(f"{LIKE_22B} --tp 8 --repeat 1", ranks=8)
    selective = longspan(f"{LIKE_22B} --tp 8 --sp --recompute selective --repeat 1", ranks=8)
    ours, theirs = (run["activation_kept_measured"] for run in (selective, plain))
    yield Row("t 8", f"{ours / MIB:.1f} MiB", f"{theirs / MIB:.1f} MiB", theirs / ours, 6.1)


def core_seconds(longspan):
    """The least time of a forward core, by the timeline of a run."""
    with tempfile.NamedTemporaryFile(suffix=".json") as timeline:
        longspan(f"{LIKE_22B} --repeat 3 --trace {timeline.name}", threads=2)
        events = json.load(open(timeline.name, encoding="utf-8"))["traceEvents"]
    forward = [e for e in events if e["name"] == "core" and e["cat"] == "layer forward"]
    return min(e["dur"] for e in forward) / 1e6


def recomputation(longspan):
    """What recomputation adds to a step over what runs again timed alone; t 1, 2 threads."""
    runs = {pieces: [] for pieces in ("none", "selective", "full")}
    cores = []
    for _ in range(longspan.rounds):
        for pieces, results in runs.items():
            results.append(longspan(f"{LIKE_22B} --repeat 2 --recompute {pieces}", threads=2))
        cores.append(core_seconds(longspan))
    none, selective, full = (best(runs[pieces], "seconds") for pieces in runs)
    forward = best(runs["none"], "forward_seconds")
    for name, more, alone, bar in (("selective, over the core", selective - none, min(cores), 1.15),
                                   ("full, over forward", full - none, forward, 1.05)):
        yield Row(name, f"{1e3 * more:.0f} ms", f"{1e3 * alone:.0f} ms", more / alone, bar, True)
    yield Row("full step over selective", f"{1e3 * full:.0f} ms", f"{1e3 * selective:.0f} ms",
              full / selective, None)


# Four layers, so that what is chosen for each matters.
FOUR = "bench layer --hidden 1024 --heads 16 --seq 1024 --layers 4 --repeat 2"
PIECES = ("core", "norm", "activation", "mlp", "qkv", "dropout")
UNIFORM = ("none", *PIECES, "core,norm,activation", "core,norm,mlp,qkv,dropout", "full")


def drawn_sets(draws, n):
    """Sets of pieces for four layers each, as --recompute takes them."""
    def one():
        chosen = [piece for piece in PIECES if draws.random() < 0.4]
        return draws.choice(("full", "none", ",".join(chosen) or "none"))

    return ["/".join(one() for _ in range(4)) for _ in range(n)]


def chosen(longspan):
    """What --recompute auto chooses for ten budgets, beside uniform sets and 50 random ones."""
    others = [*UNIFORM, *drawn_sets(random.Random(1), 50)]
    runs = {pieces: [longspan(f"{FOUR} --recompute {pieces}", threads=2)] for pieces in others}
    peak = {pieces: run[0]["of_ranks"][0]["ledger_peak"] for pieces, run in runs.items()}
    least, most = peak["full"], peak["none"]
    for i in range(10):
        budget = least + (most - least) * (i + 1) // 10
        ours = [longspan(f"{FOUR} --recompute auto --memory {budget}", threads=2)]
        fitting = sorted((p for p in others if peak[p] <= budget),
                         key=lambda p: best(runs[p], "seconds"))[:3]
        for _ in range(longspan.rounds):
            ours.append(longspan(f"{FOUR} --recompute {ours[0]['recompute']}", threads=2))
            for pieces in fitting:
                runs[pieces].append(longspan(f"{FOUR} --recompute {pieces}", threads=2))
        seconds = best(ours, "seconds")
        least_other = min(best(runs[p], "seconds") for p in fitting)
        name = f"{budget / MIB:.0f} MiB: {ours[0]['recompute']}"
        yield Row(f"{name}, peak", f"{ours[0]['of_ranks'][0]['ledger_peak'] / MIB:.1f} MiB",
                  f"{budget / MIB:.1f} MiB", ours[0]["of_ranks"][0]["ledger_peak"] / budget, 1.0,
                  True)
        yield Row(f"{name}, time", f"{1e3 * seconds:.0f} ms", f"{1e3 * least_other:.0f} ms",
                  seconds / least_other, 1.03, True)


SECTIONS = {
    "layer": over_pytorch,
    "tensor-parallel": tensor_parallel,
    "kept": kept,
    "recomputation": recomputation,
    "chosen": chosen,
}
