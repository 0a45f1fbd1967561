"""Logits of `btlm-6-heads` beyond the length that it was trained for, in float64: writes
`btlm-6-heads/alibi-scaling.safetensors` (needs numpy and safetensors).

The formulas are those of the models' published PyTorch code, tokens come one at a time, and keys and
values are cached, as when that code generates. Without scaling it must agree with the golden logits,
which another implementation computed.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

CASE = Path(__file__).parent / "btlm-6-heads"
HEADS, LAYERS, HEAD_SIZE = 6, 2, 16
EMBEDDINGS_SCALE, LOGITS_SCALE = 14.6, 2.22 * 0.1
TOKENS = 160  # n_positions is 96
SCALINGS = {"none": {}, "factor": {"factor": 2.5}, "dynamic": {"train_seq_len": 64}}


def weights():
    """The tensors in float64. numpy has no bfloat16, which is the upper half of a float32."""
    bytes_ = (CASE / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(bytes_[:8], "little")
    header = json.loads(bytes_[8:start])
    header.pop("__metadata__", None)
    for name, info in header.items():
        first, last = (start + offset for offset in info["data_offsets"])
        half = np.frombuffer(bytes_[first:last], "<u2").astype(np.uint32) << 16
        values = half.view(np.float32).astype(np.float64).reshape(info["shape"])
        yield name.removeprefix("transformer."), values


W = dict(weights())


def slopes():
    """2^(-8/n), 2^(-16/n), ... for n = 4 heads, then every other one of those for n = 8."""
    def power_of_two(n):
        return [2 ** (-8 * (i + 1) / n) for i in range(n)]

    return np.array(power_of_two(4) + power_of_two(8)[0::2][: HEADS - 4])


def scale(scaling, keys):
    if "factor" in scaling:
        return scaling["factor"]
    length = scaling.get("train_seq_len", keys)
    return keys / length if keys > length else 1.0


def norm(x, name):
    x = x - x.mean()
    return x / np.sqrt((x * x).mean() + 1e-5) * W[name + ".weight"] + W[name + ".bias"]


def linear(x, name):
    return x @ W[name + ".weight"] + W[name + ".bias"]


def step(token, cache, scaling):
    """The logits after one more token."""
    x = W["wte.weight"][token] * EMBEDDINGS_SCALE
    for layer in range(LAYERS):
        h = f"h.{layer}."
        qkv = linear(norm(x, h + "ln_1"), h + "attn.c_attn").reshape(3, HEADS, HEAD_SIZE)
        cache[layer].append((qkv[1], qkv[2]))
        keys, values = (np.stack(part) for part in zip(*cache[layer]))  # (keys, heads, head size)
        distance = len(keys) - 1 - np.arange(len(keys))
        scores = np.einsum("hd,khd->hk", qkv[0], keys) / HEAD_SIZE
        scores += (slopes() / -scale(scaling, len(keys)))[:, None] * distance
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        x = x + linear(np.einsum("hk,khd->hd", p, values).reshape(-1), h + "attn.c_proj")
        normed = norm(x, h + "ln_2")
        gate = linear(normed, h + "mlp.c_fc2")
        x = x + linear(linear(normed, h + "mlp.c_fc") * gate / (1 + np.exp(-gate)), h + "mlp.c_proj")
    return W["wte.weight"] @ norm(x, "ln_f") * LOGITS_SCALE


def logits(ids, scaling):
    cache = [[] for _ in range(LAYERS)]
    return np.stack([step(token, cache, scaling) for token in ids]).astype(np.float32)


golden = load_file(CASE / "golden.safetensors")
for k in range(5):
    error = np.abs(logits(golden[f"ids.{k}"], {}) - golden[f"logits.{k}"]).max()
    print(f"golden pair {k}: largest difference {error:.1e}")
    assert error < 1e-5

ids = np.random.default_rng(7).integers(0, 311, TOKENS)
positions = np.arange(3, TOKENS, 4)
out = {f"logits.{name}": logits(ids, scaling)[positions] for name, scaling in SCALINGS.items()}
for name in ("factor", "dynamic"):
    difference = np.abs(out[f"logits.{name}"] - out["logits.none"]).max(axis=1)
    print(f"{name}: {(difference > 0).sum()} positions of {len(positions)} differ, by up to {difference.max():.2g}")
save_file({"ids": ids, "positions": positions, **out}, CASE / "alibi-scaling.safetensors")
