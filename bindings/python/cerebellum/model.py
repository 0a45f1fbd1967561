"""Model files."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_size_t, c_uint32
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Literal, Tuple

from . import _native
from ._native import library
from .arguments import Path, message_buffer, path_bytes, size, token_array, utf8
from .errors import Status, check
from .handles import Handle, Pointer
from .options import BatchOptions, ClassifierOptions, NativeOptions, SessionOptions, refuse_others

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .batch import Batch
    from .classifier import Classifier
    from .session import Session
    from .template import Template


class _ModelPointer(Pointer):
    free = library.cbl_model_free


def fields(structure: ctypes.Structure) -> Dict[str, Any]:
    """A structure of the library's as a dictionary."""
    names = [field[0] for field in structure._fields_ if field[0] != "reserved"]
    values = {name: getattr(structure, name) for name in names}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}


class Model(Handle):
    """A model file that is open.

    Threads may share a model. It pickles as its path: whoever gets it opens the file again. Sessions keep
    what they need of a model, so it may be closed before them.

    `access` is "map", which opens in milliseconds and shares memory with other processes, or "read", which
    reads the file into private memory. `verify` reads the file and checks every checksum.

    Raises Error with the status IO or BAD_MODEL if the file cannot be opened or is no model.
    """

    def __init__(self, path: Path, access: Literal["map", "read"] = "map", verify: bool = False) -> None:
        self._arguments = (path, access, verify)
        pointer, message, name = _ModelPointer(), message_buffer(), path_bytes(path)
        with NativeOptions({"access": access, "verify": verify}) as options:
            status = library.cbl_model_open(name, options._open, byref(pointer), message, len(message))
        check(status, message.value)
        self._pointer = pointer

    def __reduce__(self) -> Tuple[Any, ...]:
        return (Model, self._arguments)

    @property
    def info(self) -> Dict[str, Any]:
        """What there is to know about the model: architecture, digest (of the checkpoint), file_bytes,
        parameters, bits_per_weight, vocabulary (number of tokens), context (positions it was trained on),
        embedding (width), layers, heads, end_of_text (a token, or -1), has_tokenizer, is_mapped."""
        info, model = _native.ModelInfo(), self._open  # in which its texts lie
        check(library.cbl_model_get_info(model, byref(info), ctypes.sizeof(info)))
        return fields(info)

    def plan(self, **options: Unpack[SessionOptions]) -> Dict[str, int]:
        """The bytes that session() with these options will take: weights_bytes, which are shared if the file
        is mapped, cache_bytes and scratch_bytes, and total_bytes, the sum of these two."""
        refuse_others(options, SessionOptions, "Model.plan()")
        plan, message = _native.MemoryPlan(), message_buffer()
        with NativeOptions(options) as made:
            status = library.cbl_model_plan(
                self._open, made._open, byref(plan), ctypes.sizeof(plan), message, len(message)
            )
        check(status, message.value)
        return fields(plan)

    def plan_batch(self, sequences: int, **options: Unpack[BatchOptions]) -> Dict[str, int]:
        """As plan(), of batch()."""
        refuse_others(options, BatchOptions, "Model.plan_batch()")
        plan, message = _native.MemoryPlan(), message_buffer()
        with NativeOptions(options) as made:
            status = library.cbl_model_plan_batch(
                self._open, made._open, size(sequences, "sequences"), byref(plan), ctypes.sizeof(plan),
                message, len(message),
            )
        check(status, message.value)
        return fields(plan)

    def verify(self) -> None:
        """Reads the whole file and raises Error if a checksum does not fit."""
        message = message_buffer()
        check(library.cbl_model_verify(self._open, message, len(message)), message.value)

    def tokenize(self, text: str, parse_special: bool = False) -> List[int]:
        """The token ids of a text. With parse_special, special tokens such as <|endoftext|> that are written
        in it are read as such."""
        data, message, count = utf8(text), message_buffer(), c_size_t()
        tokens = (c_uint32 * len(data))()  # there are never more tokens than bytes
        with NativeOptions({"parse_special": parse_special}) as options:
            status = library.cbl_model_tokenize(
                self._open, options._open, data, len(data), tokens, len(tokens), byref(count), message,
                len(message),
            )
        check(status, message.value)
        ids: List[int] = tokens[: count.value]
        return ids

    def detokenize(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens stand for. They are UTF-8 if the tokens are whole characters."""
        array, message, length = token_array(tokens), message_buffer(), c_size_t()
        arguments = (byref(length), message, len(message))
        status = library.cbl_model_detokenize(self._open, array, len(array), None, 0, *arguments)
        buffer = ctypes.create_string_buffer(max(length.value, 1))
        if status == Status.BUFFER_TOO_SMALL:
            status = library.cbl_model_detokenize(
                self._open, array, len(array), buffer, length.value, *arguments
            )
        check(status, message.value)
        return buffer.raw[: length.value]

    def session(self, **options: Unpack[SessionOptions]) -> Session:
        """A session of this model; see Session."""
        from .session import Session

        return Session(self, **options)

    def batch(self, sequences: int, **options: Unpack[BatchOptions]) -> Batch:
        """Several sequences, 1 to 1024, that are generated together; see Batch."""
        from .batch import Batch

        return Batch(self, sequences, **options)

    def classifier(self, labels: Iterable[str], **options: Unpack[ClassifierOptions]) -> Classifier:
        """Prepares to choose among labels; see Classifier."""
        from .classifier import Classifier

        return Classifier(self, labels, **options)

    def template(self, name: str) -> Template:
        """The model file's own template of that name, or a built-in one; see Template."""
        from .template import Template

        return Template(self, name)
