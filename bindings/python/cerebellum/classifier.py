"""Classification."""

from __future__ import annotations

from ctypes import byref
from typing import TYPE_CHECKING, Any, Iterable, List, Tuple

from ._native import library
from .arguments import message_buffer, text_array
from .errors import check
from .handles import Handle, Pointer
from .model import Model
from .options import ClassifierOptions, NativeOptions, refuse_others

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _ClassifierPointer(Pointer):
    free = library.cbl_classifier_free


class Classifier(Handle):
    """Labels, and the form in which a model judges them; Session.classify() uses it.

    Threads may share a classifier; each thread needs a session of its own, of the same Model. It pickles
    with its model's path. The options are those of ClassifierOptions.
    """

    labels: List[str]
    """The labels, in the given order."""

    def __init__(self, model: Model, labels: Iterable[str], **options: Unpack[ClassifierOptions]) -> None:
        refuse_others(options, ClassifierOptions, "Model.classifier()")
        array = text_array(labels if isinstance(labels, (str, bytes)) else list(labels), "labels")
        self.labels = [label.decode() for label in array]
        self._arguments = (model, options)
        pointer, message = _ClassifierPointer(), message_buffer()
        with NativeOptions(options) as made:
            status = library.cbl_classifier_new(
                model._open, made._open, array, len(array), byref(pointer), message, len(message)
            )
        check(status, message.value)
        self._pointer = pointer

    def __reduce__(self) -> Tuple[Any, ...]:
        model, options = self._arguments
        return (_made_again, (model, self.labels, options))

    @property
    def model(self) -> Model:
        """The model; the classifier works with its sessions."""
        return self._arguments[0]


def _made_again(model: Model, labels: List[str], options: ClassifierOptions) -> Classifier:
    return Classifier(model, labels, **options)
