"""Objects of the library's and how they are freed."""

from __future__ import annotations

from ctypes import c_void_p
from typing import Any, Optional, TypeVar

from .errors import Error, Status

_Self = TypeVar("_Self", bound="Handle")


class Pointer(c_void_p):
    """The address of an object of the library's, which is freed when nobody refers to it any more.

    ctypes refers to its arguments while a function runs. So an object is never freed under a call,
    whichever thread closes what, and needs no lock for that.
    """

    # The library's function that frees the object. Reached through the class, because a module's names may
    # be gone when the interpreter exits.
    free: Any = None

    def __del__(self) -> None:
        if self.value:
            self.free(self)


class Handle:
    """What can be closed, at the latest when it is collected."""

    _pointer: Optional[Pointer] = None

    def close(self) -> None:
        """Gives up memory and threads now, and does not wait for the object to be collected.

        A call that another thread is making goes on; memory goes when it ends.
        """
        self._pointer = None

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _open(self) -> Pointer:
        """The pointer, for the time of a call."""
        pointer = self._pointer
        if pointer is None:
            raise Error(Status.BAD_HANDLE, f"the {type(self).__name__.lower()} is closed")
        return pointer
