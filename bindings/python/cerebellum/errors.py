"""The exceptions, and how the library's statuses become exceptions."""

from __future__ import annotations

import enum
import re
from typing import Any, Tuple, Type

from ._native import library


class Status(enum.IntEnum):
    """Values of Error.status: numbers of the failures. They never change."""

    OK = 0
    BAD_HANDLE = 1
    BAD_ARGUMENT = 2
    BAD_OPTION = 3
    INVALID_UTF8 = 4
    BUFFER_TOO_SMALL = 5
    NO_MEMORY = 6
    IO = 7
    BAD_MODEL = 8
    MODEL_CHANGED = 9
    BAD_TOKEN = 10
    CONTEXT_FULL = 11
    BAD_POSITION = 12
    NO_LOGITS = 13
    NON_FINITE = 14
    NO_TOKENIZER = 15
    BAD_TEXT = 16
    BUSY = 17
    CANCELLED = 18
    NO_THREADS = 19
    BAD_SAVED = 20
    UNSUPPORTED = 21
    PANIC = 22
    NO_GENERATION = 23


class Error(Exception):
    """A failure that the library reports.

    `status` is a value of Status; a later library may have others. Arguments of a wrong type raise TypeError,
    as everywhere in Python.
    """

    status: int

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message or library.cbl_status_text(status).decode())
        self.status = int(status)

    def __reduce__(self) -> Tuple[Any, ...]:
        return (type(self), (self.status, str(self)))


class OptionError(Error, ValueError):
    """The value of an option is out of its range or invalid; the message begins with the option's name."""


class _Cut(Error):
    """A text that ended too early. `text` is the text so far, `stop_reason` says why it ended."""

    text: str
    stop_reason: str

    def __init__(self, status: int, message: str, text: str = "", stop_reason: str = "") -> None:
        super().__init__(status, message)
        self.text, self.stop_reason = text, stop_reason

    def __reduce__(self) -> Tuple[Any, ...]:
        return (type(self), (self.status, str(self), self.text, self.stop_reason))


class Incomplete(_Cut):
    """The text ended before it had the form that choices, regex or json_schema require.

    It is not valid JSON and does not have the required form: do not parse it. `text` is the text so far.
    `stop_reason` is "incomplete" if the text reached max_tokens or the end of the session's context, and
    "stop_string" if a stop string came first. Try again with a larger max_tokens, or make the session with a
    larger context.
    """


class Cancelled(_Cut):
    """cancel() stopped the call. If it was generating, `text` is the text so far."""


_CLASSES = {Status.BAD_OPTION: OptionError, Status.CANCELLED: Cancelled}


def in_python_words(message: str) -> str:
    """The library's message, with the Python names of options and functions."""
    option = re.match(r"option ([a-z0-9_ ]+): ", message)
    if option:
        name = "sequences" if option[1] == "batch" else option[1].replace(" ", "_")
        message = f"{name}: {message[option.end():]}"
    message = re.sub(r"CBL_OPTION_([A-Z_]+)", lambda key: key[1].lower(), message)
    message = re.sub(r"is not in (\S+)\.\.=(\S+)", r"is not from \1 to \2", message)
    return message.replace("cbl_isa_name()", "isa_names()")


def error_for(status: int, message: bytes = b"") -> Error:
    """The exception for the status of a failure."""
    kind: Type[Any] = _CLASSES.get(status, Error)  # type: ignore[call-overload]
    error: Error = kind(status, in_python_words(message.decode(errors="replace")))
    return error


def failure(status: int, kind: str, message: bytes) -> Error:
    """As error_for(), for a call on a session or batch, with a better message if that is in use."""
    if status == Status.BUSY:
        advice = f"make a {kind} for each thread; one that a suspended stream uses is free after its close()"
        return Error(status, f"the {kind} is in use, by another thread or a stream: {advice}")
    if status == Status.NO_GENERATION:
        return Error(status, "the stream was ended by another call on its session: begin another one")
    return error_for(status, message)


def check(status: int, message: bytes = b"") -> None:
    """Raises the exception of a status, unless the status is OK."""
    if status != Status.OK:
        raise error_for(status, message)
