"""Model files."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_size_t, c_uint32
from typing import (
    TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Literal, Optional, Protocol, Tuple, Union,
)

from . import _native
from ._native import library
from .arguments import (
    Messages, Path, kind_of, message_arrays, message_buffer, path_bytes, size, token_array, utf8,
)
from .calls import Call
from .errors import Error, Status, check
from .handles import Handle, Pointer
from .options import (
    BatchOptions, ChatOptions, ClassifierOptions, NativeOptions, SessionOptions, refuse_others,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .batch import Batch
    from .classifier import Classifier
    from .session import Session
    from .stream import Text
    from .template import Template


Access = Literal["map", "read"]


class HasFileno(Protocol):
    """An open file."""

    def fileno(self) -> int: ...


class _ModelPointer(Pointer):
    free = library.cbl_model_free


def fields(structure: ctypes.Structure) -> Dict[str, Any]:
    """A structure of the library as a dictionary."""
    names = [field[0] for field in structure._fields_ if field[0] != "reserved"]
    values = {name: getattr(structure, name) for name in names}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}


Progress = Callable[[str, int, int], object]


class Model(Handle):
    """An open model file.

    Threads may share a model. It pickles as its path: the process that receives it opens the file again.
    You may close a model before its sessions, because these keep the parts that they need.

    `access` is "map", which opens in milliseconds and shares memory with other processes, or "read", which
    reads the file into private memory. `verify` reads the file and checks every checksum. "read" and
    `verify` may take long: they call `progress` on the calling thread, with "read" or "verify", the number
    of bytes done, and the number of all bytes. An exception in `progress` ends the opening, as Ctrl-C does.

    Raises Error with the status IO or BAD_MODEL if the file cannot be opened or is not a model.
    """

    def __init__(
        self, path: Path, access: Access = "map", verify: bool = False, progress: Optional[Progress] = None
    ) -> None:
        self._recipe: Optional[Tuple[Any, ...]] = (path, access, verify)
        try:
            self._pointer = _opened(library.cbl_model_open, (path_bytes(path),), access, verify, progress)
        except Error as error:
            given = os.fsdecode(path)
            if not given.startswith("hf:") and not os.path.isfile(os.path.join(given, "config.json")):
                raise
            advice = "`cerebellum quantize CHECKPOINT -o FILE` makes one of it"
            raise Error(error.status, f"{given!r} is a checkpoint, no model file: {advice}") from None

    @classmethod
    def from_fd(
        cls, file: Union[int, HasFileno], offset: int = 0, length: Optional[int] = None,
        access: Access = "map", verify: bool = False, progress: Optional[Progress] = None,
    ) -> Model:
        """A model inside an open file: `length` bytes from `offset` on, by default all bytes from there.

        `file` is a descriptor or an object with fileno(); you may close it afterwards. A mapped model must
        begin at a multiple of 64 bytes. Not on Windows. Such a model cannot be pickled."""
        if not isinstance(file, int) and not hasattr(file, "fileno"):
            raise TypeError(f"file: an open file or its descriptor is needed, not {kind_of(file)} {file!r}")
        descriptor = file if isinstance(file, int) else file.fileno()
        start = size(offset, "offset")
        rest = max(os.fstat(descriptor).st_size - start, 0) if length is None else size(length, "length")
        model = cls.__new__(cls)
        model._recipe = None
        where = (descriptor, start, rest)
        model._pointer = _opened(library.cbl_model_open_fd_range, where, access, verify, progress)
        return model

    def __reduce__(self) -> Tuple[Any, ...]:
        if self._recipe is None:
            raise TypeError("a model of from_fd() cannot be pickled: it has no path to be opened by")
        return (Model, self._recipe)

    @property
    def info(self) -> Dict[str, Any]:
        """Facts about the model: architecture, digest (of the checkpoint), file_bytes,
        parameters, bits_per_weight, vocabulary (number of tokens), context (positions it was trained on),
        embedding (width), layers, heads, end_of_text (a token, or -1), has_tokenizer, is_mapped."""
        info, model = _native.ModelInfo(), self._open  # in which its texts lie
        check(library.cbl_model_get_info(model, byref(info), ctypes.sizeof(info)))
        return fields(info)

    def plan(self, **options: Unpack[SessionOptions]) -> Dict[str, int]:
        """The bytes of memory that session() with these options will take: weights_bytes, shared if the file is
        mapped; cache_bytes and scratch_bytes; and total_bytes, the sum of these two."""
        refuse_others(options, SessionOptions, "Model.plan()")
        plan, message = _native.MemoryPlan(), message_buffer()
        with NativeOptions(options) as made:
            status = library.cbl_model_plan(
                self._open, made._open, byref(plan), ctypes.sizeof(plan), message, len(message)
            )
        check(status, message.value)
        return fields(plan)

    def plan_batch(self, sequences: int, **options: Unpack[BatchOptions]) -> Dict[str, int]:
        """As plan(), for batch()."""
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
        """Reads the whole file and raises Error if a checksum is wrong."""
        message = message_buffer()
        check(library.cbl_model_verify(self._open, message, len(message)), message.value)

    def lock_memory(self) -> None:
        """Reads the model into memory and keeps it there as long as the model or one of its sessions exists, so
        no evaluation waits for the disk. Raises Error with the status NO_MEMORY if the system refuses."""
        message = message_buffer()
        check(library.cbl_model_lock_memory(self._open, message, len(message)), message.value)

    def tokenize(
        self, text: str, parse_special: bool = False, begin_of_text: bool = False
    ) -> List[int]:
        """The token ids of a text. With parse_special, a special token that is written in the text, such as
        <|endoftext|>, becomes that token. With begin_of_text, the text begins what the model reads: the token
        that the model wants before every text, if it wants one, is put there."""
        data, message, count = utf8(text), message_buffer(), c_size_t()
        room = len(data) + 2
        with NativeOptions({"parse_special": parse_special, "begin_of_text": begin_of_text}) as options:
            while True:
                tokens = (c_uint32 * room)()
                status = library.cbl_model_tokenize(
                    self._open, options._open, data, len(data), tokens, room, byref(count), message,
                    len(message),
                )
                if status != Status.BUFFER_TOO_SMALL:
                    break
                room = count.value  # a tokenizer that normalizes texts may make them longer
        check(status, message.value)
        ids: List[int] = tokens[: count.value]
        return ids

    def detokenize(self, tokens: Iterable[int]) -> bytes:
        """The bytes of tokens. They are UTF-8 if the tokens are whole characters."""
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

    def chat_tokens(
        self, messages: Messages, date: Optional[str] = None, thinking: Optional[bool] = None
    ) -> List[int]:
        """The token ids of a conversation, what asks for an answer included; see Session.chat()."""
        (roles, contents, count), number, message = message_arrays(messages), c_size_t(), message_buffer()
        with NativeOptions({"date": date, "thinking": thinking}) as made:
            start = (self._open, made._open, roles, contents, count)
            end = (byref(number), message, len(message))
            status = library.cbl_chat_tokens(*start, None, 0, *end)
            tokens = (c_uint32 * number.value)()
            if status == Status.BUFFER_TOO_SMALL:
                status = library.cbl_chat_tokens(*start, tokens, len(tokens), *end)
        check(status, message.value)
        return list(tokens)

    def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> Text:
        """The model's answer to a conversation, by a session made for it; see Session.chat()."""
        with self.session() as session:
            return session.chat(messages, **options)

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
        """The template of this name in the model file or, if there is none, the built-in one; see Template."""
        from .template import Template

        return Template(self, name)


class _Opening:
    """A call that opens a model. Its callback can end it, so it needs no cancel()."""

    def cancel(self) -> None:
        pass

    def clear_cancel(self) -> None:
        pass


def _opened(
    function: Any, where: Tuple[Any, ...], access: Access, verify: bool, progress: Optional[Progress]
) -> _ModelPointer:
    """Opens a model with one of the library's functions."""
    pointer, message = _ModelPointer(), message_buffer()
    options = NativeOptions({"access": access, "verify": verify})

    def run(call: Call[int]) -> int:
        def callback(_: object, stage: int, done: int, total: int) -> bool:
            if progress is None:
                return not call.is_closed
            return call.hand_over((_native.STAGES.get(stage, "?"), done, total))

        tell = _native.ProgressCallback(callback)
        check(library.cbl_options_set_progress(options._open, tell, None))
        status: int = function(*where, options._open, byref(pointer), message, len(message))
        return status

    with Call(run, _Opening()) as call:
        call.pass_on(lambda piece: progress(*piece) if progress else None)
        check(call.result(), message.value)
    return pointer
