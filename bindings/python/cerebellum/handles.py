"""Objects of the library, and how they are freed."""

from __future__ import annotations

from ctypes import c_void_p, py_object, pythonapi
from typing import Any, Optional, TypeVar

from .errors import Error, Status

_Self = TypeVar("_Self", bound="Handle")

# Makes a method of a function that is not written in Python.
_method = pythonapi.PyInstanceMethod_New
_method.argtypes, _method.restype = [py_object], py_object


class Pointer(c_void_p):
    """The address of an object of the library. The object is freed when nothing refers to it any more.

    ctypes refers to its arguments while a function runs. So an object is never freed during a call, even if
    another thread closes it, and needs no lock for that.
    """

    # The library's function that frees the object.
    free: Any = None

    def __init_subclass__(cls) -> None:
        # The function itself, not one in Python that calls it: where a finalizer is in Python, a signal's handler may
        # run, and what it raises is lost there, Ctrl-C among it.
        cls.__del__ = _method(cls.free)  # type: ignore[attr-defined]


class Handle:
    """An object that can be closed; the garbage collector closes it at the latest."""

    _pointer: Optional[Pointer] = None

    def close(self) -> None:
        """Frees memory and threads now, without waiting for the garbage collector.

        A running call of another thread continues; the memory is freed when that call ends.
        """
        self._pointer = None

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _open(self) -> Pointer:
        """The pointer, for one call."""
        pointer = self._pointer
        if pointer is None:
            raise Error(Status.BAD_HANDLE, f"the {type(self).__name__.lower()} is closed")
        return pointer
