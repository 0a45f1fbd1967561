"""Cerebras-GPT checkpoints with random weights, and the files that each runtime makes of them.

The speed of a GPT depends on its shape, not on what it has learned, so nothing needs to be fetched.
"""

import ctypes
import json
import subprocess
from pathlib import Path

import numpy as np

from worker import VOCABULARY, silence_llama

POSITIONS = 2048

# Width, heads and layers (Dey et al. 2023, arXiv:2304.03208, table 1); the MLP is four times as wide.
SHAPES = {"111M": (768, 12, 10), "256M": (1088, 17, 14), "1.3B": (2048, 16, 24)}

# What `cerebellum quantize` and llama.cpp's llama_model_quantize are asked for.
OURS = {
    "int4": ["--weights", "int4", "--group-size", "64"],
    "int4/128": ["--weights", "int4", "--group-size", "128"],
    "int8": ["--weights", "int8"],
}
LLAMA_TYPES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}


class Files:
    """The files of one shape under a directory, each made when it is first asked for."""

    def __init__(self, directory, shape, cerebellum):
        self.directory, self.shape, self.cerebellum = Path(directory), shape, cerebellum

    def ours(self, weights):
        path = self._path(f"{weights.replace('/', '-')}.cbl")
        if not path.exists():
            self._run("quantize", self.checkpoint(), "-o", path, *OURS[weights])
        return path

    def llama(self, kind):
        path = self._path(f"{kind}.gguf")
        if not path.exists():
            half = path.with_suffix(".f16")
            self._run("export-gguf", self.checkpoint(), "-o", half, "--type", "f16", "--force")
            llama_quantize(half, path, LLAMA_TYPES[kind])
            half.unlink()
        return path

    def ctranslate2(self):
        path = self._path("ct2-int8")
        if not (path / "model.bin").exists():
            convert_ctranslate2(self.checkpoint(), SHAPES[self.shape], path)
        return path

    def checkpoint(self):
        path = self._path("checkpoint")
        if not (path / "model.safetensors").exists():
            random_checkpoint(path, *SHAPES[self.shape])
        return path

    def _path(self, name):
        return self.directory / f"{self.shape}-{name}"

    def _run(self, *arguments):
        print(f"making {arguments[3]}", flush=True)
        subprocess.run([self.cerebellum, *arguments, "--quiet"], check=True,
                       stdout=subprocess.DEVNULL)


def random_checkpoint(path, width, heads, layers):
    """A checkpoint as Hugging Face publishes them, in float16, without a tokenizer."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(2304)

    def matrix(*shape):
        return (0.02 * rng.standard_normal(shape, dtype=np.float32)).astype(np.float16)

    def linear(name, inputs, outputs):
        return {f"{name}.weight": matrix(inputs, outputs), f"{name}.bias": matrix(outputs)}

    def norm(name):
        return {f"{name}.weight": np.ones(width, np.float16), f"{name}.bias": matrix(width)}

    tensors = {"wte.weight": matrix(VOCABULARY, width), "wpe.weight": matrix(POSITIONS, width)}
    for layer in (f"h.{n}" for n in range(layers)):
        tensors |= norm(f"{layer}.ln_1") | norm(f"{layer}.ln_2")
        tensors |= linear(f"{layer}.attn.c_attn", width, 3 * width)
        tensors |= linear(f"{layer}.attn.c_proj", width, width)
        tensors |= linear(f"{layer}.mlp.c_fc", width, 4 * width)
        tensors |= linear(f"{layer}.mlp.c_proj", 4 * width, width)
    tensors |= norm("ln_f")
    config = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": VOCABULARY,
        "n_positions": POSITIONS, "n_embd": width, "n_head": heads, "n_layer": layers,
        "n_inner": 4 * width, "activation_function": "gelu", "layer_norm_epsilon": 1e-5,
        "bos_token_id": 50256, "eos_token_id": 50256,
    }
    path.mkdir(parents=True, exist_ok=True)
    print(f"making {path}", flush=True)
    (path / "config.json").write_text(json.dumps(config, indent=1))
    save_file({f"transformer.{name}": t for name, t in tensors.items()},
              path / "model.safetensors.part")
    (path / "model.safetensors.part").rename(path / "model.safetensors")


def llama_quantize(source, target, ftype):
    import llama_cpp

    silence_llama()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, 2
    print(f"making {target}", flush=True)
    part = target.with_suffix(".part")
    result = llama_cpp.llama_model_quantize(
        str(source).encode(), str(part).encode(), ctypes.byref(params))
    assert result == 0, f"llama.cpp does not quantize {source}"
    part.rename(target)


def convert_ctranslate2(checkpoint, shape, target):
    """Writes CTranslate2's model directly: its converter would want PyTorch."""
    import ctranslate2
    from safetensors.numpy import load_file

    width, heads, layers = shape
    weights = {name.removeprefix("transformer."): tensor.astype(np.float32)
               for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    common = ctranslate2.specs.common_spec
    spec = ctranslate2.specs.TransformerDecoderModelSpec.from_config(
        layers, heads, pre_norm=True, activation=common.Activation.GELU)

    def norm(target, name):
        target.gamma, target.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]

    def linear(target, name):
        target.weight = np.ascontiguousarray(weights[f"{name}.weight"].T)
        target.bias = weights[f"{name}.bias"]

    decoder = spec.decoder
    decoder.embeddings.weight = decoder.projection.weight = weights["wte.weight"]
    decoder.position_encodings.encodings = weights["wpe.weight"]
    decoder.scale_embeddings = False
    norm(decoder.layer_norm, "ln_f")
    for n, layer in enumerate(decoder.layer):
        norm(layer.self_attention.layer_norm, f"h.{n}.ln_1")
        linear(layer.self_attention.linear[0], f"h.{n}.attn.c_attn")
        linear(layer.self_attention.linear[1], f"h.{n}.attn.c_proj")
        norm(layer.ffn.layer_norm, f"h.{n}.ln_2")
        linear(layer.ffn.linear_0, f"h.{n}.mlp.c_fc")
        linear(layer.ffn.linear_1, f"h.{n}.mlp.c_proj")
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = str(VOCABULARY - 1)
    spec.register_vocabulary([str(n) for n in range(VOCABULARY)])
    spec.validate()
    spec.optimize(quantization="int8")
    print(f"making {target}", flush=True)
    target.mkdir(parents=True, exist_ok=True)
    spec.save(str(target))
