#!/usr/bin/env python3
"""An oracle that shares nothing with the library: attention and its gradients from the definition.

Draws cases of everything that `longspan attend` can compute, runs it, on one rank or several, and
holds o, lse and every gradient against dense numpy in double precision by the bounds of
docs/NUMERICS.md, element by element. `--cases N` and `--seed S` choose the cases, `--case I` one of
them. Exit status: 0 all are within, 1 one is not, 3 numpy cannot be had."""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))

import cached_venv  # noqa: E402

cached_venv.enter("numpy", ["numpy"])

import numpy as np  # noqa: E402  (it is there only after enter)

# ---- number types

UNIT = {"f32": 2.0**-24, "bf16": 2.0**-8, "f16": 2.0**-11}
SMALLEST = {"f32": 2.0**-149, "bf16": 2.0**-133, "f16": 2.0**-24}
ETA_P = {"f32": 0, "bf16": 0, "f16": 2.0**-25}
FILE_TYPE = {"f32": "F32", "bf16": "BF16", "f16": "F16", "i8": "I8", "e4m3": "F8_E4M3"}
U32 = 2.0**-24
FLUSHED = 2.0**-126


def to_bytes(x, dtype):
    """Rounded to nearest, ties to even."""
    if dtype == "f16":
        return x.astype("<f2").tobytes()
    if dtype == "f32":
        return x.astype("<f4").tobytes()
    bits = x.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def from_bytes(data, dtype, shape):
    """As double."""
    if dtype == "bf16":
        values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        values = np.frombuffer(data, {"f16": "<f2", "f32": "<f4"}[dtype])
    return values.astype(np.float64).reshape(shape)


def e4m3_values():
    """What each byte stands for."""
    byte = np.arange(256)
    exponent, fraction = byte >> 3 & 15, byte & 7
    size = np.where(exponent == 0, np.ldexp(fraction, -9), np.ldexp(8.0 + fraction, exponent - 10))
    return np.where(byte & 0x7F == 0x7F, np.nan, np.where(byte < 128, size, -size))


# ---- files


def write_tensors(path, tensors):
    """A .safetensors file of {name: (type, shape, bytes)}."""
    header, place = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": FILE_TYPE[dtype], "shape": list(shape),
                        "data_offsets": [place, place + len(data)]}
        place += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text
                     + b"".join(data for _, _, data in tensors.values()))


def read_tensors(path):
    """{name: array}, as double."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    types = {name: dtype for dtype, name in FILE_TYPE.items()}
    return {name: from_bytes(data[8 + length + entry["data_offsets"][0]:
                                  8 + length + entry["data_offsets"][1]],
                             types[entry["dtype"]], entry["shape"])
            for name, entry in json.loads(data[8:8 + length]).items() if name != "__metadata__"}


# ---- dropout: Philox 4x32-10 (Salmon et al. 2011), four keys a block


def kept(seed, rate, b, h, s_q, s_k):
    """[b, h, s_q, s_k]: which probabilities stay."""
    blocks = (s_k + 3) // 4
    head, row, block = np.meshgrid(np.arange(b * h), np.arange(s_q), np.arange(blocks),
                                   indexing="ij")
    c = [x.astype(np.uint64) for x in (block, row, head, np.full_like(block, 2))]
    k0, k1, low = seed & 0xFFFFFFFF, seed >> 32, np.uint64(0xFFFFFFFF)
    for _ in range(10):
        one, two = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [two >> np.uint64(32) ^ c[1] ^ np.uint64(k0), two & low,
             one >> np.uint64(32) ^ c[3] ^ np.uint64(k1), one & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    words = np.stack(c, -1).reshape(b, h, s_q, 4 * blocks)[..., :s_k]
    return words >= np.uint64(np.ceil(float(np.float32(rate)) * 2.0**32))


# ---- what a query sees, in the words of the manual


class Case:
    """One problem: its numbers, its options and what these mean."""

    def __init__(self, draw, folder):
        self.words, self.folder = [], folder
        self.b, self.h_kv = draw.integers(1, 3), draw.integers(1, 3)
        self.h = self.h_kv * draw.integers(1, 4)
        self.s_q, self.s_k = (int(n) for n in draw.choice([3, 40, 257, 300, 530], 2))
        self.d, self.d_v = (int(n) for n in draw.choice([1, 8, 16, 20, 40], 2))
        if draw.random() < 0.6:
            self.d_v = self.d
        self.dtype = str(draw.choice(["f32", "f32", "bf16", "f16"]))
        self.draw_entries(draw)
        self.draw_window(draw)
        self.draw_documents(draw)
        self.draw_pairs(draw)
        self.draw_scores(draw)
        self.draw_way(draw)
        self.kv = str(draw.choice(["", "", "", "i8", "e4m3"]))  # of keys and values: 8 bits

    def draw_entries(self, draw):
        """Which queries and keys are there: [b] of the first one and the number."""
        self.q_first, self.k_first = np.zeros(self.b, int), np.zeros(self.b, int)
        self.q_count, self.k_count = np.full(self.b, self.s_q), np.full(self.b, self.s_k)
        self.has_lengths = draw.random() < 0.25
        if not self.has_lengths:
            return
        left = draw.random() < 0.5
        self.words += ["--padding", "left" if left else "right"]
        for side, s in (("q", self.s_q), ("k", self.s_k)):
            count = draw.integers(0, s + 1, self.b)
            self.words += [f"--{side}-lengths", ",".join(map(str, count))]
            setattr(self, f"{side}_count", count)
            setattr(self, f"{side}_first", s - count if left else np.zeros(self.b, int))

    def draw_window(self, draw):
        """Sides of the window, where queries stand, and what everybody sees."""
        self.left = self.right = np.inf
        self.prefix, self.offset, self.start = 0, 0, False
        if draw.random() < 0.25:
            self.left, self.right = (int(n) for n in draw.integers(0, 200, 2))
            self.words += ["--window", f"{self.left},{self.right}"]
        if draw.random() < 0.5:
            self.words.append("--causal")
            self.right = 0
        way = draw.random()
        if way < 0.15:
            self.start = True
            self.words += ["--align", "start"]
        elif way < 0.3:
            self.start = True
            self.offset = int(draw.integers(-self.s_q, self.s_k + 1))
            self.words.append(f"--query-offset={self.offset}")
        if draw.random() < 0.2:
            self.prefix = int(draw.integers(0, self.s_k + 1))
            self.words += ["--prefix", str(self.prefix)]

    def draw_documents(self, draw):
        """Ends of documents of keys and, perhaps, of queries: [b][n + 1]."""
        self.k_ends = self.q_ends = None
        if self.has_lengths or draw.random() < 0.65:
            return
        n, pairs = int(draw.integers(1, 6)), draw.random() < 0.5

        def ends(s, whole):
            inner = np.sort(draw.integers(0, s + 1, n - 1))
            last = s if whole else int(draw.integers(inner[-1] if n > 1 else 0, s + 1))
            return [0, *(int(x) for x in inner), last]

        each = pairs and draw.random() < 0.5
        self.k_ends = [ends(self.s_k, not pairs) for _ in range(self.b if each else 1)]
        names = {"documents": self.k_ends}
        if pairs:
            self.q_ends = [ends(self.s_q, False) for _ in range(self.b if each else 1)]
            names = {"cu-seqlens-q": self.q_ends, "cu-seqlens-k": self.k_ends}
        for name, lists in names.items():
            path = self.folder / f"{name}.npy"
            np.save(path, np.array(lists if each else lists[0], np.int64 if n % 2 else np.int32))
            self.words += [f"--{name}", str(path)]

    def draw_pairs(self, draw):
        """Slices, and bits of pairs: [b, h, s_q, s_k]."""
        self.pairs = np.ones((self.b, self.h, self.s_q, self.s_k), bool)
        if draw.random() < 0.2:
            self.draw_slices(draw)
        if draw.random() < 0.25:
            self.draw_mask(draw)

    def draw_slices(self, draw):
        """Of nine rectangles each in one of four ways, or not at all."""
        q, k = (np.concatenate([[0], np.sort(draw.integers(0, s + 1, 2)), [s]])
                for s in (self.s_q, self.s_k))
        seen, numbers = np.zeros((self.s_q, self.s_k), bool), []
        for i in range(9):
            kind = int(draw.integers(0, 5))
            if kind == 4:
                continue
            q0, q1, k0, k1 = (int(n) for n in (q[i // 3], q[i // 3 + 1], k[i % 3], k[i % 3 + 1]))
            numbers.append([q0, q1, k0, k1, kind])
            row, column = np.ogrid[q0:q1, k0:k1]
            part = np.ones((q1 - q0, k1 - k0), bool)
            if kind in (1, 3):
                part &= column - k1 <= row - q1
            if kind in (2, 3):
                part &= column - k0 >= row - q0
            seen[q0:q1, k0:k1] = part
        path = self.folder / "slices.npy"
        np.save(path, np.array(numbers, np.int64).reshape(-1, 5))
        self.words += ["--slices", str(path)]
        self.pairs &= seen

    def draw_mask(self, draw):
        """A matrix for all, or for each entry or head; as truth values or as bits."""
        shape = (1 if draw.random() < 0.5 else self.b, 1 if draw.random() < 0.5 else self.h,
                 self.s_q, self.s_k)
        mask = draw.random(shape) < draw.choice([0.02, 0.5, 0.98])
        self.pairs &= mask
        if shape[:2] == (1, 1):
            mask = mask[0, 0]
        path = self.folder / "mask.npy"
        bits = draw.random() < 0.5
        np.save(path, np.packbits(mask, axis=-1, bitorder="little") if bits else mask)
        self.words += ["--mask", str(path)]

    def draw_scores(self, draw):
        """Scale, soft cap, slopes, biases, sinks and dropout."""
        def numbers(n):
            return np.round(draw.normal(size=n) * 8) / 8

        self.scale = float(np.float32(1 / np.sqrt(self.d)))
        self.cap = self.rate = self.drop_seed = 0
        self.slopes = self.sinks = self.biases = None
        if draw.random() < 0.2:
            self.scale = float(draw.choice([-0.25, 0.0, 1.0]))
            self.words.append(f"--scale={self.scale}")
        if draw.random() < 0.2:
            self.cap = float(draw.choice([0.5, 4, 30]))
            self.words += ["--soft-cap", str(self.cap)]
        if draw.random() < 0.2:
            self.slopes = numbers(self.h) / 8
            self.words.append("--alibi=" + ",".join(map(str, self.slopes)))
        if draw.random() < 0.2:
            self.sinks = numbers(self.h)
            self.words.append("--sinks=" + ",".join(map(str, self.sinks)))
        if draw.random() < 0.25:
            self.biases = numbers((self.h, 1 + 2 * int(draw.integers(0, 300))))
            path = self.folder / "biases.npy"
            np.save(path, self.biases.astype("<f4"))
            self.words += ["--distance-bias", str(path)]
        self.draw_biases(draw)
        if draw.random() < 0.2:
            self.rate, self.drop_seed = 0.25, int(draw.integers(0, 2**40))
            self.words += ["--dropout", f"{self.rate},{self.drop_seed}"]

    def draw_biases(self, draw):
        """A bias for each pair, of all, or of each entry or head; some keys are not seen by it."""
        self.pair_biases = None
        if draw.random() < 0.75:
            return
        shape = (1 if draw.random() < 0.5 else self.b, 1 if draw.random() < 0.5 else self.h,
                 self.s_q, self.s_k)
        biases = np.round(draw.normal(size=shape) * 8) / 8
        if draw.random() < 0.5:
            biases[draw.random(shape) < 0.1] = -np.inf
        path = self.folder / "bias.npy"
        flat = shape[:2] == (1, 1) and draw.random() < 0.5
        np.save(path, (biases[0, 0] if flat else biases).astype(draw.choice(["<f4", "<f2"])))
        self.words += ["--bias", str(path)]
        self.pairs &= biases > -np.inf
        self.pair_biases = np.where(biases > -np.inf, biases, 0)

    def draw_way(self, draw):
        """How it is computed, which changes nothing."""
        self.ranks = int(draw.choice([1, 1, 1, 2, 3]))
        self.words += ["--threads", str(draw.integers(1, 3)), "--dtype", self.dtype]
        if draw.random() < 0.5:
            self.words.append("--strict")
        if draw.random() < 0.5:
            names = ["allgather", "allreduce", "tree", "ring", "ulysses"]
            self.words += ["--method", str(draw.choice(names))]

    def places(self, entry):
        """Of an entry: i' of each query, [s_q], counted like its keys, and its document, if any."""
        i = np.arange(self.s_q) - self.q_first[entry]
        place = i + (self.offset if self.start else self.k_count[entry] - self.q_count[entry])
        if self.k_ends is None:
            return place, None
        k_ends = self.k_ends[entry if len(self.k_ends) > 1 else 0]
        if self.q_ends is None:
            return place, np.searchsorted(k_ends, place, side="right") - 1
        q_ends = self.q_ends[entry if len(self.q_ends) > 1 else 0]
        number = np.searchsorted(q_ends, i, side="right") - 1
        inside = (number >= 0) & (number < len(q_ends) - 1)
        at = np.where(inside, number, 0)
        ends = np.array(k_ends)[at + 1] - np.array(q_ends)[at + 1]
        starts = np.array(k_ends)[at] - np.array(q_ends)[at] + self.offset
        return np.where(inside, i + (starts if self.start else ends), place), number

    def visible(self):
        """[b, h, s_q, s_k], the places [b, s_q], counted like keys, and who is there [b, s_q]."""
        seen = np.zeros_like(self.pairs)
        place_of, there = np.zeros((self.b, self.s_q)), np.zeros((self.b, self.s_q), bool)
        for entry in range(self.b):
            place, document = self.places(entry)
            j = np.arange(self.s_k) - self.k_first[entry]
            i = np.arange(self.s_q) - self.q_first[entry]
            here = (i >= 0) & (i < self.q_count[entry])
            if self.q_ends is not None:
                here &= i < self.q_ends[entry if len(self.q_ends) > 1 else 0][-1]
            near = (place[:, None] - self.left <= j) & (j <= place[:, None] + self.right)
            if document is not None:
                ends = self.k_ends[entry if len(self.k_ends) > 1 else 0]
                of_key = np.searchsorted(ends, j, side="right") - 1
                of_key = np.where((j >= 0) & (j < ends[-1]), of_key, -1)
                near &= (document[:, None] == of_key) & (of_key >= 0)
            near |= j < self.prefix
            near &= here[:, None] & (j >= 0) & (j < self.k_count[entry])
            seen[entry] = near
            place_of[entry], there[entry] = place + self.k_first[entry], here
        return seen & self.pairs, place_of, there


# ---- attention


def group_sum(x, h_kv):
    """Query heads that share keys are added."""
    return x.reshape(x.shape[0], h_kv, -1, *x.shape[2:]).sum(2)


def solve(case, q, k, v, d_o):  # pylint: disable=too-many-locals
    """{name: (exact, bound)}; operands are [b, h, s, d], k and v for each query head."""
    u = UNIT[case.dtype]
    u_p, eta_p, small = (0 if case.dtype == "f32" else u), ETA_P[case.dtype], SMALLEST[case.dtype]
    seen, place, there = case.visible()
    product = case.scale * (q @ k.swapaxes(-1, -2))
    kappa = abs(case.scale) * (abs(q) @ abs(k).swapaxes(-1, -2))
    slope, bend = 1.0, 0.0
    if case.cap:
        bend = 2 * abs(np.tanh(product / case.cap)) * kappa / case.cap
        slope = 1 / np.cosh(product / case.cap) ** 2
        product = case.cap * np.tanh(product / case.cap)
    far = np.arange(case.s_k) - place[:, None, :, None]
    size, index = 0.0, None
    if case.slopes is not None:
        bias = case.slopes[None, :, None, None] * abs(far)
        product, size = product - bias, size + abs(bias)
    if case.biases is not None:
        most = case.biases.shape[1] // 2
        index = np.broadcast_to(np.clip(far, -most, most) + most, seen.shape).astype(int)
        bias = case.biases[np.arange(case.h)[None, :, None, None], index]
        product, size = product + bias, size + abs(bias)
    if case.pair_biases is not None:
        product, size = product + case.pair_biases, size + abs(case.pair_biases)
    logit = np.where(seen, product, -np.inf)
    sink = np.full((case.b, case.h, case.s_q), -np.inf)
    if case.sinks is not None:
        sink = np.where(there[:, None], case.sinks[None, :, None], -np.inf)
    top = np.maximum(logit.max(-1, initial=-np.inf), sink)
    top = np.where(np.isfinite(top), top, 0)
    total = np.exp(logit - top[..., None]).sum(-1) + np.exp(sink - top)
    with np.errstate(divide="ignore"):
        lse = np.where(total > 0, top + np.log(total), -np.inf)
    finite = np.where(total > 0, lse, 0)
    p = np.exp(logit - finite[..., None])
    p_sink = np.exp(sink - finite)
    keep = 1.0
    if case.rate:
        keep = kept(case.drop_seed, case.rate, case.b, case.h, case.s_q, case.s_k) / (1 - case.rate)
    o = (p * keep) @ v
    size = size * np.ones_like(p)
    kappa_row = np.where(seen, kappa + bend, 0).max(-1, initial=0)[..., None]
    beta = (p * size).sum(-1) + p_sink * abs(np.where(np.isfinite(sink), sink, 0))
    mass = (p * keep) @ abs(v)
    o_bound = ((2 * u_p + (4 + 8 * (kappa_row + beta[..., None])) * U32) * mass
               + 8 * U32 * ((p * keep * size) @ abs(v))
               + eta_p * ((seen * keep) @ abs(v)) + u * abs(o) + small)
    lse_bound = ((1e-6 if case.dtype == "f32" else 2e-5) * np.maximum(1, abs(finite))
                 + 8 * U32 * (1 + kappa_row[..., 0] + beta))
    # backward, which takes o for what it is: what that errs by, but for its rounding, goes into delta
    delta = (d_o * o).sum(-1, keepdims=True)
    delta_error = (abs(d_o) * (o_bound - u * abs(o) - small)).sum(-1, keepdims=True)
    dp = keep * (d_o @ v.swapaxes(-1, -2))
    dlogit = p * (dp - delta)
    ds = case.scale * slope * dlogit
    terms = p * (keep * (abs(d_o) @ abs(v).swapaxes(-1, -2))
                 + (abs(d_o) * abs(o)).sum(-1, keepdims=True))
    strain = 2 * u_p + (4 + 8 * (kappa + bend + abs(finite)[..., None] + size)) * U32
    dlogit_bound = terms * strain + p * delta_error
    ds_bound = abs(case.scale) * slope * dlogit_bound
    fixed = eta_p * abs(case.scale) * seen + FLUSHED * seen

    def bounded(exact, bound):
        return exact, bound + u * abs(exact) + small

    out = {
        "o": (o, o_bound), "lse": (lse, lse_bound),
        "dq": bounded(ds @ k, ds_bound @ abs(k) + fixed @ (1 + abs(k))),
        "dk": bounded(group_sum(ds.swapaxes(-1, -2) @ q, case.h_kv),
                      group_sum(ds_bound.swapaxes(-1, -2) @ abs(q)
                                + fixed.swapaxes(-1, -2) @ (1 + abs(q)), case.h_kv)),
        "dv": bounded(group_sum((p * keep).swapaxes(-1, -2) @ d_o, case.h_kv),
                      group_sum((p * keep * strain).swapaxes(-1, -2) @ abs(d_o)
                                + (seen * (eta_p * keep + FLUSHED)).swapaxes(-1, -2)
                                @ (1 + abs(d_o)), case.h_kv)),
    }
    if case.sinks is not None:
        d_abs = (abs(d_o) * abs(o)).sum(-1)
        strain_sink = 2 * u_p + (8 + 8 * (abs(finite) + abs(case.sinks)[None, :, None])) * U32
        out["dsinks"] = bounded(-(p_sink * delta[..., 0]).sum((0, 2)),
                                (p_sink * (d_abs * strain_sink + delta_error[..., 0])).sum((0, 2)))
    if index is not None:
        exact, bound = np.zeros_like(case.biases), np.zeros_like(case.biases)
        for head in range(case.h):
            np.add.at(exact[head], index[:, head], dlogit[:, head])
            np.add.at(bound[head], index[:, head], dlogit_bound[:, head] + FLUSHED)
        out["ddistance_bias"] = bounded(exact, bound)
    if case.pair_biases is not None:
        shared = tuple(axis for axis in (0, 1) if case.pair_biases.shape[axis] == 1)
        out["dbias"] = bounded(dlogit.sum(shared, keepdims=True),
                               (dlogit_bound + FLUSHED * seen).sum(shared, keepdims=True))
    return out


# ---- a case


def draw_operand(draw, case, s, h, d):
    """[b, s, h, d] as it is in a file: its values in double, and its type and bytes."""
    data = to_bytes(draw.normal(size=(case.b, s, h, d)), case.dtype)
    return from_bytes(data, case.dtype, (case.b, s, h, d)), case.dtype, data


def draw_quantized(draw, case, name, d):
    """Keys or values of 8 bits and what belongs to them, by names: a number times its scale."""
    shape = (case.b, case.s_k, case.h_kv, d)
    scale_shape = shape[:3] if case.kv == "i8" else (case.b, case.h_kv)
    scales = to_bytes(np.exp(draw.normal(size=scale_shape) / 2 - 4), "f32")
    scale = from_bytes(scales, "f32", scale_shape)
    if case.kv == "i8":
        numbers = draw.integers(-128, 128, shape, dtype=np.int8)
        x = numbers * scale[..., None]
    else:
        numbers = draw.integers(0, 255, shape, dtype=np.uint8) & 0xBF  # below 2
        x = e4m3_values()[numbers] * scale[:, None, :, None]
    out = {f"{name}_scale": (scale, "f32", scales)}
    if name == "k" and draw.random() < 0.5:
        mean_shape = (case.b, case.h_kv, d)
        means = to_bytes(draw.normal(size=mean_shape) * 2, "f32")
        out["k_mean"] = (from_bytes(means, "f32", mean_shape), "f32", means)
        x = x + out["k_mean"][0][:, None]
    return {name: (x, case.kv, numbers.tobytes()), **out}


def draw_operands(draw, case):
    """All that is in the file."""
    out = {"q": draw_operand(draw, case, case.s_q, case.h, case.d)}
    if case.kv:
        return {**out, **draw_quantized(draw, case, "k", case.d),
                **draw_quantized(draw, case, "v", case.d_v)}
    return {**out, "k": draw_operand(draw, case, case.s_k, case.h_kv, case.d),
            "v": draw_operand(draw, case, case.s_k, case.h_kv, case.d_v),
            "do": draw_operand(draw, case, case.s_q, case.h, case.d_v)}


def run_longspan(case, operands, out):
    """The tensors of the file that attend writes."""
    path = case.folder / "in.safetensors"
    write_tensors(path, {name: (dtype, x.shape, data)
                         for name, (x, dtype, data) in operands.items()})
    program = shlex.split(os.environ.get("LONGSPAN", "longspan"))
    if case.ranks > 1:
        program = [*shlex.split(os.environ.get("MPIEXEC", "mpirun")),
                   *shlex.split(os.environ.get("MPIEXEC_FLAGS", "")), "-n", str(case.ranks),
                   *program]
    command = [*program, "attend", "--input", str(path), "--order", "bshd", "--quiet", "--out",
               str(out), *case.words]
    if not case.kv:
        command.append("--backward")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return read_tensors(out)


def units(got, exact, bound):
    """The largest error over its bound; infinite where what is no number differs."""
    with np.errstate(invalid="ignore"):
        error = np.where((got == exact), 0, abs(got - exact))
    return float(np.max(np.where(np.isfinite(error), error / bound, np.inf), initial=0))


def try_case(seed, number, ranks):
    """Whether a case is right, and a line about it."""
    draw = np.random.default_rng([seed, number])
    with tempfile.TemporaryDirectory() as folder:
        case = Case(draw, Path(folder))
        case.ranks = min(case.ranks, ranks)
        operands = draw_operands(draw, case)
        words = " ".join(Path(word).name if word.startswith(folder) else word
                         for word in case.words)
        text = (f"case {number}, {case.ranks} ranks, {case.b},{case.h},{case.h_kv},{case.s_q},"
                f"{case.s_k},{case.d}/{case.d_v} {case.kv} {words}")
        try:
            got = run_longspan(case, operands, case.folder / "out.safetensors")
        except RuntimeError as reason:
            return False, f"{text}: {reason}"
        q, k, v = (operands[name][0].swapaxes(1, 2) for name in ("q", "k", "v"))
        d_o = operands["do"][0].swapaxes(1, 2) if not case.kv else np.zeros((*q.shape[:3], case.d_v))
        group = case.h // case.h_kv
        exact = solve(case, q, k.repeat(group, 1), v.repeat(group, 1), d_o)
        if case.kv:
            exact = {name: exact[name] for name in ("o", "lse")}
        for name in exact.keys() & {"o", "dq", "dk", "dv"}:
            got[name] = got[name].swapaxes(1, 2)
        worst = {name: units(got[name], *exact[name]) for name in exact}
        name = max(worst, key=worst.get)
        right = worst[name] <= 1 and got.keys() == exact.keys()
        return right, f"{text}: at most {worst[name]:.2f} of a bound, of {name}"


def main():
    """Prints a line a case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="this one alone")
    parser.add_argument("--ranks", type=int, default=3, help="the most there may be")
    options = parser.parse_args()
    numbers = range(options.cases) if options.case is None else [options.case]
    good = True
    for number in numbers:
        right, line = try_case(options.seed, number, options.ranks)
        good &= right
        print(f"{'ok' if right else 'not ok'} - {line}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
