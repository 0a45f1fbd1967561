"""One runtime in a process of its own, asked through lines of JSON: see `Worker` for the other side.

A request is {"make": {...}}, answered by the number of a subject (a model with its settings), or
{"subject": N, "work": {"kind": "prompt" or "decode", "tokens": N, "depth": N}}, answered by seconds.
Subjects stay, so that runtimes and settings can be measured in turns.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

CONTEXT = 2048
# The tokens of the smallest vocabulary, SmolLM2's.
TOKENS = 49152


def token_ids(count):
    """Ids that look random, are always the same, and are tokens of every model."""
    return [(i * 0x9E3779B97F4A7C15 % 2**64 >> 33) % TOKENS for i in range(1, count + 1)]


def silence_llama():
    """Keeps llama.cpp's log off the terminal."""
    import llama_cpp as llama

    silence_llama.callback = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silence_llama.callback, ctypes.c_void_p())


class Subject:
    """A model with its settings. `evaluate` appends tokens and computes the logits of the last."""

    position = 0

    def seconds(self, kind, tokens, depth=0, goes_on=False):
        """Of `tokens` after `depth`, or with `goes_on` after those of the last time too."""
        if kind == "decode" and self.position < depth:
            self.rewind(0)
            self.evaluate(token_ids(depth))
        if goes_on:
            depth = max(depth, self.position)
        else:
            self.rewind(depth)
        ids = token_ids(depth + tokens)[depth:]
        steps = [ids] if kind == "prompt" else [[token] for token in ids]
        start = time.perf_counter()
        for step in steps:
            self.evaluate(step)
        seconds = time.perf_counter() - start
        self.position = depth + tokens
        return seconds


class Cerebellum(Subject):
    """This project's C library, through its Python binding."""

    models = {}

    def __init__(self, file, threads, kv="f16", isa=None, context=CONTEXT):
        import cerebellum

        if file not in self.models:
            self.models[file] = cerebellum.Model(file)
        self.session = self.models[file].session(
            context=context, threads=threads, cache=kv, isa=isa)
        self.rewind, self.evaluate = self.session.rewind, self.session.evaluate

    @property
    def settings(self):
        return {"isa": self.session.stats["isa"]}


class Llama(Subject):
    """llama.cpp through its C interface. An int8 cache is its q8_0, which needs flash attention."""

    models = {}

    def __init__(self, file, threads, kv="f16", flash=True, context=CONTEXT):
        import llama_cpp as llama

        self.llama = llama
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = context
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        params.flash_attn_type = (llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash
                                  else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        # The cache of a layer with a window holds the window only.
        params.swa_full = False
        if kv == "int8":
            params.type_k = params.type_v = llama.GGML_TYPE_Q8_0
        self.context = llama.llama_init_from_model(self._model(file), params)
        assert self.context, f"llama.cpp makes no context for {file}"
        self.batch = llama.llama_batch_init(context, 0, 1)

    def _model(self, file):
        llama = self.llama
        if file not in self.models:
            if not self.models:
                silence_llama()
                llama.llama_backend_init()
            params = llama.llama_model_default_params()
            params.n_gpu_layers = 0
            self.models[file] = llama.llama_model_load_from_file(file.encode(), params)
            assert self.models[file], f"llama.cpp does not load {file}"
        return self.models[file]

    def rewind(self, position):
        memory = self.llama.llama_get_memory(self.context)
        self.llama.llama_memory_seq_rm(memory, 0, position, -1)
        self.position = position

    def evaluate(self, tokens):
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, self.position + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i + 1 == len(tokens)
        assert self.llama.llama_decode(self.context, batch) == 0, "llama.cpp failed"
        self.llama.llama_synchronize(self.context)
        self.position += len(tokens)

    @property
    def settings(self):
        return {"system": self.llama.llama_print_system_info().decode()}


class CTranslate2(Subject):
    """CTranslate2, int8 weights. It has no interface to evaluate one token, so decoding is timed as
    the difference between a long and a short generation, and there is no depth."""

    def __init__(self, file, threads):
        import ctranslate2

        ctranslate2.set_random_seed(0)
        self.generator = ctranslate2.Generator(
            file, device="cpu", intra_threads=threads, compute_type="int8")

    settings = {}

    def seconds(self, kind, tokens, depth=0, goes_on=False):
        assert depth == 0 and not goes_on
        if kind == "prompt":
            return self._generate(tokens, 1)
        return self._generate(1, tokens + 1) - self._generate(1, 1)

    def _generate(self, prompt, length):
        prompt = [str(token) for token in token_ids(prompt)]
        start = time.perf_counter()
        self.generator.generate_batch(
            [prompt], max_length=length, min_length=length, beam_size=1, sampling_topk=1,
            include_prompt_in_result=False)
        return time.perf_counter() - start


KINDS = {"cerebellum": Cerebellum, "llama.cpp": Llama, "ctranslate2": CTranslate2}


def memory():
    """Bytes of this process: resident now, the most there have been, and those not of a file."""
    return proc_status(os.getpid())


def proc_status(pid):
    """VmRSS, VmHWM and RssAnon of /proc/PID/status in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in ["VmRSS", "VmHWM", "RssAnon"]}


def first_token(kind, settings, prompt):
    """Loads a model and evaluates a prompt: seconds and memory of a runtime whose library is loaded."""
    __import__({"llama.cpp": "llama_cpp"}.get(kind, kind))
    before = memory()
    start = time.perf_counter()
    subject = KINDS[kind](**settings)
    subject.seconds("prompt", prompt)
    seconds = time.perf_counter() - start
    after = memory()
    return {"seconds": seconds, **{name: after[name] - before["VmRSS" if name == "VmHWM" else name]
                                   for name in after}}


def serve(kind):
    subjects = []
    for line in sys.stdin:
        request = json.loads(line)
        if "first_token" in request:
            answer = first_token(kind, **request["first_token"])
        elif "make" in request:
            subjects.append(KINDS[kind](**request["make"]))
            answer = {"subject": len(subjects) - 1, **subjects[-1].settings}
        else:
            answer = subjects[request["subject"]].seconds(**request["work"])
        print(json.dumps(answer), flush=True)


class Worker:
    """The asking side."""

    def __init__(self, kind, python, library):
        binding = Path(__file__).parents[2] / "bindings/python"
        environment = {**os.environ, "CEREBELLUM_LIBRARY": str(library), "PYTHONPATH": str(binding)}
        self.process = subprocess.Popen(
            [python, __file__, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended: {self.process.args}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__":
    serve(sys.argv[1])
