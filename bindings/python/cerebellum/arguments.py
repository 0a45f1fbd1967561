"""Checks of what Python passes to the library: ctypes itself silently wraps numbers and cuts texts."""

from __future__ import annotations

import array
import ctypes
import operator
import os
from ctypes import c_char_p, c_uint32
from typing import Any, Iterable, List, Mapping, Sequence, Tuple, Union

from .errors import Error, Status

Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

Messages = Iterable[Mapping[str, str]]

MOST_TOKENS = 2**32


def kind_of(value: object) -> str:
    """The name of a value's type, for messages."""
    return type(value).__name__


def utf8(text: str, name: str = "text") -> bytes:
    """A text's bytes. Bytes are refused, because nobody knows their encoding."""
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, (bytes, bytearray, memoryview)):
        raise TypeError(f"{name}: a string is needed, not {kind_of(text)}: decode it first, as in .decode()")
    raise TypeError(f"{name}: a string is needed, not {kind_of(text)}")


def text_array(texts: Iterable[str], name: str = "texts") -> Any:
    """Texts as an array of pointers, each text ended by a zero byte."""
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"{name}: a list of strings is needed, not one {kind_of(texts)}")
    encoded = [utf8(text, f"{name}[{index}]") for index, text in enumerate(texts)]
    for index, text in enumerate(encoded):
        if 0 in text:
            raise ValueError(f"{name}[{index}]: a zero character inside would cut the text")
    return (c_char_p * len(encoded))(*encoded)


def message_arrays(conversation: Messages) -> Tuple[Any, Any, int]:
    """Messages, each with "role" and "content", as an array of roles, one of contents, and their number."""
    if isinstance(conversation, (str, bytes, Mapping)):
        raise TypeError(
            f"messages: a list of dictionaries is needed, not {kind_of(conversation)} {conversation!r}"
        )
    roles, contents = [], []
    for index, message in enumerate(conversation):
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise TypeError(f'messages[{index}]: a dictionary with "role" and "content" is needed')
        if message["role"] not in ("system", "user", "assistant"):
            raise ValueError(f"messages[{index}]: the role {message['role']!r} is not system, user or assistant")
        roles.append(message["role"])
        contents.append(message["content"])
    return text_array(roles, "roles"), text_array(contents, "messages"), len(roles)


def of_kind(value: Any, kind: type, name: str, maker: str) -> None:
    """Refuses what is no `kind`, and says what makes one."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: a {kind.__name__} is needed, not {kind_of(value)}; {maker} makes one")


def path_bytes(path: Path) -> bytes:
    """A path as bytes for the operating system."""
    name = os.fsencode(path)
    if 0 in name:
        raise ValueError(f"the path {path!r} has a zero character, where the system would cut it")
    return name


def whole_number(value: Any, name: str) -> int:
    """A whole number; those of numpy are accepted, too."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: a whole number is needed, not {kind_of(value)} {value!r}") from None


def size(value: Any, name: str) -> int:
    """A count or a position, which ctypes would wrap modulo 2^64."""
    number = whole_number(value, name)
    if not 0 <= number < 2**63:
        raise ValueError(f"{name}: {number} is not from 0 to 2^63 - 1")
    return number


def token(value: Any, name: str = "token") -> int:
    """A token id, which ctypes would wrap modulo 2^32."""
    number = whole_number(value, name)
    if not 0 <= number < MOST_TOKENS:
        raise Error(Status.BAD_TOKEN, f"{name}: {number} is no token id: those are from 0 to 2^32 - 1")
    return number


def token_array(tokens: Iterable[int], name: str = "tokens") -> Any:
    """Token ids as an array for the library."""
    if isinstance(tokens, (str, bytes, bytearray, memoryview)):
        advice = "tokenize() makes them of a string" if isinstance(tokens, str) else "decode a text first, as in .decode()"
        raise TypeError(f"{name}: token ids are needed, not {kind_of(tokens)}; {advice}")
    ids: Sequence[int] = tokens if isinstance(tokens, (list, tuple)) else list(tokens)
    try:
        checked = array.array("I", ids)
    except (OverflowError, TypeError):  # says not which one
        checked = array.array("I", [token(id, f"{name}[{index}]") for index, id in enumerate(ids)])
    return (c_uint32 * len(checked)).from_buffer(checked) if checked else (c_uint32 * 0)()


def token_lists(lists: Iterable[Iterable[int]], name: str) -> List[Any]:
    """Several arrays of token ids."""
    return [token_array(tokens, f"{name}[{index}]") for index, tokens in enumerate(lists)]


def message_buffer() -> Any:
    """A buffer in which a function writes why it failed."""
    return ctypes.create_string_buffer(512)
