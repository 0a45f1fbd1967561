"""What streams yield, and streams themselves: iterators for `for` as well as `async for`."""

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
    """A generated text: a string that also knows why it ended.

    `stop_reason` is "end_of_text", "max_tokens", "stop_string", "context_full", or "complete" if choices,
    regex or json_schema leave nothing to add.
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
    """The token, or None if text that was held back follows the last one."""
    text: str
    """The text that has become certain with it; often none."""
    log_probability: Optional[float]
    """The natural logarithm of its probability; None without a token or if a constraint left no choice."""
    top: List[Tuple[int, float]]
    """The most probable tokens in its place, with the natural logarithms of their probabilities."""


def stop_reason_name(reason: int) -> str:
    """The word for a cbl_stop_reason."""
    name: bytes = library.cbl_stop_reason_name(reason)
    return name.decode()


def check_form(text: str, stop_reason: str, constrained: bool) -> None:
    """Raises the exception for a text that was cut, if it was."""
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
        """What came of it, or raises why it failed. After END."""

    def close(self) -> None:
        """Ends it; also while another thread waits in next_piece(), which then returns."""


class Stream(Generic[Piece]):
    """Pieces as they come: loop over it with `for`, or with `async for` in a coroutine.

    Nothing is computed before the next piece is asked for. Leaving the loop ends the generation; if the
    stream is kept in a variable, close() or `with` does. Until then the session or batch is in use.
    """

    def __init__(self, source: Source, handle: Handle) -> None:
        """A stream of what `source` makes with `handle`."""
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
        """A piece of the source's on its way, or END."""
        if piece is not END:
            self._take(piece)
        elif not self._ended:  # nobody has closed it meanwhile
            self._ended = True
            self._finish(self._source.result())
        return piece

    def _take(self, piece: Piece) -> None:
        """Looks at a piece on its way."""

    def _finish(self, result: Any) -> None:
        """Looks at what the source made of it."""

    def close(self) -> None:
        """Ends the generation at once. The session or batch can be used again."""
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
        """The next piece, from a thread of the loop's executor, so that the loop goes on meanwhile.

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
    """Waits for a thread that is about to return, and lets nothing hinder that."""
    while not step.done():
        try:
            await asyncio.wait([step])
        except asyncio.CancelledError:
            pass  # the task is being cancelled already
    if not step.cancelled():
        step.exception()  # nobody else asks for it


class _OneText(Stream[Piece]):
    """A stream of one text, which knows why it ended."""

    stop_reason: Optional[str] = None
    """Why the text ended, as Text.stop_reason says; None before."""

    def __init__(self, source: Source, handle: Handle, constrained: bool = False) -> None:
        super().__init__(source, handle)
        self._constrained = constrained
        self._texts: List[str] = []

    @property
    def text(self) -> str:
        """All of the text until now."""
        return "".join(self._texts)

    def _finish(self, result: Any) -> None:
        self.stop_reason = result
        check_form(self.text, result, self._constrained)


class TextStream(_OneText[str]):
    """A stream of pieces of one text."""

    def _take(self, piece: str) -> None:
        self._texts.append(piece)

    def read(self) -> Text:
        """The rest and what came before it, when it has ended."""
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
