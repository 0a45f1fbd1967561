"""Streams, iterators for both `for` and `async for`, and the objects that they yield."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Generic, List, NamedTuple, Optional, Protocol, Tuple, TypeVar

from ._native import library
from .calls import END
from .errors import Cancelled, Incomplete, Status
from .handles import Handle

Piece = TypeVar("Piece")
_Self = TypeVar("_Self", bound="Stream[Any]")


class Text(str):
    """A generated text: a string with its stop_reason.

    `stop_reason` is "end_of_text", "max_tokens", "stop_string", "context_full", or "complete" if choices,
    regex or json_schema allow no further character.
    """

    stop_reason: str

    def __new__(cls, text: str, stop_reason: str) -> Text:
        made = super().__new__(cls, text)
        made.stop_reason = stop_reason
        return made

    def __getnewargs__(self) -> Tuple[str, str]:  # type: ignore[override]
        return (str(self), self.stop_reason)


class Step(NamedTuple):
    """A token of a generation."""

    token: Optional[int]
    """The token, or None for text that was held back and follows the last token."""
    text: str
    """The text that is certain after this token; often empty."""
    log_probability: Optional[float]
    """The natural logarithm of the token's probability; None if there is no token, or if a constraint
    allowed only one."""
    top: List[Tuple[int, float]]
    """The most probable tokens at its position, with the natural logarithms of their probabilities."""


def stop_reason_name(reason: int) -> str:
    """The word for a cbl_stop_reason."""
    name: bytes = library.cbl_stop_reason_name(reason)
    return name.decode()


def check_form(text: str, stop_reason: str, constrained: bool) -> None:
    """Raises an exception if a text ended too early."""
    if stop_reason == "cancelled":
        message = f"cancelled after {len(text)} characters"
        raise Cancelled(Status.CANCELLED, message, text, stop_reason)
    if stop_reason == "incomplete" or constrained and stop_reason == "stop_string":
        why = "a stop string came" if stop_reason == "stop_string" else "max_tokens or the context ran out"
        message = f"{why} before the text had the form that was asked for: it ends in {text[-40:]!r}"
        raise Incomplete(Status.OK, message, text, stop_reason)


class Source(Protocol):
    """Where a stream's pieces come from."""

    def next_piece(self) -> Any:
        """The next piece, or END."""

    def pass_on(self, take: Callable[[Any], object]) -> None:
        """Passes on all pieces."""

    def result(self) -> Any:
        """The result, after END; raises if the source failed."""

    def close(self) -> None:
        """Ends the source. If another thread waits in next_piece(), that call then returns."""


class Stream(Generic[Piece]):
    """An iterator over pieces: loop over it with `for`, or with `async for` in a coroutine.

    It computes a piece only when you ask for it. Leaving the loop ends the generation; if you keep the
    stream in a variable, close() or `with` ends it. Until then the session or batch is in use.
    """

    def __init__(self, source: Source, handle: Handle) -> None:
        """A stream of the pieces that `source` makes with `handle`."""
        self._source, self._handle = source, handle
        self._ended = False

    def __iter__(self: _Self) -> _Self:
        return self

    def __next__(self) -> Piece:
        try:
            self._check_open()
            piece: Any = END if self._ended else self._received(self._source.next_piece())
        except BaseException:
            self.close()
            raise
        if piece is END:
            raise StopIteration
        result: Piece = piece
        return result

    def _check_open(self) -> None:
        if not self._ended:
            self._handle._open  # raises if it is closed

    def _received(self, piece: Any) -> Any:
        """Passes on a piece of the source, or END."""
        if piece is not END:
            self._take(piece)
        elif not self._ended:  # nobody has closed it meanwhile
            self._ended = True
            self._finish(self._source.result())
        return piece

    def _take(self, piece: Piece) -> None:
        """Called with each piece before it is passed on."""

    def _finish(self, result: Any) -> None:
        """Called with the source's result."""

    def close(self) -> None:
        """Ends the generation at once. You can use the session or batch again."""
        self._ended = True
        self._source.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_ended"):  # __init__ went as far
            self.close()

    def __aiter__(self: _Self) -> _Self:
        return self

    async def __anext__(self) -> Piece:
        """The next piece. A thread of the loop's executor computes it, so the loop is not blocked.

        If the task is cancelled, the generation ends at once.
        """
        try:
            self._check_open()
            piece: Any = END if self._ended else self._received(await self._next_elsewhere())
        except BaseException:
            self.close()
            raise
        if piece is END:
            raise StopAsyncIteration
        result: Piece = piece
        return result

    async def _next_elsewhere(self) -> Any:
        # The thread refers to the source alone: a stream that nobody refers to any more is closed.
        step = asyncio.get_running_loop().run_in_executor(None, self._source.next_piece)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            self._source.close()
            await _settled(step)
            raise


async def _settled(step: asyncio.Future[Any]) -> None:
    """Waits for a thread that is about to return, even if the task is cancelled again."""
    while not step.done():
        try:
            await asyncio.wait([step])
        except asyncio.CancelledError:
            pass  # the task is being cancelled already
    if not step.cancelled():
        step.exception()  # nobody else asks for it


class _OneText(Stream[Piece]):
    """A stream of one text, with its stop_reason."""

    stop_reason: Optional[str] = None
    """Why the text ended, as in Text.stop_reason; None before the end."""

    def __init__(self, source: Source, handle: Handle, constrained: bool = False) -> None:
        super().__init__(source, handle)
        self._constrained = constrained
        self._texts: List[str] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def _finish(self, result: Any) -> None:
        self.stop_reason = result
        check_form(self.text, result, self._constrained)


class TextStream(_OneText[str]):
    """A stream of pieces of one text."""

    def _take(self, piece: str) -> None:
        self._texts.append(piece)

    def read(self) -> Text:
        """Waits for the end and returns the whole text."""
        with self:
            self._check_open()
            if not self._ended:
                self._source.pass_on(self._take)
                self._received(END)
        return Text(self.text, self.stop_reason or "cancelled")


class StepStream(_OneText[Step]):
    """A stream of the steps of one text."""

    def _take(self, piece: Step) -> None:
        self._texts.append(piece.text)
