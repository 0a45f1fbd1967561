"""Long calls of the library, made so that Ctrl-C and the interpreter's exit can end them.

Python handles signals in the main thread, and only between two of its own instructions: a call into the
library delays them, and an exception in a callback cannot leave the callback. So the main thread does not
make such a call itself. It waits for a thread that makes the call, and Ctrl-C can interrupt the waiting.
"""

from __future__ import annotations

import _thread
import atexit
import os
import queue
import threading
from typing import Any, Callable, Generic, Optional, Protocol, Set, TypeVar

T = TypeVar("T")


class Cancellable(Protocol):
    """A session or a batch."""

    def cancel(self) -> None: ...

    def clear_cancel(self) -> None: ...


def interruptible(call: Callable[[], T], subject: Cancellable) -> T:
    """Makes `call`, which works on `subject` and has no callbacks, and returns its result; Ctrl-C ends it at
    once."""
    if threading.current_thread() is not threading.main_thread():
        return call()  # signals are not its business
    with Call(lambda _: call(), subject) as running:
        return running.result()


class Call(Generic[T]):
    """A call on a thread of its own, whose callbacks hand over one piece at a time.

    The call does not run ahead: it waits in its callback until somebody asks for the next piece.
    """

    def __init__(self, run: Callable[[Call[Any]], T], subject: Cancellable) -> None:
        """`run` makes the call; its callbacks return the result of hand_over() of its argument."""
        self._run, self._subject = run, subject
        self._process = os.getpid()
        self._started = self._closed = False
        self._worker: Optional[int] = None
        self._begin = _thread.allocate_lock()  # guards _closed and _worker
        self._over = _thread.allocate_lock()  # held from the start to the end
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._result: Optional[T] = None
        self._error: Optional[BaseException] = None

    def hand_over(self, piece: object) -> bool:
        """For the library's callback: passes a piece on and returns whether to continue."""
        if self._closed:
            return False
        self._pieces.put(piece)
        return self._wanted.get() and not self._closed

    @property
    def is_closed(self) -> bool:
        """Whether nobody waits for the call any more."""
        return self._closed

    def next_piece(self) -> Any:
        """The next piece, or END after the last one."""
        if self._process != os.getpid():
            raise RuntimeError("this stream was begun before fork(), in another process: begin another one")
        if self._closed or (self._worker is not None and not self._over.locked()):
            return END
        if self._started:
            self._wanted.put(True)
        else:
            self._start()
        return self._pieces.get()

    def pass_on(self, take: Callable[[Any], object]) -> None:
        """Passes on all pieces."""
        while True:
            piece = self.next_piece()
            if piece is END:
                break
            take(piece)

    def result(self) -> T:
        """What the call returned or raised. Waits for the end of a call that hands nothing over."""
        self.pass_on(_nothing)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def close(self) -> None:
        """Ends the call at once if it runs, and waits until it has ended."""
        if self._process != os.getpid():
            return  # its thread is not in this process
        with self._begin:
            self._closed = True
            runs = self._worker is not None and self._over.locked()
        if runs:
            self._subject.cancel()
            self._wanted.put(False)
            if self._worker == threading.get_ident():
                return  # collected in the midst of its own callback, which ends it
            wait_for(self._over)
            # The call may have ended without looking at the request, which must not hit the next one.
            self._subject.clear_cancel()
        self._pieces.put(END)  # for another thread that waits for a piece

    def __enter__(self) -> Call[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        if _exiting:
            raise RuntimeError("the interpreter is exiting")
        self._started = True
        self._over.acquire()
        # Not threading.Thread, whose start() an interrupt can leave in the midst of its own locks.
        _thread.start_new_thread(self._work, ())

    def _work(self) -> None:
        with self._begin:
            if self._closed:
                return
            self._worker = threading.get_ident()
        try:
            with _life:
                if _exiting:
                    raise RuntimeError("the interpreter is exiting")
                _running.add(self)
            self._result = self._run(self)
        except BaseException as error:  # is raised where the result is asked for
            self._error = error
        self._run = _made_already  # lets go what it refers to
        if self._closed:
            self._subject.clear_cancel()
        _running.discard(self)
        self._over.release()
        self._pieces.put(END)


END = object()


def _nothing(_: object) -> None:
    pass


def _made_already(_: Call[Any]) -> Any:
    raise AssertionError("a call is made once")


def wait_for(lock: Any) -> None:
    """Waits for a lock. Ctrl-C is raised afterwards, because the call that holds the lock must end first."""
    interrupt: Optional[BaseException] = None
    while True:
        try:
            with lock:
                break
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


_life = _thread.allocate_lock()  # guards the two below: a call is ended at exit, or it never begins
_running: Set[Call[Any]] = set()
_exiting = False


@atexit.register
def _end_all() -> None:
    """Ends every call before the interpreter does. Python ends its threads by unwinding their stacks, and
    where the library is on a stack, below a callback, that ends the process."""
    global _exiting
    with _life:
        _exiting = True
        running = list(_running)
    for call in running:
        call.close()
