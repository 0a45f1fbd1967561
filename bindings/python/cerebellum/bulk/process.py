"""What a process keeps for all tasks in it: each model file once, and sessions that wait for the next batch."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any, Callable, Dict, Iterator, List, Tuple, TypeVar

from ..errors import Error, Status
from ..handles import Handle
from ..model import Model
from .files import model_digest

Kept = TypeVar("Kept", bound=Handle)

_lock = threading.Lock()
_models: Dict[Tuple[str, str], Model] = {}
_idle: Dict[str, List[Handle]] = {}


def model_of(path: str, digest: str) -> Model:
    """The model of this path and digest, which this process opens once."""
    with _lock:
        model = _models.get((path, digest))
        if model is None:
            found = model_digest(path)
            if found != digest:
                message = f"{path} is another model here than where the task was made ({found[:16]}, not {digest[:16]})"
                raise Error(Status.MODEL_CHANGED, f"{message}: copy the file to this host, or make the task again")
            model = _models[path, digest] = Model(path)
        return model


@contextlib.contextmanager
def lent(key: str, make: Callable[[], Kept]) -> Iterator[Kept]:
    """A session (or batch) for one thread and the time of a `with`: one that waits under this key, or a new
    one. One that raised an exception is not used again."""
    with _lock:
        waiting: List[Any] = _idle.setdefault(key, [])
        handle = waiting.pop() if waiting else None
    if handle is None:
        handle = make()
    try:
        yield handle
    except BaseException:
        handle.close()
        raise
    with _lock:
        _idle.setdefault(key, []).append(handle)


def _after_fork() -> None:
    """A fork copies the lock as it was, perhaps locked by a thread that the child does not have. Sessions of the
    parent would have one thread here."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
