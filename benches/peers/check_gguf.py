#!/usr/bin/env python3
"""Compares this project's GGUF files with llama.cpp, and makes the block-type fixtures.

    python3 -m venv venv
    venv/bin/pip install numpy safetensors tokenizers gguf llama-cpp-python
    venv/bin/python benches/peers/check_gguf.py check CHECKPOINT_DIR... [--cerebellum BINARY]
    venv/bin/python benches/peers/check_gguf.py real CHECKPOINT tests/data/golden-real/NAME.safetensors
    venv/bin/python benches/peers/check_gguf.py fixtures tests/data/gguf
    venv/bin/python benches/peers/check_gguf.py blocks tests/data/gguf
    venv/bin/python benches/peers/check_gguf.py decode FILE.gguf

`check` exports each checkpoint (a directory or a GGUF file) as F32 and F16, evaluates it in llama.cpp, and
says how far its logits are from those of our float32 reference (`cerebellum logits --checkpoint`), and from
the checkpoint's golden.safetensors if there is one (made by transformers). What our exporter or llama.cpp
refuses is named. For a GPT-2 it also says how far they are from the definition in numpy with the tanh GELU,
which is what llama.cpp computes whatever the checkpoint says, and what is left of that difference if numpy
rounds what llama.cpp rounds to float16. If there is a tokenizer.json, llama.cpp must encode texts with the
exported one as Hugging Face's library does with the original.

`real` exports a published model as F32 and compares llama.cpp with its golden logits, which are those of the
32 most likely tokens, and with its greedy continuations.

`fixtures` writes tiny models in every block type, quantized by llama.cpp, and what they decode to:
expected.json has a CRC-32 of each tensor's float32 bytes, on which the gguf package must agree with
llama.cpp; expected.safetensors has llama.cpp's logits for the decoded weights.

`blocks` writes blocks.gguf, one tensor of random blocks for each type, and blocks.safetensors with what
the gguf package decodes them to. `decode` writes FILE.f32, all tensors of a file decoded, in the order of
its table: what the test a_real_file_decodes_to_the_very_bits compares with. Both need numpy, safetensors
and gguf only.
"""

import argparse
import ctypes
import json
import subprocess
import tempfile
import zlib
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

# Names and numbers of enum llama_ftype.
F32, BF16 = 0, 32
FIXTURES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "bf16": BF16}
K_FIXTURES = {"q4_k": 14, "q5_k": 16, "q6_k": 18}

# The types that we decode, and where in a block (for plain types: in an element) a float16 stands.
HALVES = {"F32": [], "F16": [0], "BF16": [], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0],
          "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
          "IQ4_NL": [0], "IQ4_XS": [0]}

TEXTS = [
    "Once upon a time, there was a little girl.", "  two  spaces\n\n\tand a tab ", "it's we'll I'D",
    "1234567890 12.5%", "naïve café — “quotes” 日本語 🙂", "<|endoftext|>next", "a", " ", "!!!???...",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    check_args = commands.add_parser("check")
    check_args.add_argument("checkpoints", nargs="+", type=Path)
    check_args.add_argument("--cerebellum", default="target/release/cerebellum")
    real_args = commands.add_parser("real")
    real_args.add_argument("checkpoint", type=Path)
    real_args.add_argument("golden", type=Path)
    real_args.add_argument("--cerebellum", default="target/release/cerebellum")
    fixture_args = commands.add_parser("fixtures")
    fixture_args.add_argument("directory", type=Path)
    block_args = commands.add_parser("blocks")
    block_args.add_argument("directory", type=Path)
    decode_args = commands.add_parser("decode")
    decode_args.add_argument("file", type=Path)
    args = parser.parse_args()
    if args.command == "decode":
        return decode(args.file)
    if args.command == "blocks":
        return blocks(args.directory)
    global llama_cpp, Tokenizer
    import llama_cpp
    from tokenizers import Tokenizer
    silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silence, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    if args.command == "check":
        for checkpoint in args.checkpoints:
            check(checkpoint, args.cerebellum)
    elif args.command == "real":
        real(args.checkpoint, args.golden, args.cerebellum)
    else:
        fixtures(args.directory)


# --- llama.cpp ---


def llama_logits(path, ids):
    """[tokens, vocabulary] in float32, with a float32 cache and without flash attention."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp does not load {path}"
    context = llama_cpp.llama_context_default_params()
    context.n_ctx, context.n_batch, context.n_ubatch = 256, 256, 256
    context.type_k = context.type_v = llama_cpp.GGML_TYPE_F32
    context.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, context)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.logits[i] = int(token), i, 1
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    assert llama_cpp.llama_decode(context, batch) == 0
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (vocab,)).copy()
            for i in range(len(ids))]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return np.stack(rows)


def llama_encode(path, texts):
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    encoded = []
    for text in texts:
        text = text.encode()
        ids = (llama_cpp.llama_token * (len(text) + 8))()
        count = llama_cpp.llama_tokenize(vocab, text, len(text), ids, len(ids), True, True)
        encoded.append(ids[:count])
    llama_cpp.llama_model_free(model)
    return encoded


def llama_quantize(source, target, ftype):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.pure, params.allow_requantize, params.nthread = ftype, True, True, 1
    result = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params))
    assert result == 0, f"llama.cpp does not quantize {source}"


# --- The definition, in numpy ---


def decoded(path):
    """Name to float32 array, decoded by the gguf package."""
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            .reshape(tensor.shape[::-1]).astype(np.float32)
            for tensor in gguf.GGUFReader(path).tensors}


def numpy_logits(path, ids, rounds=()):
    """GPT-2 by its definition, in double precision; or with what llama.cpp rounds to float16: "gelu",
    which it looks up in a table, and "inputs" of matrices that are stored as float16."""
    half = lambda x: x.astype(np.float16).astype(np.float64)
    inputs = half if "inputs" in rounds else lambda x: x
    w = {name: tensor.astype(np.float64) for name, tensor in decoded(path).items()}
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields[f"gpt2.{key}"].contents()
    heads, eps = field("attention.head_count"), field("attention.layer_norm_epsilon")
    norm = lambda x, n: ((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
                         * w[f"{n}.weight"] + w[f"{n}.bias"])
    linear = lambda x, n: inputs(x) @ w[f"{n}.weight"].T + w[f"{n}.bias"]
    exact = lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    gelu = (lambda x: half(exact(half(x)))) if "gelu" in rounds else exact
    x = w["token_embd.weight"][ids] + w["position_embd.weight"][: len(ids)]
    mask = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for layer in range(field("block_count")):
        name = lambda part: f"blk.{layer}.{part}"
        q, k, v = (part.reshape(len(ids), heads, -1).transpose(1, 0, 2) for part in
                   np.split(linear(norm(x, name("attn_norm")), name("attn_qkv")), 3, axis=-1))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + linear((scores @ v).transpose(1, 0, 2).reshape(x.shape), name("attn_output"))
        up = gelu(linear(norm(x, name("ffn_norm")), name("ffn_up")))
        x = x + linear(up, name("ffn_down"))
    return inputs(norm(x, "output_norm")) @ w.get("output.weight", w["token_embd.weight"]).T


# --- Commands ---


def check(checkpoint, cerebellum):
    with tempfile.TemporaryDirectory() as directory:
        for kind in ["f32", "f16"]:
            path = Path(directory) / f"{kind}.gguf"
            problem = export(checkpoint, path, kind, cerebellum)
            if problem:
                print(f"{checkpoint.name}: not exported: {problem}")
                return
            if not is_accepted(path):
                print(f"{checkpoint.name} {kind}: llama.cpp does not load it")
                continue
            for source, ids, expected in pairs(checkpoint, path, cerebellum):
                found = llama_logits(path, ids)[-len(expected):]
                error = np.abs(found - expected).max()
                agree = (found.argmax(-1) == expected.argmax(-1)).mean()
                print(f"{checkpoint.name} {kind}: {len(ids)} tokens, largest difference to {source}"
                      f" {error:.2e} (logits up to {np.abs(expected).max():.1f}),"
                      f" same most likely token {agree:.1%}")
            if is_gpt2(path):
                rounds = ["gelu"] if kind == "f32" else ["gelu", "inputs"]
                error = np.abs(found - numpy_logits(path, ids, rounds)).max()
                print(f"{checkpoint.name} {kind}: {error:.2e} with {' and '.join(rounds)} in float16")
        if (checkpoint / "tokenizer.json").exists():
            tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
            expected = [tokenizer.encode(text).ids for text in TEXTS]
            assert llama_encode(path, TEXTS) == expected, "the tokenizers differ"
            print(f"{checkpoint.name}: both tokenizers agree on {len(TEXTS)} texts")


def export(checkpoint, path, kind, cerebellum):
    """Why it cannot be exported, if it cannot."""
    command = [cerebellum, "export-gguf", checkpoint, "-o", path, "--type", kind, "--quiet"]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return result.stderr.strip() if result.returncode else None


def is_accepted(path):
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if model:
        llama_cpp.llama_model_free(model)
    return bool(model)


def is_gpt2(path):
    return gguf.GGUFReader(path).fields["general.architecture"].contents() == "gpt2"


def pairs(checkpoint, path, cerebellum):
    golden = checkpoint / "golden.safetensors"
    if golden.exists():
        tensors = load_file(golden)
        last = max(int(name.split(".")[1]) for name in tensors if name.startswith("ids."))
        yield "transformers", tensors[f"ids.{last}"], tensors[f"logits.{last}"]
    reader = gguf.GGUFReader(path)
    rows = next(t for t in reader.tensors if t.name == "token_embd.weight").shape[1]
    ids = np.random.default_rng(0).integers(0, rows, 32)
    yield "our reference", ids, reference_logits(checkpoint, ids, cerebellum)
    if is_gpt2(path):
        yield "numpy", ids, numpy_logits(path, ids)


def real(checkpoint, golden, cerebellum):
    tensors = load_file(golden)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f32.gguf"
        problem = export(checkpoint, path, "f32", cerebellum)
        assert not problem, problem
        for case in sorted(name.removeprefix("greedy.") for name in tensors if name.startswith("greedy.")):
            ids, greedy = tensors[f"ids.{case}"], tensors[f"greedy.{case}"]
            logits = llama_logits(path, np.concatenate([ids, greedy[:-1]]))
            # If each token is the most likely one after those before it, the greedy loop ends in the same.
            chosen = logits[len(ids) - 1:].argmax(-1)
            same = int((chosen == greedy).cumprod().sum())
            text = f"{checkpoint.name}, prompt {case}: {same} of {len(greedy)} greedy tokens agree"
            if same < len(greedy):
                at = logits[len(ids) - 1 + same]
                text += f", then {at[chosen[same]] - at[greedy[same]]:.1e} between the two"
            if f"top_ids.{case}" in tensors:
                top = np.take_along_axis(logits[:len(ids)], tensors[f"top_ids.{case}"].astype(int), -1)
                error = np.abs(top - tensors[f"top_logits.{case}"]).max()
                text += f"; logits differ by at most {error:.1e}"
            print(text, flush=True)


def reference_logits(checkpoint, ids, cerebellum):
    tokens = ",".join(map(str, ids))
    command = [cerebellum, "logits", "--checkpoint", checkpoint, "--tokens", tokens, "--all", "--json"]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.array(json.loads(report)["logits"], np.float32)


def fixtures(directory):
    directory.mkdir(parents=True, exist_ok=True)
    expected, crcs = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        for types, shape in [(FIXTURES, dict(embd=64, inner=96, heads=2, vocab=60)),
                             (K_FIXTURES, dict(embd=256, inner=32, heads=4, vocab=60))]:
            original = Path(temporary) / "original.gguf"
            random_model(original, **shape)
            ids = np.random.default_rng(1).integers(0, shape["vocab"], 12)
            for name, ftype in types.items():
                path, back = directory / f"{name}.gguf", Path(temporary) / "back.gguf"
                llama_quantize(original, path, ftype)
                llama_quantize(path, back, F32)
                ours, theirs = decoded(path), decoded(back)
                for tensor in ours:
                    off = np.abs(ours[tensor] - theirs[tensor]).max()
                    assert off <= 1e-6 * np.abs(ours[tensor]).max(), f"{name} {tensor}: {off}"
                crcs[name] = {tensor: zlib.crc32(values.tobytes()) for tensor, values in ours.items()}
                logits = llama_logits(back, ids)
                expected[f"ids.{name}"], expected[f"logits.{name}"] = ids, logits
                error = np.abs(numpy_logits(path, ids) - logits).max()
                types_used = sorted({t.tensor_type.name for t in gguf.GGUFReader(path).tensors})
                print(f"{name}: {path.stat().st_size} bytes, {', '.join(types_used)};"
                      f" llama.cpp and numpy differ by {error:.2e}")
    save_file(expected, directory / "expected.safetensors")
    (directory / "expected.json").write_text(json.dumps(crcs, indent=1, sort_keys=True) + "\n")


def decode(path):
    with open(path.with_suffix(".f32"), "wb") as file:
        for tensor in gguf.GGUFReader(path).tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            file.write(values.astype("<f4").tobytes())


def blocks(directory):
    """Two rows of two blocks of each type, or of 16 elements: any bytes, but finite float16."""
    rng = np.random.default_rng(11)
    writer = gguf.GGUFWriter(directory / "blocks.gguf", "blocks")
    for name, halves in HALVES.items():
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        rows = rng.integers(0, 256, (2, 2 if elements > 1 else 16, size), np.uint8)
        for at in halves:
            # Of the exponent 31, infinity's, one bit is cleared; all others stay, zero's too.
            high = rows[..., at + 1]
            high[high & 0x7c == 0x7c] ^= 0x40
        if name in ("F32", "BF16"):
            rows[..., -1] &= 0xbf
        writer.add_tensor(name, rows.reshape(2, -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = decoded(directory / "blocks.gguf")
    assert all(np.isfinite(values).all() for values in expected.values())
    save_file(expected, directory / "blocks.safetensors")


def random_model(path, embd, inner, heads, vocab, positions=16):
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(positions)
    writer.add_embedding_length(embd)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(1)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("no_vocab")
    matrix = lambda *shape: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
    vector = lambda n, mean=0: (mean + 0.1 * rng.standard_normal(n)).astype(np.float32)
    writer.add_tensor("token_embd.weight", matrix(vocab, embd) * 4)
    writer.add_tensor("position_embd.weight", matrix(positions, embd))
    for norm in ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"]:
        writer.add_tensor(f"{norm}.weight", vector(embd, 1))
        writer.add_tensor(f"{norm}.bias", vector(embd))
    for name, out, into in [("attn_qkv", 3 * embd, embd), ("attn_output", embd, embd),
                            ("ffn_up", inner, embd), ("ffn_down", embd, inner)]:
        writer.add_tensor(f"blk.0.{name}.weight", matrix(out, into))
        writer.add_tensor(f"blk.0.{name}.bias", vector(out))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
