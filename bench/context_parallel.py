#!/usr/bin/env python3
"""Times PyTorch's context parallelism on CPUs: processes of one thread each, over gloo.

Two ways are timed, after a check that both compute attention:
  context_parallel   the public one; on CPUs it gathers the sequence and splits the heads
  ring               the ring inside it, called with the CPU kernel, which the public one does not
                     reach (PyTorch 2.15 has a rule for the GPU kernels only)
Prints one JSON object: seconds of each, the least of the repeats, a barrier before and after.
Started by vs_pytorch.py; runs in any environment with torch.
"""

import argparse
import json
import os
import socket
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.distributed.tensor.experimental._context_parallel import _attention

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
CPU_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def fastest(function, repeats):
    """Least seconds of several calls, each between two barriers; and the last result."""
    seconds = []
    for _ in range(repeats):
        dist.barrier()
        start = time.perf_counter()
        result = function()
        dist.barrier()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def time_public(mesh, qkv, repeats):
    """context_parallel as its documentation shows it."""
    buffers = [x.clone() for x in qkv]
    with context_parallel(mesh, buffers=buffers, buffer_seq_dims=[2, 2, 2]):
        return fastest(lambda: F.scaled_dot_product_attention(*buffers), repeats)


def time_ring(rank, size, qkv, repeats):
    """The ring on this process's part of the sequence."""
    q, k, v = (x.chunk(size, dim=2)[rank].contiguous() for x in qkv)
    return fastest(lambda: _attention._templated_ring_attention(
        dist.group.WORLD, 2, CPU_KERNEL, query=q, key=k, value=v)[0], repeats)


def check(name, out, exact):
    """Ends with a message if a result, whole heads or whole rows, is not attention."""
    error = ((out.float() - exact).norm() / exact.norm()).item()
    if not error < 0.01:
        raise SystemExit(f"context_parallel.py: {name} differs from attention by {error:.2g}")


def work(rank, size, port, options):
    """What each process does; the first one prints."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    mesh = init_device_mesh("cpu", (size,))
    torch.manual_seed(0)
    shape = 1, options.h, options.s, options.d
    qkv = [torch.randn(shape).to(DTYPES[options.dtype]) for _ in range(3)]
    exact = F.scaled_dot_product_attention(*(x.float() for x in qkv))

    _attention._cp_options.enable_load_balance = False  # it is for causal masks
    _attention.set_rotate_method("alltoall")  # a true ring; all-gather was slower
    ring, out = time_ring(rank, size, qkv, options.repeat)
    check("ring", out, exact.chunk(size, dim=2)[rank])
    public, out = time_public(mesh, qkv, options.repeat)
    check("context_parallel", out, exact.chunk(size, dim=1)[rank])
    if rank == 0:
        print(json.dumps({"context_parallel": public, "ring": ring}))
    dist.destroy_process_group()


def free_port():
    """A TCP port nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for name, default in {"s": 4096, "h": 4, "d": 64, "ranks": 2, "repeat": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    mp.spawn(work, (options.ranks, free_port(), options), options.ranks)


if __name__ == "__main__":
    main()
