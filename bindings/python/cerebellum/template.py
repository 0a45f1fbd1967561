"""Templates: how a task, such as translating, is put to a model."""

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
    """How a task is put to a model: Session.apply() does it.

    Template(model, "translate") is the model file's own template of that name, or a built-in one;
    Template.from_text() makes one from its text. Threads may share a template, and it pickles. A template
    serves every model.
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
