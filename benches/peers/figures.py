"""What is measured, and what is aimed at."""

from dataclasses import dataclass

# Shapes of the models that people run, besides the sizes of Cerebras-GPT.
FAMILIES = ("SmolLM2-135M", "Gemma3-270M")
# Ratios to ik_llama.cpp's best: prompt of 512, decoding.
IK_AIMS = {"SmolLM2-135M": (2.5, 2.0), "Gemma3-270M": (2.5, 3.0)}

# Best of these is llama.cpp's figure for 4 bits: (type of weights, flash attention).
LLAMA_4_BIT = (("Q4_0", True), ("Q4_0", False), ("Q4_K_M", True), ("Q4_K_M", False))


@dataclass(frozen=True)
class Figure:
    """One comparison of speeds, in tokens per second, measured in turns in one run.

    `aim` and `stretch` are ratios of ours to llama.cpp's best; `limit` is the fraction of what the
    machine can do at most that is aimed at.
    """

    shape: str
    kind: str  # "prompt" or "decode"
    tokens: int
    depth: int = 0
    threads: int = 2
    weights: tuple = ("int4",)
    kv: str = "f16"
    context: int = 2048
    # Turns follow each other in one text: a model with windows has lost what going back would need.
    goes_on: bool = False
    llama: tuple = LLAMA_4_BIT
    ctranslate2: bool = False
    ik: bool = False  # ik_llama.cpp, too, if it is there
    isa: str = ""  # forced on ours
    peers: str = "native"  # or "avx2": llama.cpp built without AVX-512
    aim: float = None
    stretch: float = None
    ik_aim: float = None  # ratio of ours to ik_llama.cpp's best
    limit: float = None

    @property
    def name(self):
        parts = [self.shape, self.weights[0] if self.weights[0] != "int4" else "",
                 f"{self.kind}-{self.depth if self.kind == 'decode' else self.tokens}",
                 "kv8" if self.kv == "int8" else "", self.isa, f"t{self.threads}"]
        return "-".join(part for part in parts if part)

    @property
    def title(self):
        what = (f"prompt of {self.tokens}" if self.kind == "prompt"
                else f"decode after {self.depth}")
        notes = [f"{self.kv} cache" if self.kv != "f16" else "",
                 f"{self.isa}, llama.cpp without AVX-512" if self.peers == "avx2" else self.isa]
        notes = ", ".join(note for note in notes if note)
        return f"{self.shape} {self.weights[0]}, {what}" + (f" ({notes})" if notes else "")


def figures():
    """The most wanted first."""
    yield from family_figures()
    yield from long_figures()
    yield from gpt2_figures()


def gpt2_figures():
    """Of Cerebras-GPT's sizes."""
    aims = {
        ("111M", "prompt", 512): dict(aim=2.5, stretch=3.0, limit=0.52, ctranslate2=True),
        ("111M", "prompt", 2048): dict(aim=3.0, stretch=3.5),
        ("256M", "prompt", 512): dict(aim=2.6, stretch=3.0),
        ("1.3B", "prompt", 128): dict(aim=2.5, stretch=2.8),
        ("111M", "decode", 0): dict(aim=1.2, stretch=1.35, limit=0.88, ctranslate2=True),
        ("111M", "decode", 1984): dict(aim=1.4, stretch=1.6),
        ("256M", "decode", 0): dict(aim=1.35, stretch=1.5),
        ("1.3B", "decode", 0): dict(stretch=1.1, limit=0.92, weights=("int4", "int4/128")),
    }

    def make(shape, kind, length, **settings):
        if kind == "prompt":
            return Figure(shape, kind, length, **settings)
        return Figure(shape, kind, 64, depth=length, **settings)

    yield from (make(*what, **settings) for what, settings in aims.items())
    q8 = (("Q8_0", True), ("Q8_0", False))
    yield make("111M", "decode", 1984, kv="int8", aim=1.8, stretch=2.2,
               llama=(("Q4_0", True), ("Q4_K_M", True)))
    yield make("111M", "prompt", 512, weights=("int8",), llama=q8, aim=3.5, stretch=4.0)
    yield make("111M", "decode", 0, weights=("int8",), llama=q8, aim=1.05)
    without = dict(isa="avx2", peers="avx2")
    yield make("111M", "prompt", 512, **without, aim=1.3)
    yield make("256M", "prompt", 512, **without, aim=1.3)
    yield make("111M", "decode", 0, **without)
    for isa in ["avx-vnni", "scalar-fma"]:
        yield make("111M", "prompt", 128, isa=isa, llama=())
        yield make("111M", "decode", 0, isa=isa, llama=())
    rest = [("prompt", 128), ("prompt", 512), ("prompt", 2048), ("decode", 0), ("decode", 1024),
            ("decode", 1984)]
    # To keep a figure within minutes, only what has been llama.cpp's best is measured from here on.
    best = dict(llama=(("Q4_0", True), ("Q4_K_M", True)))
    for shape in ["111M", "256M"]:
        yield from (make(shape, *what, **best) for what in rest if (shape, *what) not in aims)
        yield from (make(shape, *what, threads=1, **best) for what in rest)
    one = dict(llama=(("Q4_0", True),))
    yield make("1.3B", "prompt", 512, **one)
    yield make("1.3B", "decode", 1024, **one)
    yield make("1.3B", "prompt", 128, threads=1, **one)
    yield make("1.3B", "decode", 0, threads=1, **one)


def family_figures():
    """Of the models that people run. After many tokens only llama.cpp's settings with flash attention are
    measured, since filling its cache takes most of the time."""
    flash = tuple(setting for setting in LLAMA_4_BIT if setting[1])
    for shape in FAMILIES:
        common = dict(shape=shape, context=8192, ik=True)
        ik_aims = IK_AIMS[shape]
        yield Figure(**common, kind="prompt", tokens=512, aim=3.0, ik_aim=ik_aims[0])
        yield Figure(**common, kind="decode", tokens=64, aim=2.0, ik_aim=ik_aims[1])
        for depth in [1984, 7000]:
            yield Figure(**common, kind="decode", tokens=64, depth=depth, goes_on=True, llama=flash, aim=2.0)


def long_figures():
    """Of long contexts: filling llama.cpp's caches takes most of the time, so only what has been its best is
    measured."""
    flash = (("Q4_0", True),)
    for shape in (f"{family}-long" for family in FAMILIES):
        common = dict(shape=shape, context=33 << 10, llama=flash, aim=3.0)
        for kv in ["f16", "int8"]:
            for tokens in [4096, 16384]:
                yield Figure(**common, kind="prompt", tokens=tokens, kv=kv)
            for depth in [8192, 32768]:
                yield Figure(**common, kind="decode", tokens=32, depth=depth, kv=kv, goes_on=True)


@dataclass(frozen=True)
class FirstToken:
    """Start-up and memory: a process that loads a model and chooses one token after a short prompt,
    the file being in the page cache; then one that fills a context."""

    shape: str
    prompt: int = 4
    context: int = 512
    aim_seconds: float = None
    stretch_seconds: float = None
    llama: tuple = (("Q4_0", True), ("Q4_K_M", True))

    @property
    def name(self):
        return f"{self.shape}-first-token"


def first_tokens():
    yield FirstToken("1.3B", aim_seconds=0.15, stretch_seconds=0.08)
    yield FirstToken("111M")
    yield FirstToken("256M")
    for shape in FAMILIES:
        yield FirstToken(shape, aim_seconds=0.05)
