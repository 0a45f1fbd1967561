"""Generation on demand: the library works only while a caller waits for the next token."""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref, c_double, c_int32, c_size_t, c_uint32, c_uint64
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import _native
from ._native import library
from .calls import END, interruptible, wait_for
from .errors import Status, check
from .options import NativeOptions
from .stream import Step, stop_reason_name

if TYPE_CHECKING:
    from .session import Session


class Generation:
    """A generation of a session, as the source of a stream."""

    def __init__(
        self, session: Session, begin: Any, options: NativeOptions, prompt: Any,
        piece_of: Callable[[_native.Step], Any],
    ) -> None:
        """`begin` is the library's function for this type of prompt. `piece_of` turns a step into a piece, or
        into None if the stream skips the step."""
        self._session, self._pointer = session, session._open
        self._begin: Any = begin
        self._options, self._prompt, self._piece_of = options, prompt, piece_of
        self._number, self._reason = c_uint64(), c_int32()
        self._stepping = threading.Lock()
        self._stepper: Optional[int] = None
        self._closed = False

    def next_piece(self) -> Any:
        """The next piece, or END."""
        with self._session._alone:
            return self._next_piece()

    def pass_on(self, take: Callable[[Any], object]) -> None:
        """Passes on all pieces; no other call may use the session during that time."""
        with self._session._alone:
            interruptible(lambda: self._pass_on(take), self._pointer)

    def _pass_on(self, take: Callable[[Any], object]) -> None:
        while True:
            piece = self._next_piece()
            if piece is END:
                break
            take(piece)

    def _next_piece(self) -> Any:
        with self._stepping:
            self._stepper = threading.get_ident()
            piece: Any = END if self._closed else None
            while piece is None:
                step = self._next_step()
                piece = END if step is None else self._piece_of(step)
            return piece

    def _next_step(self) -> Optional[_native.Step]:
        step, size = _native.Step(), ctypes.sizeof(_native.Step)
        arguments = (self._pointer, self._number, byref(step), size, byref(self._reason))
        if self._begin:
            begin, self._begin = self._begin, None
            self._session._check(interruptible(lambda: self._first_step(begin, arguments), self._pointer))
        else:
            self._session._check(library.cbl_generation_next(*arguments))
        return None if self._reason.value else step

    def _first_step(self, begin: Any, arguments: Any) -> int:
        """Begins and evaluates the prompt, which may take long."""
        status: int = begin(
            self._pointer, self._options._open, self._prompt, len(self._prompt), byref(self._number)
        )
        if status == Status.OK:
            status = library.cbl_generation_next(*arguments)
        return status

    def result(self) -> str:
        """Why it ended."""
        return stop_reason_name(self._reason.value)

    def close(self) -> None:
        """Ends it at once, even while a thread waits for the next piece."""
        self._closed = True
        if self._stepping.locked():
            self._pointer.cancel()
            if self._stepper == threading.get_ident():
                return  # collected in the midst of its own call, which ends
            wait_for(self._stepping)
            self._pointer.clear_cancel()
        # Not if another thread works on the session: its call ends the generation, or does not mind it.
        library.cbl_generation_end(self._pointer, self._number, None)


def text_of(step: _native.Step) -> Optional[str]:
    """A step's text; None if there is none."""
    return ctypes.string_at(step.text, step.length).decode() if step.length else None


def step_with(top: int) -> Callable[[_native.Step], Step]:
    """A function that turns a step of the library into a Step with the `top` most probable tokens."""

    def copied(step: _native.Step) -> Step:
        text = text_of(step) or ""
        id = None if step.token < 0 else int(step.token)
        if id is None or not step.logits:
            return Step(id, text, None, [])
        token, log_probability, found = c_uint32(id), c_double(), c_size_t()
        logits = (step.logits, step.logits_count)
        check(library.cbl_log_probabilities(*logits, byref(token), 1, byref(log_probability)))
        tokens, logs = (c_uint32 * max(top, 1))(), (c_double * max(top, 1))()
        if top:
            check(library.cbl_top_tokens(*logits, tokens, logs, top, byref(found)))
        return Step(id, text, log_probability.value, list(zip(tokens[: found.value], logs[: found.value])))

    return copied
