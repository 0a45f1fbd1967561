"""Templates: prompts for tasks such as translating."""

from __future__ import annotations

from ctypes import byref
from typing import Any, Tuple

from ._native import library
from .arguments import message_buffer, utf8
from .errors import check
from .handles import Handle, Pointer
from .model import Model


class _TemplatePointer(Pointer):
    free = library.cbl_template_free


class Template(Handle):
    """The prompt of a task; Session.apply() uses it.

    Template(model, "translate") is the template of this name in the model file or, if there is none, the
    built-in one. Template.from_text() makes one from its text. Threads may share a template, and it pickles.
    Every model can use it.
    """

    def __init__(self, model: Model, name: str) -> None:
        self._make(name, "name", (Template, (model, name)), library.cbl_template_named, model._open)

    @classmethod
    def from_text(cls, text: str) -> Template:
        """A template from its text: the prompt with {text} in it, and options (docs/templates.md)."""
        template = cls.__new__(cls)
        template._make(text, "text", (Template.from_text, (text,)), library.cbl_template_new)
        return template

    def _make(self, text: str, name: str, recipe: Tuple[Any, ...], function: Any, *first: Any) -> None:
        self._recipe = recipe
        pointer, message, data = _TemplatePointer(), message_buffer(), utf8(text, name)
        check(function(*first, data, len(data), byref(pointer), message, len(message)), message.value)
        self._pointer = pointer

    def __reduce__(self) -> Tuple[Any, ...]:
        return self._recipe
