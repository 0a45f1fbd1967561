"""Checkpoints with random weights in the shapes of published models, and the files that each runtime makes of them.

The speed of a GPT depends on its shape, not on what it has learned, so nothing needs to be fetched.
"""

import ctypes
import json
import subprocess
from pathlib import Path

import numpy as np

import ik
from worker import silence_llama

VOCABULARY, POSITIONS = 50257, 2048

# Cerebras-GPT: width, heads and layers (Dey et al. 2023, arXiv:2304.03208, table 1); the MLP is four times as
# wide.
SHAPES = {"111M": (768, 12, 10), "256M": (1088, 17, 14), "1.3B": (2048, 16, 24)}

# What the published config.json has of a model's computation.
CONFIGS = {
    "SmolLM2-135M": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 49152,
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "hidden_act": "silu",
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
    },
    "Gemma3-270M": {
        "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "vocab_size": 262144,
        "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
        "sliding_window": 512, "sliding_window_pattern": 6, "query_pre_attn_scalar": 256,
        "tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 1,
    },
}
# The same in a longer context than the models were trained for: speed does not ask.
CONFIGS |= {f"{shape}-long": {**config, "max_position_embeddings": 40960}
            for shape, config in CONFIGS.items()}

# What `cerebellum quantize` and llama.cpp's llama_model_quantize are asked for.
OURS = {
    "int4": ["--no-calibration", "--weights", "int4", "--group-size", "64"],
    "int4/128": ["--no-calibration", "--weights", "int4", "--group-size", "128"],
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

    def ik(self, kind, programs):
        if kind not in ik.OWN_TYPES:
            return self.llama(kind)
        path = self._path(f"{kind}.gguf")
        if not path.exists():
            half = path.with_suffix(".f16")
            self._run("export-gguf", self.checkpoint(), "-o", half, "--type", "f16", "--force")
            ik.quantize(programs, half, path, kind)
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
            if self.shape in CONFIGS:
                random_family(path, CONFIGS[self.shape])
            else:
                random_checkpoint(path, *SHAPES[self.shape])
        return path

    def _path(self, name):
        return self.directory / f"{self.shape}-{name}"

    def _run(self, *arguments):
        print(f"making {arguments[3]}", flush=True)
        subprocess.run([self.cerebellum, *arguments, "--quiet"], check=True,
                       stdout=subprocess.DEVNULL)


def random_checkpoint(path, width, heads, layers):
    """A GPT-2 as Hugging Face publishes them, in float16, without a tokenizer."""
    matrix = random_matrices()

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
    save(path, config, {f"transformer.{name}": t for name, t in tensors.items()})


def random_family(path, config):
    """A Llama or Gemma 3, likewise."""
    matrix = random_matrices()
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries = config["num_attention_heads"] * size
    keys = config["num_key_value_heads"] * size
    is_gemma = config["model_type"] == "gemma3_text"
    # Gemma's files have norms less one.
    norm = lambda length: np.full(length, 0 if is_gemma else 1, np.float16)
    tensors = {"embed_tokens": matrix(config["vocab_size"], width), "norm": norm(width)}
    norms = ["input_layernorm", "post_attention_layernorm"]
    if is_gemma:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    linear = {"self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width),
              "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, queries),
              "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
              "mlp.down_proj": (width, inner)}
    for layer in (f"layers.{n}" for n in range(config["num_hidden_layers"])):
        tensors |= {f"{layer}.{name}": norm(width) for name in norms}
        tensors |= {f"{layer}.{name}": matrix(*shape) for name, shape in linear.items()}
        if is_gemma:
            tensors |= {f"{layer}.self_attn.{kind}_norm": norm(size) for kind in "qk"}
    save(path, config, {f"model.{name}.weight": t for name, t in tensors.items()})


def random_matrices():
    rng = np.random.default_rng(2304)
    return lambda *shape: (0.02 * rng.standard_normal(shape, dtype=np.float32)).astype(np.float16)


def save(path, config, tensors):
    from safetensors.numpy import save_file

    path.mkdir(parents=True, exist_ok=True)
    print(f"making {path}", flush=True)
    (path / "config.json").write_text(json.dumps(config, indent=1))
    save_file(tensors, path / "model.safetensors.part")
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
