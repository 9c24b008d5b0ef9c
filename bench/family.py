"""Sections of vs_pytorch.py: backward, masks, and what is split by them."""

import random
import struct
import tempfile
from pathlib import Path
from time import perf_counter

from bars import Row, best, problem


def torch_backward(dtype, s, h, d, causal):
    """A function that runs PyTorch's backward pass once, on one thread, and gives the seconds."""
    import torch  # here: environment variables that it reads are set in main

    torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    numbers = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[dtype]
    q, k, v = (torch.randn(1, h, s, d).to(numbers).requires_grad_() for _ in range(3))
    o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    d_o = torch.randn(1, h, s, d).to(numbers)

    def run():
        start = perf_counter()
        torch.autograd.grad(o, (q, k, v), d_o, retain_graph=True)
        return perf_counter() - start

    return run


def backward(longspan):
    """Backward against PyTorch's and the share of the matrix product's rate, s 4096, h 2.

    The bars of bf16 and f16 are for machines without AMX."""
    bars = {"bf16": (1.5, 1.4), "f32": (1.15, 1.15), "f16": (10, 10)}
    shares = {64: 0.65, 128: 0.70}
    cases = [(dtype, d, causal) for dtype in bars for d in (64, 128) for causal in (False, True)]
    for dtype, d, causal in cases:
        command = f"bench attend {problem(4096, 2, d, causal)} --dtype {dtype} --backward --repeat 3"
        descend = torch_backward(dtype, 4096, 2, d, causal)
        repeats = 1 if dtype == "f16" else 3
        ours, theirs = [], []
        for _ in range(longspan.rounds):
            ours.append(longspan(command))
            theirs += [descend() for _ in range(repeats)]
        what = f"{dtype}, d {d}, {'causal' if causal else 'full'}"
        seconds, gemm = best(ours, "backward_seconds"), best(ours, "gemm_gflops_per_thread")
        rate = 10 * d * 2 * 4096 * (4097 / 2 if causal else 4096) / seconds / 1e9
        unbarred = dtype != "f32" and longspan.amx
        yield Row(f"{what}: over PyTorch", f"{1e3 * seconds:.1f} ms", f"{1e3 * min(theirs):.1f} ms",
                  min(theirs) / seconds, None if unbarred else bars[dtype][causal])
        if dtype == "bf16":
            yield Row(f"{what}: over oneDNN's GEMM", f"{rate:.0f} GF/s", f"{gemm:.0f} GF/s",
                      rate / gemm, None if unbarred or causal else shares[d])


def both_seconds(results):
    """Forward and backward of the fastest repeat."""
    return min(result["seconds"] + result["backward_seconds"] for result in results)


def ring_backward(longspan):
    """Forward + backward, causal ring of 2 ranks over local with 2 threads; s 16384, h 4, d 64."""
    command = f"bench attend {problem(16384, 4, 64, True)} --backward --repeat 2"
    runs = {layout: [] for layout in ("zigzag", "striped", "contiguous")}
    local = []
    for _ in range(longspan.rounds):
        local.append(longspan(command + " --method local", threads=2))
        for layout, results in runs.items():
            results.append(longspan(f"{command} --method ring --layout {layout}", ranks=2))
    theirs = both_seconds(local)
    for layout, results in runs.items():
        ours = both_seconds(results)
        yield Row(layout, f"{1e3 * ours:.0f} ms", f"{1e3 * theirs:.0f} ms", theirs / ours,
                  None if layout == "contiguous" else 0.92)


def strict_backward(longspan):
    """Strict backward over fast; bf16, s 8192, h 4, d 64, one rank, one thread."""
    for causal in (False, True):
        command = f"bench attend {problem(8192, 4, 64, causal)} --backward --repeat 2"
        pinned, fast = [], []
        for _ in range(longspan.rounds):
            pinned.append(longspan(command + " --strict"))
            fast.append(longspan(command))
        ours, theirs = best(pinned, "backward_seconds"), best(fast, "backward_seconds")
        yield Row("causal" if causal else "full", f"{1e3 * ours:.0f} ms", f"{1e3 * theirs:.0f} ms",
                  theirs / ours, 0.90)


def window(longspan):
    """A window of 1024 keys over full causal, beside what it leaves of the area; s 32768, d 64."""
    s, left = 32768, 1023
    command = f"bench attend {problem(s, 1, 64, True)} --repeat 3"
    whole, cut = [], []
    for _ in range(longspan.rounds):
        whole.append(longspan(command))
        cut.append(longspan(f"{command} --window {left},0"))
    area = ((left + 1) * s - left * (left + 1) / 2) / (s * (s + 1) / 2)
    ours, theirs = best(cut, "seconds"), best(whole, "seconds")
    yield Row("time over area", f"{1e3 * ours:.1f} ms", f"{1e3 * theirs * area:.1f} ms",
              ours / (theirs * area), 1.8, at_most=True)


def write_npy(path, descr, shape, data):
    """A .npy file of these bytes."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def write_integers(path, shape, numbers):
    """A .npy file of int64."""
    write_npy(path, "<i8", shape, struct.pack(f"<{len(numbers)}q", *numbers))


def write_documents(path, s, seed):
    """Cumulative lengths of documents of 1 to 8192 positions."""
    draw, ends = random.Random(seed), [0]
    while ends[-1] < s:
        ends.append(min(s, ends[-1] + draw.randint(1, 8192)))
    write_integers(path, f"{len(ends)},", ends)


def write_blocks(path, s, full, partial):
    """Slices: these parts of all tiles of 256 x 256, full, and causal within the tile."""
    side = s // 256
    tiles = random.Random(1).sample(range(side * side), round(side * side * (full + partial)))
    whole = len(tiles) * full / (full + partial)
    numbers = []
    for i, tile in enumerate(tiles):
        q, k = tile // side * 256, tile % side * 256
        numbers += [q, q + 256, k, k + 256, 0 if i < whole else 1]
    write_integers(path, f"{len(tiles)}, 5", numbers)


def documents(longspan):
    """Tiles of the busiest rank over the mean, packed documents; causal, s 65536, 8 ranks."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in (1, 2, 3):
            path = Path(folder) / f"{seed}.npy"
            write_documents(path, 65536, seed)
            command = f"attend {problem(65536, 1, 64, True)} --documents {path}"
            run = longspan(f"{command} --method ring --layout balanced", ranks=8)
            most, mean = run["tiles_computed_most"], run["tiles_computed"] / 8
            yield Row(f"seed {seed}", f"{most}", f"{mean:.1f}", most / mean, 1.05, at_most=True)


def blocks(longspan):
    """Block-sparse slices, 10 % of tiles full and 5 % partial, over their part of full; s 16384."""
    command = f"bench attend {problem(16384, 1, 64)} --repeat 3 --backward"
    whole, cut = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blocks.npy"
        write_blocks(path, 16384, 0.10, 0.05)
        for _ in range(longspan.rounds):
            whole.append(longspan(command))
            cut.append(longspan(f"{command} --slices {path}"))
    part = cut[0]["tiles_computed"] / whole[0]["tiles_computed"]
    for name in ("seconds", "backward_seconds"):
        ours, theirs = best(cut, name), best(whole, name) * part
        yield Row(f"{name} over tiles", f"{1e3 * ours:.1f} ms", f"{1e3 * theirs:.1f} ms",
                  ours / theirs, 1.25, at_most=True)


def pairs(longspan):
    """A random mask, half of its pairs set, over full, forward and backward; s 8192."""
    command = f"bench attend {problem(8192, 1, 64)} --repeat 3 --backward"
    whole, masked = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.npy"
        write_npy(path, "|u1", "8192, 1024", random.Random(1).randbytes(8192 * 1024))
        for _ in range(longspan.rounds):
            whole.append(longspan(command))
            masked.append(longspan(f"{command} --mask {path}"))
    for name in ("seconds", "backward_seconds"):
        ours, theirs = best(masked, name), best(whole, name)
        yield Row(f"{name} of a random mask over full", f"{1e3 * ours:.1f} ms",
                  f"{1e3 * theirs:.1f} ms", ours / theirs, 1.5, at_most=True)


def narrow_values(longspan):
    """GF/s with values narrower than keys, d 192 / d_v 128, over those of d 128; causal, s 4096."""
    runs = {128: [], 192: []}
    for _ in range(longspan.rounds):
        for d, results in runs.items():
            command = f"bench attend --random 1,2,2,4096,4096,{d}/128 --causal --repeat 3"
            results.append(longspan(f"{command} --backward"))
    for name, flops in (("seconds", lambda d: 2 * (d + 128)),
                        ("backward_seconds", lambda d: 2 * (3 * d + 2 * 128))):
        ours, theirs = (flops(d) * 2 * 4096 * 4097 / 2 / best(runs[d], name) / 1e9
                        for d in (192, 128))
        yield Row(name, f"{ours:.0f} GF/s", f"{theirs:.0f} GF/s", ours / theirs, 0.95)


def gradient_errors(longspan):
    """Relative error of gradients against the oracle, f32 storage, full, d 64, and how it grows.

    If causal, dq of the first rows, which see few keys, cancels: the more of the rows that are
    looked at are such, the larger the error, and the limit."""
    def error(s, ranks):
        command = f"attend {problem(s, 1, 64)} --dtype f32 --backward --verify=64"
        verdict = longspan(command, ranks=ranks, threads=1 if ranks > 1 else 2)["verify"]
        return {name: verdict[f"rel_{name}"] for name in ("dq", "dk", "dv")}

    first, largest, eight = error(1024, 1), error(16384, 1), error(16384, 8)
    for name, least in first.items():
        yield Row(f"{name}: s 16384 over s 1024", f"{largest[name]:.2e}", f"{least:.2e}",
                  largest[name] / least, 1.5, True)
        yield Row(f"{name}: 8 ranks over 1, s 16384", f"{eight[name]:.2e}",
                  f"{largest[name]:.2e}", eight[name] / largest[name], 1.2, True)


def torch_decode(h, s, d):
    """A function that runs PyTorch's attention of one bf16 query on one thread: seconds."""
    import torch  # here: environment variables that it reads are set in main

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    q, k, v = (torch.randn(1, h, rows, d).to(torch.bfloat16) for rows in (1, s, s))

    def run():
        start = perf_counter()
        torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return perf_counter() - start

    run()
    return run


def decode(longspan):
    """One query, 65536 keys, over the read bandwidth of `bench memory`; bf16, d 128, h 8, bhsd."""
    h, s, d = 8, 65536, 128
    command = f"bench attend {problem(s, h, d, s_q=1)} --order bhsd --repeat 10"
    sdpa = torch_decode(h, s, d)
    ours, reads, theirs = [], [], []
    for _ in range(longspan.rounds):
        ours.append(longspan(command))
        reads.append(longspan("bench memory"))
        theirs += [sdpa() for _ in range(10)]
    size = 2 * 2 * h * s * d / 1e9
    rate, read = size / best(ours, "seconds"), best(reads, "read_gbs")
    yield Row("over reading memory", f"{rate:.1f} GB/s", f"{read:.1f} GB/s", rate / read, 0.6)
    yield Row("over sdpa", f"{rate:.1f} GB/s", f"{size / min(theirs):.1f} GB/s",
              rate * min(theirs) / size, None)


def quantized(longspan):
    """Keys and values of 8 bits over those of bf16: decode, prefill, and what a ring sends.

    Decode: one query, 65536 keys, d 128, h 8. Prefill, s 4096, h 2, has a bar with AMX."""
    cases = {"decode": (problem(65536, 8, 128, s_q=1), 1.6)}
    for d in (64, 128):
        for causal in (False, True):
            name = f"prefill, d {d}, {'causal' if causal else 'full'}"
            cases[name] = (problem(4096, 2, d, causal), 1.0 if longspan.amx else None)
    for name, (shape, bar) in cases.items():
        runs = {"bf16": [], "i8": [], "e4m3": []}
        for _ in range(longspan.rounds):
            for kind, results in runs.items():
                way = "" if kind == "bf16" else f" --kv-dtype {kind}"
                results.append(longspan(f"bench attend {shape} --repeat 5{way}"))
        wide = best(runs["bf16"], "seconds")
        for kind in ("i8", "e4m3"):
            ours = best(runs[kind], "seconds")
            yield Row(f"{name}: {kind}", f"{1e3 * ours:.2f} ms", f"{1e3 * wide:.2f} ms",
                      wide / ours, bar if kind == "i8" else None)
    shape = problem(4096, 2, 128)
    sent = [longspan(f"attend {shape} --method ring{way}", ranks=2)["bytes_sent"]
            for way in (" --kv-dtype i8", "")]
    yield Row("bytes that a ring sends, d 128", f"{sent[0]}", f"{sent[1]}", sent[0] / sent[1],
              0.5 + 4 / 256, at_most=True)


SECTIONS = {
    "backward": backward,
    "decode": decode,
    "ring-backward": ring_backward,
    "strict-backward": strict_backward,
    "window": window,
    "documents": documents,
    "blocks": blocks,
    "pairs": pairs,
    "narrow-values": narrow_values,
    "quantized": quantized,
    "gradient-errors": gradient_errors,
}
