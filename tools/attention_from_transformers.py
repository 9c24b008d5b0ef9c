#!/usr/bin/env python3
"""Has `longspan check` judge the attention of models as `transformers` computes it.

Tiny random models of every sort of attention get two sequences, one of them padded; the q,
k, v and o of their layers go into files, with what the attention had besides: lengths, sinks, biases by
distance. `check` is told the rest by options, and by the mask itself, pair by pair; told nothing, it
finds each wrong. Exit status: 0 so it is, 1 it is not, 3 transformers cannot be had."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import cached_venv

cached_venv.enter("torch", ["torch", "numpy", "safetensors", "transformers"])

import numpy as np  # noqa: E402  (these are there only after enter)
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS  # noqa: E402
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: E402

B, S, SHORT = 2, 300, 211
SMALL = {"vocab_size": 99, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 512}
WINDOW = 37

calls = []  # (module, q, k, v, mask, o, everything else) of a model


def record(module, query, key, value, attention_mask, **rest):
    """The model's own eager attention of these operands, in f64; all of it is kept."""
    def widened(x):
        return x.double() if isinstance(x, torch.Tensor) else x

    eager = sys.modules[type(module).__module__].eager_attention_forward
    out, weights = eager(module, query.double(), key.double(), value.double(),
                         widened(attention_mask), **{name: widened(x) for name, x in rest.items()})
    calls.append((module, query, key, value, attention_mask, out.transpose(1, 2), rest))
    return out.to(query.dtype), weights


ALL_ATTENTION_FUNCTIONS.register("record", record)
ALL_MASK_ATTENTION_FUNCTIONS.register("record", ALL_MASK_ATTENTION_FUNCTIONS["eager"])

# Configurations: every sort of attention that published models have.
MODELS = {
    "Llama": transformers.LlamaConfig(**SMALL, num_key_value_heads=2),
    "Mistral": transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=WINDOW),
    "Gemma 2": transformers.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=24,
                                         sliding_window=WINDOW, attn_logit_softcapping=3.0),
    "gpt-oss": transformers.GptOssConfig(**SMALL, num_key_value_heads=1, head_dim=16,
                                         sliding_window=WINDOW, num_local_experts=2,
                                         num_experts_per_tok=1),
    "DeepSeek-V2": transformers.DeepseekV2Config(
        **SMALL, num_key_value_heads=4, n_routed_experts=2, num_experts_per_tok=1, n_group=1,
        topk_group=1, kv_lora_rank=32, q_lora_rank=None, qk_nope_head_dim=24, qk_rope_head_dim=8,
        v_head_dim=20, first_k_dense_replace=2),
    "T5": transformers.T5Config(vocab_size=99, d_model=64, d_kv=16, d_ff=48, num_layers=1,
                                num_heads=4),
}


def run(config):
    """What the layers of a model do with two sequences, the second of which is padded."""
    model = transformers.AutoModel.from_config(config, attn_implementation="record").eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("sinks", "relative_attention_bias.weight")):
            torch.nn.init.normal_(parameter)
    ids = torch.randint(1, 99, (B, S))
    there = torch.ones(B, S, dtype=torch.long)
    if config.model_type == "t5":
        there[1, SHORT:] = 0
        more = {"decoder_input_ids": ids[:, :S - 50]}
    else:
        there[1, :S - SHORT] = 0
        more = {}
    calls.clear()
    with torch.no_grad():
        model(input_ids=ids, attention_mask=there, use_cache=False, **more)
    return list(calls)


def biases(module, last):
    """[heads, 2 last + 1]: the bias of each distance, as T5 has them in buckets."""
    bucket = module._relative_position_bucket(  # pylint: disable=protected-access
        torch.arange(-last, last + 1), bidirectional=not module.is_decoder,
        num_buckets=module.relative_attention_num_buckets,
        max_distance=module.relative_attention_max_distance)
    return module.relative_attention_bias.weight[bucket].T.detach()


def describe(call):
    """The tensors of a file, and the options that say the same as the model's own mask."""
    module, q, k, v, mask, o, rest = call
    s_q, s_k = q.shape[2], k.shape[2]
    t5 = isinstance(module, transformers.models.t5.modeling_t5.T5Attention)
    decoder = not t5 or (module.is_decoder and s_q == s_k)
    tensors = {"q": q, "k": k, "v": v}
    options = f"--scale {rest['scaling']!r} --order bhsd"
    if decoder:
        options += " --causal"
    if rest.get("sliding_window"):
        options += f" --window {rest['sliding_window'] - 1},0"
    if rest.get("softcap"):
        options += f" --soft-cap {rest['softcap']}"
    if rest.get("s_aux") is not None:
        tensors["sinks"] = rest["s_aux"]
    if t5 and module.has_relative_attention_bias:
        tensors["distance_bias"] = biases(module, s_k - 1)
    o = o.clone()
    if not t5:  # padded on the left
        tensors["q_lengths"] = tensors["k_lengths"] = torch.tensor([S, SHORT])
        options += " --padding left"
        o[1, :, :S - SHORT] = 0  # nobody reads these
    elif not module.is_decoder or s_q != s_k:  # keys alone are padded: places count from the start
        tensors["k_lengths"] = torch.tensor([S, SHORT])
        options += " --align start"
    tensors["o"] = o
    return tensors, options, mask


def check(folder, tensors, options):
    """Whether `longspan check` finds o right, and its last line."""
    path = Path(folder) / "attention.safetensors"
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    program = shlex.split(os.environ.get("LONGSPAN", "longspan"))
    done = subprocess.run([*program, "check", "--input", path, "--result", path, "--threads", "2",
                           *shlex.split(options)], capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout + done.stderr).strip().split("\n")[-1]


def by_pairs(folder, tensors, options, mask):
    """The same with the model's mask in place of every option about it."""
    path = Path(folder) / "mask.npy"
    np.save(path, (mask == 0).expand(B, 1, -1, -1).numpy())
    words = shlex.split(options)
    kept = [w for i, w in enumerate(words)
            if w in ("--scale", "--order", "--soft-cap")
            or (i and words[i - 1] in ("--scale", "--order", "--soft-cap"))]
    tensors = {name: t for name, t in tensors.items() if not name.endswith("_lengths")}
    if tensors["q"].shape[2] == S and "--padding" in words:  # rows that nobody reads
        tensors["q_lengths"] = torch.tensor([S, SHORT])
        kept += ["--padding", "left"]
    return check(folder, tensors, f"{shlex.join(kept)} --mask {path}")


def main():
    """Prints a line for each attention of each model."""
    torch.manual_seed(0)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name, config in MODELS.items():
            for number, call in enumerate(run(config)):
                tensors, options, mask = describe(call)
                bare = {key: tensors[key] for key in "qkvo"}
                tries = [("by options", True, check(folder, tensors, options)),
                         ("told nothing", False, check(folder, bare, "--order bhsd"))]
                if mask is not None:
                    tries.append(("pair by pair", True, by_pairs(folder, tensors, options, mask)))
                for how, wanted, (right, line) in tries:
                    good &= right == wanted
                    print(f"{'ok' if right == wanted else 'not ok'} - {name}, attention {number}, "
                          f"{how}: {line}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
