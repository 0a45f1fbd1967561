"""Runs quantized GPT models from one memory-mapped file.

    import cerebellum

    model = cerebellum.Model("model.cbl")
    session = model.session(threads=2)
    for text in session.stream("Once upon a time", max_tokens=60, temperature=0.8):
        print(text, end="", flush=True)

    classifier = model.classifier(["alarm", "timer", "weather"])
    print(session.classify(classifier, "wake me at six")[0])

Threads may share a model. A model pickles as its path, so workers of Ray, Spark or Dask open it on their
machine; processes on one machine share its memory. One thread at a time may use a session. The guide is
docs/python.md.
"""

from __future__ import annotations

from typing import List

from ._native import library as _library
from .batch import Batch
from .classifier import Classifier
from .errors import Cancelled, Error, Incomplete, OptionError, Status
from .model import Model
from .options import (
    BatchOptions, ChatOptions, ClassifierOptions, GenerationOptions, SamplingOptions, SessionOptions,
)
from .session import Session
from .stream import Step, StepStream, Stream, Text, TextStream
from .template import Template

__version__: str = _library.cbl_version_string().decode()
__all__ = [
    "Batch", "BatchOptions", "Cancelled", "ChatOptions", "Classifier", "ClassifierOptions", "Error", "GenerationOptions",
    "Incomplete", "Model", "OptionError", "SamplingOptions", "Session", "SessionOptions", "Status", "Step",
    "StepStream", "Stream", "Template", "Text", "TextStream", "has_chat", "has_constraints", "isa_names",
]


def isa_names() -> List[str]:
    """Names of the instruction sets that this processor supports; the last one is the best."""
    names: List[str] = []
    while True:
        name = _library.cbl_isa_name(len(names))
        if name is None:
            return names
        names.append(name.decode())


def has_constraints() -> bool:
    """Whether the options choices, regex and json_schema work in this build of the library."""
    return bool(_library.cbl_has_constraints())


def has_chat() -> bool:
    """Whether this build of the library evaluates every chat template. If not, chat() works with models whose
    template has a simple form, and with messages of user and assistant in turn."""
    return bool(_library.cbl_has_chat())
