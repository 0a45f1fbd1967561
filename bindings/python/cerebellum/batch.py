"""Several sequences together."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_int32
from typing import TYPE_CHECKING, Callable, Iterable, List, NoReturn, Tuple, Union

from . import _native
from ._native import library
from .arguments import message_buffer, size, text_array
from .calls import Call
from .errors import Error, Status, check, error_for, failure
from .handles import Handle, Pointer
from .model import Model
from .options import BatchOptions, GenerationOptions, NativeOptions, is_constrained, refuse_others
from .stream import Stream, Text, check_form, stop_reason_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

Outcome = Union[Text, Error]


class _BatchPointer(Pointer):
    free = library.cbl_batch_free

    def cancel(self) -> None:
        library.cbl_batch_cancel(self)

    def clear_cancel(self) -> None:
        library.cbl_batch_clear_cancel(self)


class Batch(Handle):
    """Several sequences that are generated together: one pass reads the weights once for all of them.

    Each result is the same as in a session of its own. One thread at a time may use a batch. The options
    are those of BatchOptions.
    """

    def __init__(self, model: Model, sequences: int, **options: Unpack[BatchOptions]) -> None:
        refuse_others(options, BatchOptions, "Model.batch()")
        pointer, message = _BatchPointer(), message_buffer()
        with NativeOptions(options) as made:
            status = library.cbl_batch_new(
                model._open, made._open, size(sequences, "sequences"), byref(pointer), message, len(message)
            )
        check(status, message.value)
        self._pointer = pointer

    @property
    def _open(self) -> _BatchPointer:
        pointer = super()._open
        assert isinstance(pointer, _BatchPointer)
        return pointer

    def __reduce__(self) -> NoReturn:
        raise TypeError("a batch cannot be pickled: pickle its model, and make a batch of it there")

    def generate(self, prompts: Iterable[str], **options: Unpack[GenerationOptions]) -> List[Outcome]:
        """The texts that follow the prompts, in the same order. There may be any number of prompts.

        If a prompt cannot be continued, the list has an Error in place of its Text. If a text ended before it
        had the form that the options require, the list has an Incomplete in its place.
        """
        run = _Run(self, prompts, options, "Batch.generate()")
        with Call(lambda _: run.make(lambda index, text: True), run.pointer) as call:
            return call.result()

    def stream(
        self, prompts: Iterable[str], **options: Unpack[GenerationOptions]
    ) -> Stream[Tuple[int, Union[str, Error]]]:
        """As generate(), but yields pairs: the index of a prompt, and a piece of its text or the exception that
        generate() returns in place of its text. See Stream."""
        run = _Run(self, prompts, options, "Batch.stream()")
        return Stream(Call(run.hand_over, run.pointer), self)

    def lock_memory(self) -> None:
        """As Session.lock_memory()."""
        pointer = self._open
        status = library.cbl_batch_lock_memory(pointer)
        if status != Status.OK:
            raise failure(status, "batch", library.cbl_batch_error(pointer))

    def cancel(self) -> None:
        """Stops the running call or, if none runs, the next one; the call raises Cancelled. Any thread may call
        this."""
        self._open.cancel()

    def clear_cancel(self) -> None:
        """Withdraws a cancel() that has not stopped a call yet. Any thread may call this."""
        self._open.clear_cancel()


class _Run:
    """A prepared generation: mistakes in its arguments are found before it begins."""

    def __init__(self, batch: Batch, prompts: Iterable[str], options: GenerationOptions, where: str) -> None:
        refuse_others(options, GenerationOptions, where)
        self.pointer = batch._open
        self.prompts = text_array(prompts, "prompts")
        self.options = NativeOptions(options)
        self.is_constrained = is_constrained(options)
        self.texts: List[List[str]] = [[] for _ in range(len(self.prompts))]

    def make(self, on_text: Callable[[int, str], bool]) -> List[Outcome]:
        """Makes the call; `on_text` returns whether to continue a text."""

        def callback(_: object, index: int, address: int, length: int) -> bool:
            text = ctypes.string_at(address, length).decode()
            self.texts[index].append(text)
            return on_text(index, text)

        count = len(self.prompts)
        none = -1  # no status: the library writes none if the whole call fails
        statuses, reasons = (c_int32 * count)(*[none] * count), (c_int32 * count)()
        status = library.cbl_batch_generate(
            self.pointer, self.options._open, self.prompts, count, _native.BatchTextCallback(callback), None,
            statuses, reasons,
        )
        message = library.cbl_batch_error(self.pointer) if status != Status.OK else b""
        # Options are the same for all prompts: a mistake in them is no single prompt's.
        concerns_all = none in statuses or not count or status == Status.BAD_OPTION
        if status != Status.OK and concerns_all:
            raise failure(status, "batch", message)
        outcomes = []
        for index in range(count):
            outcomes.append(self._outcome(index, statuses[index], reasons[index], message))
            if statuses[index] != Status.OK:
                message = b""  # it is that of the first one that failed
        return outcomes

    def hand_over(self, call: Call[None]) -> None:
        """Makes the call and hands over the texts."""
        outcomes = self.make(lambda index, text: call.hand_over((index, text)))
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Error):
                call.hand_over((index, outcome))

    def _outcome(self, index: int, status: int, reason: int, message: bytes) -> Outcome:
        if status != Status.OK:
            return error_for(status, message)
        text, why = "".join(self.texts[index]), stop_reason_name(reason)
        try:
            check_form(text, why, self.is_constrained)
        except Error as error:
            return error
        return Text(text, why)
