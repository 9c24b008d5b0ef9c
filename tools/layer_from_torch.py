#!/usr/bin/env python3
"""Holds `longspan bench layer` against PyTorch: y, dx and all gradients of the same weights.

A layer of nn modules is computed in f64; blocks of GPT-2 and Llama, as `transformers` has them with
eager attention, in f32. Longspan computes in f32, on one rank and on several. The relative error of
every tensor is to be at most 2e-5. Exit status: 0 it is, 1 it is not, 3 PyTorch cannot be had."""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import cached_venv

cached_venv.enter("torch", ["torch", "numpy", "safetensors", "transformers"])

import torch  # noqa: E402  (these are there only after enter)
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

LIMIT = 2e-5
B, S, WIDTH, HEADS, MLP = 2, 300, 48, 4, 96  # an odd leaf; nothing is a power of two but the heads
D = WIDTH // HEADS
THETA = 10000.0
GRIDS = {1: "", 2: "--tp 2 --sp", 4: "--tp 2 --cp 2 --sp"}

# ---- a layer of nn modules


def rotated(x):
    """x [b, heads, s, d]: elements i and i + d/2 turned by the position's angle."""
    frequency = THETA ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    angle = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * frequency
    a, b = x.chunk(2, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


ACTIVATIONS = {
    "gelu": lambda z: F.gelu(z, approximate="tanh"),
    "gelu-erf": F.gelu,
    "relu": F.relu,
    "swiglu": lambda z: F.silu(z.chunk(2, -1)[0]) * z.chunk(2, -1)[1],
}


class Layer(nn.Module):
    """As options of the command have it."""

    def __init__(self, kv_heads=HEADS, norm="layer", activation="gelu", bias=True, post_norm=False,
                 causal=False, rope=False):
        super().__init__()
        self.kv_heads, self.post_norm, self.causal, self.rope = kv_heads, post_norm, causal, rope
        norms = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[norm]
        self.norm1, self.norm2 = norms(WIDTH, eps=1e-5), norms(WIDTH, eps=1e-5)
        self.qkv = nn.Linear(WIDTH, WIDTH + 2 * kv_heads * D, bias=bias)
        self.out = nn.Linear(WIDTH, WIDTH, bias=bias)
        self.up = nn.Linear(WIDTH, MLP * (2 if activation == "swiglu" else 1), bias=bias)
        self.down = nn.Linear(MLP, WIDTH, bias=bias)
        self.activation = ACTIVATIONS[activation]

    def attention(self, x):
        """Between the norm and the residual path."""
        qkv = self.qkv(x).unflatten(2, (-1, D)).transpose(1, 2)
        q, k, v = qkv.split((HEADS, self.kv_heads, self.kv_heads), 1)
        if self.rope:
            q, k = rotated(q), rotated(k)
        k, v = (t.repeat_interleave(HEADS // self.kv_heads, 1) for t in (k, v))
        logits = q @ k.transpose(2, 3) / D**0.5
        if self.causal:
            logits = logits.masked_fill(torch.ones(S, S).triu(1).bool(), -torch.inf)
        return self.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def mlp(self, x):
        """Between the norm and the residual path."""
        return self.down(self.activation(self.up(x)))

    def forward(self, x):
        """x, y: [B, S, WIDTH]"""
        if self.post_norm:
            x = self.norm1(x + self.attention(x))
            return self.norm2(x + self.mlp(x))
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def named(self, of):
        """What `of` says of parameters, by the names of the command."""
        return {name.replace(".weight", "").replace(".", "_"): of(p)
                for name, p in self.named_parameters()}


# ---- blocks of transformers


class Gpt2(nn.Module):
    """Its linears are [in, out]."""

    def __init__(self):
        super().__init__()
        from transformers import GPT2Config
        from transformers.models.gpt2.modeling_gpt2 import GPT2Block

        config = GPT2Config(n_embd=WIDTH, n_head=HEADS, n_inner=MLP, n_positions=S, attn_pdrop=0,
                            embd_pdrop=0, resid_pdrop=0, attn_implementation="eager")
        self.block = GPT2Block(config, layer_idx=0)

    def forward(self, x):
        """x, y: [B, S, WIDTH]"""
        y = self.block(x, attention_mask=causal_mask())
        return y[0] if isinstance(y, tuple) else y

    def named(self, of):
        """What `of` says of parameters, by the names of the command."""
        parts = {"norm1": self.block.ln_1, "norm2": self.block.ln_2,
                 "qkv": self.block.attn.c_attn, "out": self.block.attn.c_proj,
                 "up": self.block.mlp.c_fc, "down": self.block.mlp.c_proj}
        return ({name: of(part.weight).t().contiguous() for name, part in parts.items()}
                | {name + "_bias": of(part.bias) for name, part in parts.items()})


class Llama(nn.Module):
    """Grouped heads, rotary positions, SwiGLU."""

    def __init__(self, kv_heads=2):
        super().__init__()
        from transformers import LlamaConfig
        from transformers.models.llama.modeling_llama import (LlamaDecoderLayer,
                                                              LlamaRotaryEmbedding)

        config = LlamaConfig(hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=MLP,
                             num_key_value_heads=kv_heads, rms_norm_eps=1e-5,
                             max_position_embeddings=S, attn_implementation="eager")
        self.block = LlamaDecoderLayer(config, layer_idx=0)
        self.rotary = LlamaRotaryEmbedding(config)

    def forward(self, x):
        """x, y: [B, S, WIDTH]"""
        positions = torch.arange(S).expand(B, S)
        y = self.block(x, attention_mask=causal_mask(), position_ids=positions,
                       position_embeddings=self.rotary(x, positions))
        return y[0] if isinstance(y, tuple) else y

    def named(self, of):
        """What `of` says of parameters, by the names of the command."""
        attention, mlp = self.block.self_attn, self.block.mlp
        parts = {"norm1": (self.block.input_layernorm,),
                 "norm2": (self.block.post_attention_layernorm,),
                 "qkv": (attention.q_proj, attention.k_proj, attention.v_proj),
                 "out": (attention.o_proj,), "up": (mlp.gate_proj, mlp.up_proj),
                 "down": (mlp.down_proj,)}
        return {name: torch.cat([of(part.weight) for part in some])
                for name, some in parts.items()}


def causal_mask():
    """[1, 1, S, S], to be added to logits."""
    return torch.full((S, S), torch.finfo(torch.float32).min).triu(1)[None, None]


# ---- both sides

LLAMA = "--norm rms --activation swiglu --no-bias --rope 10000 --causal --kv-heads 2"
CASES = [
    ("nn modules", torch.float64, lambda: Layer(causal=True), "--causal"),
    ("nn modules, norms behind", torch.float64,
     lambda: Layer(post_norm=True, activation="gelu-erf"), "--post-norm --activation gelu-erf"),
    ("nn modules, relu", torch.float64, lambda: Layer(activation="relu", norm="rms"),
     "--activation relu --norm rms"),
    ("nn modules, as Llama", torch.float64,
     lambda: Layer(2, "rms", "swiglu", bias=False, causal=True, rope=True), LLAMA),
    ("GPT-2 of transformers", torch.float32, Gpt2, "--causal"),
    ("Llama of transformers", torch.float32, Llama, LLAMA),
]


def solve(module, dtype):
    """Weights, x and dy, which f32 has exactly, and what PyTorch makes of them."""
    with torch.no_grad():
        for p in module.parameters():  # f32 numbers of a size that a trained layer has
            p.copy_(p + 0.1 * torch.randn(p.shape) if p.ndim == 1 else
                    torch.randn(p.shape) / WIDTH**0.5)
    given = module.named(lambda p: p.detach().clone())
    given |= {name: torch.randn(B, S, WIDTH) for name in ("x", "dy")}
    module.to(dtype)
    x = given["x"].to(dtype).requires_grad_()
    y = module(x)
    y.backward(given["dy"].to(dtype))
    right = {"d" + name: gradient for name, gradient in module.named(lambda p: p.grad).items()}
    return given, right | {"y": y.detach(), "dx": x.grad}


def run_longspan(weights, out, ranks, options):
    """The command's results, by name."""
    program = [os.environ.get("LONGSPAN", "./longspan")]
    if ranks > 1:
        flags = shlex.split(os.environ.get("MPIEXEC_FLAGS", "--oversubscribe --bind-to none"))
        program = [os.environ.get("MPIEXEC", "mpirun"), *flags, "-n", str(ranks), *program]
    shape = f"--hidden {WIDTH} --heads {HEADS} --mlp {MLP} --batch {B} --seq {S}"
    words = f"bench layer {shape} --dtype f32 --dropout 0 --threads 1 --repeat 1 --quiet {options}"
    subprocess.run([*program, *words.split(), "--weights", weights, "--out", out], check=True)
    return load_file(out)


def worst(got, right):
    """The largest relative error, and of which tensor."""
    if got.keys() != right.keys():
        return float("inf"), f"{sorted(got.keys() ^ right.keys())}"
    return max((((got[name].double() - right[name].double()).norm()
                 / right[name].double().norm()).item(), name) for name in right)


def main():
    """Prints a line a case and grid."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--ranks", default="1", help="grids to try: 1, 2 and 4, with commas")
    grids = [int(n) for n in parser.parse_args().ranks.split(",")]
    torch.manual_seed(0)
    torch.set_num_threads(2)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        weights, out = Path(folder) / "weights.safetensors", Path(folder) / "out.safetensors"
        for name, dtype, make, options in CASES:
            given, right = solve(make(), dtype)
            save_file({key: value.contiguous() for key, value in given.items()}, weights)
            for ranks in grids:
                error, where = worst(run_longspan(weights, out, ranks,
                                                  f"{options} {GRIDS[ranks]}"), right)
                good &= error <= LIMIT
                print(f"{'ok' if error <= LIMIT else 'not ok'} - {name}, {ranks} "
                      f"rank{'s' if ranks > 1 else ''}: at most {error:.1e}, of {where}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
