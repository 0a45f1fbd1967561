#!/usr/bin/env python3
"""What quantization costs here and in llama.cpp: the same checkpoint, tokens and windows.

    python3 -m venv venv
    venv/bin/pip install numpy scipy safetensors tokenizers gguf llama-cpp-python
    venv/bin/python benches/peers/quality.py CHECKPOINT --text TEXT --calibration TEXT \\
        [--only NAME...] [--cerebellum BINARY] [--record FILE.md] [--plot FILE.svg] [--keep DIRECTORY]

CHECKPOINT is a directory or a GGUF file, of a GPT-2, or of a family that has one base of rotation for all
layers or is Gemma 3: Llama, Qwen2, Qwen3. llama.cpp quantizes the F32 file of `cerebellum export-gguf` to
each of its types, without and with an importance matrix of the calibration text. Every prediction is compared
with a float32 model in numpy, written here from the definition (a GPT-2's with the checkpoint's GELU; llama.cpp
computes the tanh form, which the row F32 shows; another family's from the exported file). The protocol and the
figures are those of docs/quality.md; `cerebellum eval` measures the files of this project, and must find the
same perplexity of the reference.

`--only` names the rows of the table that are wanted: `--only Q8_0 Q4_K_M Q4_0 int8 "int4 / 64" "int4 / 32"
"budget 4.6, calibrated"`.

Bits per weight are all bits of the tensors over their elements, tied ones counted once, the tokenizer
left out, for both.

`--keep` holds every file and every measurement, so that an interrupted run goes on where it was and a new
build measures only this project's files again. What is kept is known by a digest of all that it depends on:
texts, checkpoint, windows, and the program that made it.
"""

import argparse
import contextlib
import ctypes
import hashlib
import json
import multiprocessing
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

# Each process works on windows of its own, so that one thread is enough for each.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf
from tokenizers import Tokenizer

# Names and numbers of enum llama_ftype, and whether an importance matrix changes anything.
TYPES = [("Q8_0", 7, False), ("Q6_K", 18, True), ("Q5_K_M", 17, True), ("Q4_K_M", 15, True),
         ("Q4_0", 2, True), ("IQ4_XS", 30, True), ("Q3_K_M", 12, True)]
BUDGETS = ["3.5", "4.1", "4.25", "4.5", "4.6", "5", "5.5", "5.89", "6", "6.5", "7.2", "8.2"]
WINDOW = 512
CALIBRATION_WINDOWS = 64
# Files that are measured together, so that the float model is evaluated once for all of them.
LOT = 3
# Predictions compared at once, which bounds memory with a large vocabulary.
ROWS = 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="directory or GGUF file")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these rows")
    parser.add_argument("--text", type=Path, required=True, help="what is predicted")
    parser.add_argument("--calibration", type=Path, required=True, help="what may be learned from")
    parser.add_argument("--cerebellum", default="target/release/cerebellum")
    parser.add_argument("--windows", type=int, help="only the first windows of the text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes for llama.cpp")
    parser.add_argument("--record", type=Path, help="where to write the table")
    parser.add_argument("--plot", type=Path, help="where to draw divergence over size, as SVG")
    parser.add_argument("--keep", type=Path, help="directory for files and figures, to go on later")
    args = parser.parse_args()
    silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silence, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    temporary = contextlib.nullcontext(args.keep) if args.keep else tempfile.TemporaryDirectory()
    with temporary as directory:
        weights = args.checkpoint
        if weights.is_dir():
            weights /= "model.safetensors"
        inputs = [weights, args.text, args.calibration]
        digest = lambda *parts: digest_of(*inputs, f"{args.windows} {CALIBRATION_WINDOWS}", *parts)
        peers = Kept(directory, "llama.cpp", digest(llama_cpp.__version__))
        exported = peers.file("F32", ".gguf", lambda path: export(args, path))
        tokenizer = tokenizer_of(args.checkpoint, exported)
        reference = reference_of(args.checkpoint, exported)
        begin = begin_of_text(exported)
        tokens = windows_of(tokenizer, args.text.read_text(), reference.positions, begin)[:args.windows]
        rows = llama_rows(args, peers, exported, tokenizer, reference, tokens)
        ours = Kept(directory, "cerebellum", digest(Path(args.cerebellum)))
        rows += our_rows(args, ours, tokenizer, tokens, rows[0])
    table = render(args, rows, tokens)
    print(table)
    if args.record:
        args.record.write_text(table)
    if args.plot:
        args.plot.write_text(plot(rows[1:]))


def export(args, path):
    command = [args.cerebellum, "export-gguf", args.checkpoint, "-o", path, "--type", "f32", "-q", "--force"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class LibraryTokenizer:
    """Of a tokenizer.json, by Hugging Face's library."""

    def __init__(self, path):
        self.tokenizer = Tokenizer.from_file(str(path))

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def prefix(self, text, tokens):
        """The beginning of `text` that has so many tokens."""
        return text[: self.tokenizer.encode(text, add_special_tokens=False).offsets[tokens - 1][1]]


class LlamaTokenizer:
    """That of a GGUF file, by llama.cpp."""

    def __init__(self, path):
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp does not load {path}"
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)

    def encode(self, text):
        text = text.encode()
        ids = (llama_cpp.llama_token * (len(text) + 8))()
        count = llama_cpp.llama_tokenize(self.vocabulary, text, len(text), ids, len(ids), False, True)
        return ids[:count]

    def prefix(self, text, tokens):
        buffer = ctypes.create_string_buffer(1024)
        piece = lambda token: llama_cpp.llama_token_to_piece(self.vocabulary, token, buffer, 1024, 0, True)
        size = sum(map(piece, self.encode(text)[:tokens]))
        return text.encode()[:size].decode(errors="ignore")


def tokenizer_of(checkpoint, exported):
    path = checkpoint / "tokenizer.json"
    return LibraryTokenizer(path) if path.exists() else LlamaTokenizer(exported)


def windows_of(tokenizer, text, positions, begin):
    """[windows, length]: the whole text's tokens, without overlap or rest. The first of each gives way to the
    token that the model wants before a text."""
    ids = np.array(tokenizer.encode(text))
    length = min(WINDOW, positions)
    windows = ids[: len(ids) // length * length].reshape(-1, length)
    if begin is not None:
        windows[:, 0] = begin
    return windows


def begin_of_text(exported):
    fields = gguf.GGUFReader(exported).fields
    wanted = fields.get("tokenizer.ggml.add_bos_token")
    return fields["tokenizer.ggml.bos_token_id"].contents() if wanted and wanted.contents() else None


def digest_of(*parts):
    """Of files' contents and of texts."""
    total = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


class Kept:
    """Files and rows by name, of one engine with the same inputs."""

    def __init__(self, directory, engine, digest):
        self.directory = Path(directory) / f"{engine}-{digest}"
        self.directory.mkdir(parents=True, exist_ok=True)

    def file(self, name, suffix, make):
        """The file, made by `make(path)` if it is not there."""
        path = self.directory / f"{plain(name)}{suffix}"
        if not path.exists():
            partial = path.with_name(f"partial{suffix}")
            make(partial)
            partial.rename(path)
        return path

    def rows(self, files, measure):
        """The rows of `files`, pairs of name and path: `measure` makes those of the ones that lack it."""
        row_path = lambda name: self.directory / f"{plain(name)}.json"
        missing = [file for file in files if not row_path(file[0]).exists()]
        for start in range(0, len(missing), LOT):
            for row in measure(missing[start : start + LOT]):
                partial = self.directory / "partial.json"
                partial.write_text(json.dumps(row))
                partial.rename(row_path(row["name"]))
        return [json.loads(row_path(name).read_text()) for name, _ in files]


def plain(name):
    return name.replace(" / ", "-").replace(", ", "-").replace(" ", "-")


# --- The float model ---


def gelu(x):
    return x * 0.5 * (1 + erf(x * np.float32(0.5 ** 0.5)))


def gelu_tanh(x):
    inner = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x ** 3)
    return x * 0.5 * (1 + np.tanh(inner))


GELU = {"gelu": gelu, "gelu_new": gelu_tanh}


class Reference:
    """GPT-2 by its definition, in float32."""

    def __init__(self, directory):
        config = json.loads((directory / "config.json").read_text())
        tensors = load_file(directory / "model.safetensors")
        self.w = {name.removeprefix("transformer."): tensor.astype(np.float32)
                  for name, tensor in tensors.items()}
        self.layers, self.heads = config["n_layer"], config["n_head"]
        self.positions, self.eps = config["n_positions"], config["layer_norm_epsilon"]
        self.gelu = GELU[config["activation_function"]]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self.eps))
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def logits(self, ids, observe=lambda name, x: None):
        """[tokens, vocabulary]; `observe` sees the input [tokens, in] of each matrix, by its GGUF name."""
        w, n = self.w, len(ids)

        def linear(x, name, exported):
            observe(exported, x)
            return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

        x = w["wte.weight"][ids] + w["wpe.weight"][:n]
        mask = np.triu(np.full((n, n), -np.inf, np.float32), 1)
        for layer in range(self.layers):
            name = lambda part: f"h.{layer}.{part}"
            gguf_name = lambda part: f"blk.{layer}.{part}.weight"
            qkv = linear(self.norm(x, name("ln_1")), name("attn.c_attn"), gguf_name("attn_qkv"))
            q, k, v = (part.reshape(n, self.heads, -1).transpose(1, 0, 2)
                       for part in np.split(qkv, 3, axis=-1))
            scores = q @ k.transpose(0, 2, 1) / np.float32(q.shape[-1] ** 0.5) + mask
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            heads = (scores @ v).transpose(1, 0, 2).reshape(x.shape)
            x = x + linear(heads, name("attn.c_proj"), gguf_name("attn_output"))
            up = linear(self.norm(x, name("ln_2")), name("mlp.c_fc"), gguf_name("ffn_up"))
            x = x + linear(self.gelu(up), name("mlp.c_proj"), gguf_name("ffn_down"))
        x = self.norm(x, "ln_f")
        head = w.get("lm_head.weight", w["wte.weight"])
        observe("output.weight" if "lm_head.weight" in w else "token_embd.weight", x)
        return x @ head.T


class Decoder:
    """Llama, Qwen2, Qwen3 or Gemma 3 by its definition, in float32, from an exported file."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.architecture = reader.fields["general.architecture"].contents()
        if self.architecture not in ("llama", "qwen2", "qwen3", "gemma3"):
            sys.exit(f"no float model here for {self.architecture}")

        def field(name, default=None):
            found = reader.fields.get(f"{self.architecture}.{name}")
            return found.contents() if found else default

        self.w = {t.name: np.array(t.data, np.float32).reshape(t.shape[::-1]) for t in reader.tensors}
        self.layers, self.positions = field("block_count"), field("context_length")
        self.heads, self.kv_heads = field("attention.head_count"), field("attention.head_count_kv")
        self.size, self.eps = field("attention.key_length"), field("attention.layer_norm_rms_epsilon")
        self.is_gemma = self.architecture == "gemma3"
        self.window = field("attention.sliding_window") if self.is_gemma else None
        self.pattern = field("attention.sliding_window_pattern", 6)
        scaling = field("rope.scaling.type", "none")
        if scaling not in ("none", "linear"):
            sys.exit(f"no float model here for {scaling} positions")
        pairs = self.size // 2
        frequencies = lambda base: base ** -(np.arange(pairs) / pairs)
        full = frequencies(field("rope.freq_base", 1e4)) / field("rope.scaling.factor", 1.0)
        if "rope_freqs.weight" in self.w:
            full /= self.w["rope_freqs.weight"].astype(np.float64)
        windowed = frequencies(field("rope.freq_base_swa", 1e4)) if self.is_gemma else full
        self.frequencies = {False: full, True: windowed}

    def norm(self, x, name):
        root = np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self.eps))
        return x / root * self.w[f"{name}.weight"]

    def rotate(self, x, is_windowed):
        """[heads, tokens, size]. In Llama's files neighbours turn together, else the two halves."""
        angles = np.arange(x.shape[1])[:, None] * self.frequencies[is_windowed]
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        out = np.empty_like(x)
        if self.architecture == "llama":
            halves = (Ellipsis, slice(0, None, 2)), (Ellipsis, slice(1, None, 2))
        else:
            halves = (Ellipsis, slice(None, self.size // 2)), (Ellipsis, slice(self.size // 2, None))
        a, b = x[halves[0]], x[halves[1]]
        out[halves[0]], out[halves[1]] = a * cos - b * sin, b * cos + a * sin
        return out

    def logits(self, ids, observe=lambda name, x: None):
        """[tokens, vocabulary]; `observe` sees the input [tokens, in] of each matrix, by its GGUF name."""
        w, n = self.w, len(ids)

        def linear(x, name):
            observe(f"{name}.weight", x)
            y = x @ w[f"{name}.weight"].T
            return y + w[f"{name}.bias"] if f"{name}.bias" in w else y

        x = w["token_embd.weight"][ids]
        if self.is_gemma:
            x = x * np.float32(np.sqrt(x.shape[1]))
        behind = np.arange(n)[:, None] - np.arange(n)
        for layer in range(self.layers):
            name = lambda part: f"blk.{layer}.{part}"
            is_windowed = self.is_gemma and (layer + 1) % self.pattern != 0
            h = self.norm(x, name("attn_norm"))
            q, k, v = (linear(h, name(f"attn_{part}")).reshape(n, -1, self.size).transpose(1, 0, 2)
                       for part in "qkv")
            if name("attn_q_norm.weight") in w:
                q, k = self.norm(q, name("attn_q_norm")), self.norm(k, name("attn_k_norm"))
            q, k = self.rotate(q, is_windowed), self.rotate(k, is_windowed)
            k, v = (np.repeat(part, self.heads // self.kv_heads, 0) for part in (k, v))
            scores = q @ k.transpose(0, 2, 1) / np.float32(self.size ** 0.5)
            scores[:, (behind < 0) | (is_windowed & (behind >= (self.window or n)))] = -np.inf
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            out = linear((scores @ v).transpose(1, 0, 2).reshape(n, -1), name("attn_output"))
            if self.is_gemma:
                out = self.norm(out, name("post_attention_norm"))
            x = x + out
            h = self.norm(x, name("ffn_norm"))
            gate, up = linear(h, name("ffn_gate")), linear(h, name("ffn_up"))
            gate = gelu_tanh(gate) if self.is_gemma else gate / (1 + np.exp(-gate))
            out = linear(gate * up, name("ffn_down"))
            if self.is_gemma:
                out = self.norm(out, name("post_ffw_norm"))
            x = x + out
        return linear(self.norm(x, "output_norm"), "output" if "output.weight" in w else "token_embd")


def reference_of(checkpoint, exported):
    architecture = gguf.GGUFReader(exported).fields["general.architecture"].contents()
    return Reference(checkpoint) if architecture == "gpt2" else Decoder(exported)


# --- llama.cpp ---


def llama_rows(args, kept, exported, tokenizer, reference, windows):
    """A row for the float model, and one for each of llama.cpp's files."""
    matrix = None
    files = [("F32", exported)]
    for name, ftype, learns in TYPES:
        if wanted(args, name):
            make = lambda path: llama_quantize(exported, path, ftype)
            files.append((name, kept.file(name, ".gguf", make)))
        if learns and wanted(args, f"{name}, imatrix"):
            if matrix is None:
                calibration = windows_of(tokenizer, args.calibration.read_text(), reference.positions,
                                         begin_of_text(exported))
                matrix = importance(reference, calibration[:CALIBRATION_WINDOWS])
            make = lambda path: llama_quantize(exported, path, ftype, matrix)
            files.append((f"{name}, imatrix", kept.file(f"{name}, imatrix", ".gguf", make)))
    rows = kept.rows(files, lambda files: compare(reference, files, windows, args.jobs))
    return [{"engine": "reference", "perplexity": rows[0]["reference_perplexity"]}, *rows]


def wanted(args, name):
    return not args.only or name in args.only


def importance(reference, windows):
    """Mean square of each input of each matrix, as llama-imatrix collects it (and of the head, too)."""
    sums = {}

    def observe(name, x):
        sums[name] = sums.get(name, 0) + np.square(x, dtype=np.float64).sum(0)

    for ids in windows:
        reference.logits(ids, observe)
    return {name: (total / windows.size).astype(np.float32) for name, total in sums.items()}


def llama_quantize(source, target, ftype, matrix=None):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, os.cpu_count()
    if matrix:
        entries = (llama_cpp.llama_model_imatrix_data * (len(matrix) + 1))()
        for entry, (name, values) in zip(entries, matrix.items()):
            entry.name, entry.size = name.encode(), len(values)
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = entries
    result = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params))
    assert result == 0, f"llama.cpp does not quantize to {target.name}"
    return target


class Llama:
    """A GGUF file in llama.cpp, with its own choice of cache and attention."""

    def __init__(self, path, window):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp does not load {path}"
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = context.n_batch = context.n_ubatch = window
        context.n_threads = context.n_threads_batch = 1
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        self.batch = llama_cpp.llama_batch_init(window, 0, 1)
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(vocabulary)

    def logits(self, ids):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = int(token), i, 1
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
        assert llama_cpp.llama_decode(self.context, self.batch) == 0
        logits = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(logits, (len(ids), self.vocabulary))


def bits_per_weight(path):
    tensors = gguf.GGUFReader(path).tensors
    return 8 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)


# --- Measuring ---


def compare(reference, files, windows, jobs):
    """A row for each file of llama.cpp."""
    paths = [path for _, path in files]
    parts = [(reference, paths, windows[job::jobs]) for job in range(jobs)]
    scores = np.empty((4, len(files), len(windows), windows.shape[1] - 1))
    with multiprocessing.Pool(jobs) as pool:
        for job, part in enumerate(pool.starmap(score, parts)):
            scores[:, :, job::jobs] = part
    rows = []
    for (name, path), nll, float_nll, kl, top in zip(files, *scores):
        low, high = interval(nll - float_nll)
        rows.append({
            "name": name, "engine": "llama.cpp", "bits": bits_per_weight(path),
            "bytes": path.stat().st_size, "perplexity": float(np.exp(nll.mean())),
            "reference_perplexity": float(np.exp(float_nll.mean())),
            "ratio": float(np.exp((nll - float_nll).mean())),
            "ratio_interval": [float(np.exp(low)), float(np.exp(high))],
            "kl": float(kl.mean()), "kl_interval": interval(kl), "kl_p99": quantile(kl, 0.99),
            "top": float(top.mean()),
        })
    return rows


def score(reference, paths, windows):
    """[4, files, windows, tokens]: negative log-likelihoods of file and reference, divergence, agreement."""
    models = [Llama(path, windows.shape[1]) for path in paths]
    scores = np.empty((4, len(paths), len(windows), windows.shape[1] - 1))
    for done, window in enumerate(windows):
        inputs = window[:-1]
        expected = reference.logits(inputs)
        for index, model in enumerate(models):
            found = model.logits(inputs)
            for first in range(0, len(inputs), ROWS):
                rows = slice(first, first + ROWS)
                scores[:, index, done, rows] = compared(expected[rows], found[rows], window[1:][rows])
        print(f"{done + 1} of {len(windows)} windows", file=sys.stderr)
    return scores


def compared(expected, found, targets):
    """Negative log-likelihoods of both, divergence and agreement of predictions [tokens, vocabulary]."""
    p, q = log_softmax(expected), log_softmax(found)
    divergence = (np.exp(p) * (p - q)).sum(-1)
    at = np.arange(len(targets)), targets
    return -q[at], -p[at], divergence, expected.argmax(-1) == found.argmax(-1)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def interval(values):
    """95 % confidence interval over the windows' means."""
    means = values.mean(-1)
    half = 1.959964 * means.std(ddof=1) / len(means) ** 0.5
    return [float(means.mean() - half), float(means.mean() + half)]


def quantile(values, share):
    ordered = np.sort(values, axis=None)
    return float(ordered[int(np.ceil(share * len(ordered))) - 1])


def our_rows(args, kept, tokenizer, windows, reference):
    """A row for each file of this project, measured by `cerebellum eval` on the same windows."""
    calibration = ["--calibration", args.calibration, "--calibration-windows", str(CALIBRATION_WINDOWS)]
    # What `--weights int8` makes by itself; with int4 that is int4 / 64.
    variants = [("int8", ["--weights", "int8"]), ("int8, calibrated", ["--weights", "int8", *calibration])]
    schemes, groups = ["int8", "int4", "nl4", "tc3"], ["32", "64", "128"]
    for scheme, group in [(scheme, group) for scheme in schemes for group in groups]:
        uniform = ["--weights", scheme, "--group-size", group]
        name = f"{scheme} / {group}"
        variants += [(name, [*uniform, "--no-calibration"]), (f"{name}, calibrated", uniform + calibration)]
    variants += [(f"budget {bits}, calibrated", ["--bits", bits] + calibration) for bits in BUDGETS]
    files = []
    for name, options in variants:
        if not wanted(args, name):
            continue
        command = [args.cerebellum, "quantize", args.checkpoint, "-q", "--force", *options, "-o"]
        make = lambda path: subprocess.run([*command, path], check=True, stdout=subprocess.DEVNULL)
        try:
            files.append((name, kept.file(name, ".cbl", make)))
        except subprocess.CalledProcessError:
            print(f"left out, since it cannot be made: {name}", file=sys.stderr)
    text = args.text
    if args.windows:
        text = kept.directory / "text.txt"
        text.write_text(tokenizer.prefix(args.text.read_text(), windows.size + 2))
    return kept.rows(files, lambda files: evaluate(args, text, files, windows, reference))


def evaluate(args, text, files, windows, reference):
    command = [args.cerebellum, "eval", "--text", text, "--reference", args.checkpoint, "--json"]
    command += [part for _, path in files for part in ["-m", path]]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    rows = []
    for (name, path), result in zip(files, report["results"]):
        assert result["windows"] == len(windows), "the two see different windows"
        difference = result["reference_perplexity"] / reference["perplexity"] - 1
        assert abs(difference) < 1e-4, f"the two float models differ by {difference:.1e}"
        rows.append({
            "name": name, "engine": "cerebellum", "bits": result["bits_per_weight"],
            "bytes": path.stat().st_size, "perplexity": result["perplexity"],
            "ratio": result["perplexity_ratio"], "ratio_interval": result["perplexity_ratio_interval"],
            "kl": result["kl_mean"], "kl_interval": result["kl_mean_interval"],
            "kl_p99": result["kl_p99"], "top": result["top1_agreement"],
        })
    return rows


# --- The table ---


def render(args, rows, windows):
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    lines = [
        "# Quality beside llama.cpp", "",
        f"Machine: {processor()}, {os.cpu_count()} processors. llama-cpp-python {llama_cpp.__version__}, "
        f"numpy {np.__version__}, {version(args.cerebellum)}.",
        f"Command: `{shlex.join(Path(part).name if '/' in part else part for part in command)}`", "",
        f"{len(windows)} windows of {windows.shape[1]} tokens; the float model's perplexity is "
        f"{rows[0]['perplexity']:.3f}. In brackets: 95 % confidence intervals.", "",
        "| engine | weights | bits per weight | file, bytes | perplexity | mean KL | 99 % KL | top-1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows[1:], key=lambda row: -row["bits"]):
        low, high = (100 * (end - 1) for end in row["ratio_interval"])
        kl_low, kl_high = row["kl_interval"]
        lines.append(
            f"| {row['engine']} | {row['name']} | {row['bits']:.3f} | {row['bytes']} "
            f"| {100 * (row['ratio'] - 1):+.2f} % ({low:+.2f} to {high:+.2f}) "
            f"| {row['kl']:.5f} ({kl_low:.5f} to {kl_high:.5f}) | {row['kl_p99']:.4f} "
            f"| {100 * row['top']:.2f} % |")
    return "\n".join(lines) + "\n"


def plot(rows):
    """An SVG of the mean divergence, on a logarithmic axis, over bits per weight."""
    left, right, top, bottom = 60, 620, 20, 360
    rows = [row for row in rows if row["kl"] > 0 and row["bits"] < 16]
    bits, decades = [row["bits"] for row in rows], [np.log10(row["kl"]) for row in rows]
    first, last = int(np.floor(min(bits))), int(np.ceil(max(bits)))
    low, high = int(np.floor(min(decades))), int(np.ceil(max(decades)))
    x = lambda bits: left + (right - left) * (bits - first) / (last - first)
    y = lambda decade: bottom + (top - bottom) * (decade - low) / (high - low)
    text = lambda x, y, anchor, words: f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'
    line = lambda x1, y1, x2, y2: f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 410" font-family="sans-serif" font-size="11">',
             "<title>Mean KL divergence over bits per weight</title>",
             '<rect width="640" height="410" fill="#fff"/>', '<g stroke="#ddd">']
    parts += [line(x(b), bottom, x(b), top) for b in range(first, last + 1)]
    parts += [line(left, y(d), right, y(d)) for d in range(low, high + 1)]
    parts += ["</g>", '<g fill="#333">']
    parts += [text(x(b), bottom + 16, "middle", b) for b in range(first, last + 1)]
    parts += [text(left - 6, y(d) + 4, "end", f"{10.0 ** d:g}") for d in range(low, high + 1)]
    parts += [text((left + right) / 2, bottom + 34, "middle", "bits per weight"),
              text(left, top - 6, "start", "mean KL divergence, nats")]
    for row in rows:
        at, level = x(row["bits"]), y(np.log10(row["kl"]))
        is_ours = row["engine"] == "cerebellum"
        parts.append(f'<circle cx="{at:.1f}" cy="{level:.1f}" r="4" fill="#06c"/>' if is_ours else
                     f'<rect x="{at - 4:.1f}" y="{level - 4:.1f}" width="8" height="8" fill="#c50"/>')
        parts.append(text(at + (-8 if is_ours else 8), level + 4, "end" if is_ours else "start", row["name"]))
    parts += [text(right, top + 14, "end", "circles: this project; squares: llama.cpp"), "</g>", "</svg>"]
    return "\n".join(parts) + "\n"


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def version(binary):
    return subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
