"""The options, where each belongs, and how they are passed to the library."""

from __future__ import annotations

import difflib
import json
from ctypes import byref
from typing import Any, Dict, Iterable, Iterator, Literal, Mapping, Tuple, TypedDict, Union

from . import _native
from ._native import library
from .arguments import token, utf8, whole_number, kind_of
from .errors import OptionError, Status, check, error_for, in_python_words
from .handles import Handle, Pointer


class BatchOptions(TypedDict, total=False):
    """Options of Model.batch(). In all options None stands for the default."""

    context: int | None
    """Number of positions of a sequence, for prompt and generated tokens together. At most that of the
    model, which is the default. Memory is proportional to it."""
    cache: Literal["f16", "int8"] | None
    """Type of the cached keys and values. "int8" takes about half the memory of "f16", the default."""
    threads: int | None
    """Number of threads that share the work, 1 to 64, including the calling thread. 1 by default."""
    chunk: int | None
    """Number of a prompt's tokens that are evaluated at once, at least 1. A larger number is faster and takes
    more memory. 64 by default."""
    isa: str | None
    """Instruction set, one of isa_names(). The best one by default."""


class SessionOptions(BatchOptions, total=False):
    """Options of Model.session()."""

    all_logits: bool | None
    """Compute the logits of every token of a prompt. This makes score() and classify() faster. False by
    default."""
    draft: int | None
    """The most tokens, 0 to 15, to guess and to evaluate together with each token. Affects the speed, never a
    result. 4 by default."""


class SamplingOptions(TypedDict, total=False):
    """Options of Session.sample(): how to choose a token."""

    temperature: float | None
    """0 to 100. 0, the default, takes the most probable token. 1 draws from the model's own distribution; a
    value below 1 makes probable tokens more probable."""
    top_k: int | None
    """Draw only from the top_k most probable tokens. 0, the default: from all."""
    top_p: float | None
    """Draw only from the most probable tokens that together have this probability, above 0 to 1. 1, the
    default: from all."""
    min_p: float | None
    """Draw only from tokens with at least min_p times the largest probability, 0 to 1. 0, the default: from
    all."""
    repetition_penalty: float | None
    """0.01 to 100. Values above 1 make recent tokens less probable. 1 by default."""
    repetition_window: int | None
    """How many of the last tokens, the prompt's included, are recent. 0: all. 64 by default."""
    seed: int | None
    """The same seed, 0 to 2^64 - 1, draws the same tokens on every machine. 0 by default."""
    logit_bias: Mapping[int, float] | None
    """Numbers to add to the logits of tokens, -1000 to 1000: -100 makes a token nearly impossible, 100 nearly
    certain. A token that the model does not have raises an OptionError."""


class GenerationOptions(SamplingOptions, total=False):
    """Options of generate(), stream() and steps(), of a session or a batch."""

    max_tokens: int | None
    """The most tokens to generate. 128 by default."""
    stop: str | Iterable[str] | None
    """The text ends before the first of these strings, and contains no part of it."""
    ignore_end_of_text: bool | None
    """Continue after the end-of-text token and all other tokens that end an answer. False by default."""
    parse_special: bool | None
    """A special token that is written in the prompt, such as <|endoftext|>, becomes that token. False by
    default, because text from users must not contain control tokens."""
    choices: Iterable[str] | None
    """The text must be one of these strings. Give only one of choices, regex and json_schema; all need
    has_constraints(). If the text ends before it has the form, Incomplete is raised."""
    regex: str | None
    """The whole text must match this regular expression; ^ and $ are not necessary."""
    json_schema: Mapping[str, Any] | str | None
    """The text must be JSON on one line, valid by this JSON schema (a dictionary, or a string of JSON). Numbers
    have at most 15 digits before and after the point and 2 in the exponent; bounds and values beyond 2^53
    are refused."""


class ChatOptions(GenerationOptions, total=False):
    """Options of chat() and stream_chat()."""

    date: str | None
    """The day that the chat template may write, such as "2025-01-31". By default today, in UTC."""
    thinking: bool | None
    """Asks a model that can think before it answers to do so, or not to, if its template knows that."""


class ClassifierOptions(TypedDict, total=False):
    """Options of Model.classifier()."""

    template: str | None
    """The prompt, with the places of text and label. "Utterance: {text}\\nIntent: {label}\\n" by default."""
    examples: Iterable[Tuple[str, str]] | None
    """Pairs of a text and its label, which come before every text in the prompt."""
    normalization: Literal["sum", "mean"] | None
    """The score of a label: "sum", the default, is the log-probability of all its tokens together, "mean" the
    average of one token."""
    calibration: Literal["none", "content_free", "mutual_information"] | None
    """What to subtract from a label's score, because the model prefers some labels for any text."""


class _ModelOptions(TypedDict, total=False):
    access: str
    verify: bool


class _EmbeddingOptions(TypedDict, total=False):
    pooling: str


class _TokenizeOptions(TypedDict, total=False):
    parse_special: bool | None
    begin_of_text: bool | None


class _TemplateOptions(TypedDict, total=False):
    template_tokens: int


CONSTRAINTS = ("choices", "regex", "json_schema")

# Where an option belongs, for messages about a misplaced option. The first place that has it is named.
_PLACES: Tuple[Tuple[Any, str], ...] = (
    (_ModelOptions, "Model()"),
    (SessionOptions, "Model.session()"),
    (GenerationOptions, "generate(), stream() and steps()"),
    (ChatOptions, "chat() and stream_chat()"),
    (ClassifierOptions, "Model.classifier()"),
    (_EmbeddingOptions, "Session.embed()"),
    (_TokenizeOptions, "Model.tokenize()"),
    (_TemplateOptions, "Session.apply(), where it is max_tokens"),
)


def refuse_others(options: Mapping[str, object], kind: Any, where: str) -> None:
    """Refuses options that are not of `kind`, one of the classes above, and says where they belong."""
    known = list(kind.__annotations__)
    for name in options:
        if name in known:
            continue
        for place, home in _PLACES:
            if name in place.__annotations__:
                raise TypeError(f"{where} takes no option {name!r}: it is one of {home}")
        message = f"{where} takes no option {name!r}"
        everywhere = [name for place, _ in _PLACES for name in place.__annotations__]
        # What is cut short comes first: `temp` is nearer to `template` than to `temperature`.
        longer = [each for each in known if each.startswith(name)]
        near = longer or difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(name, everywhere, 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"{message}{meant} It takes {', '.join(known)}")


def is_constrained(options: Mapping[str, object]) -> bool:
    """Whether the options require a form of the text."""
    return any(options.get(name) is not None for name in CONSTRAINTS)


class _OptionsPointer(Pointer):
    free = library.cbl_options_free


class NativeOptions(Handle):
    """The library's set of options, made of names and values that were checked for their place."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        pointer = _OptionsPointer()
        check(library.cbl_options_new(byref(pointer)))
        self._pointer = pointer
        given = {name: value for name, value in options.items() if value is not None}
        constraints = [name for name in CONSTRAINTS if name in given]
        if len(constraints) > 1:
            raise OptionError(Status.BAD_OPTION, f"{' and '.join(constraints)}: only one of them at a time")
        for name, value in given.items():
            special = _SPECIAL.get(name)
            if special:
                special(self, value)
            else:
                self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        key, kind = _native.OPTIONS[name]
        if kind == "float":
            status = library.cbl_options_set_float(self._open, key, _number(name, value))
        elif kind == "string":
            text = utf8(value, name)
            status = library.cbl_options_set_string(self._open, key, text, len(text))
        else:
            status = library.cbl_options_set_int(self._open, key, _INTEGERS[kind](name, value))
        self._check(status, name)

    def _check(self, status: int, name: str) -> None:
        if status:
            message = in_python_words(library.cbl_options_error(self._open).decode(errors="replace"))
            detail = message.partition(": ")[2] or message
            raise error_for(status, f"{name}: {detail}".encode())

    def _set_stop(self, stop: Union[str, Iterable[str]]) -> None:
        for text in _strings("stop", [stop] if isinstance(stop, str) else stop):
            self._check(library.cbl_options_add_stop(self._open, text, len(text)), "stop")

    def _set_logit_bias(self, biases: Mapping[int, float]) -> None:
        for id, bias in biases.items():
            id, bias = token(id, "logit_bias"), _number("logit_bias", bias)
            self._check(library.cbl_options_set_logit_bias(self._open, id, bias), "logit_bias")

    def _set_choices(self, choices: Iterable[str]) -> None:
        texts = list(_strings("choices", choices))
        if not texts or not all(texts) or any(b"\n" in text for text in texts):
            message = "choices: there are none, or one of them is empty or has a line break"
            raise OptionError(Status.BAD_OPTION, message)
        self._set("choices", b"\n".join(texts).decode())

    def _set_regex(self, regex: str) -> None:
        if regex == "":
            raise OptionError(Status.BAD_OPTION, "regex: it is empty; leave the option out for any text")
        self._set("regex", regex)

    def _set_json_schema(self, schema: Union[Mapping[str, Any], str]) -> None:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        if not text.strip():
            raise OptionError(Status.BAD_OPTION, "json_schema: it is empty; leave the option out for any text")
        self._set("json_schema", text)

    def _set_examples(self, examples: Iterable[Tuple[str, str]]) -> None:
        for index, (text, label) in enumerate(examples):
            one, two = utf8(text, f"examples[{index}]"), utf8(label, f"examples[{index}]")
            status = library.cbl_options_add_example(self._open, one, len(one), two, len(two))
            self._check(status, "examples")


# Options that need more than one value of the library.
_SPECIAL: Dict[str, Any] = {
    "stop": NativeOptions._set_stop,
    "logit_bias": NativeOptions._set_logit_bias,
    "choices": NativeOptions._set_choices,
    "regex": NativeOptions._set_regex,
    "json_schema": NativeOptions._set_json_schema,
    "examples": NativeOptions._set_examples,
}


def _strings(name: str, texts: Iterable[str]) -> Iterator[bytes]:
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"{name}: a list of strings is needed, not one {kind_of(texts)}")
    return (utf8(text, name) for text in texts)


def _number(name: str, value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name}: a number is needed, not {kind_of(value)} {value!r}")
    try:
        return float(value)
    except TypeError:
        raise TypeError(f"{name}: a number is needed, not {kind_of(value)} {value!r}") from None


def _int(name: str, value: Any) -> int:
    number = whole_number(value, name)
    if not -(2**63) <= number < 2**63:
        raise OptionError(Status.BAD_OPTION, f"{name}: {number} is out of range")
    return number


def _bool(name: str, value: Any) -> int:
    number = whole_number(value, name)
    if number not in (0, 1):
        raise OptionError(Status.BAD_OPTION, f"{name}: {number} is not True or False")
    return number


def _seed(name: str, value: Any) -> int:
    number = whole_number(value, name)
    if not 0 <= number < 2**64:
        raise OptionError(Status.BAD_OPTION, f"{name}: {number} is not from 0 to 2^64 - 1")
    # The library takes the same 64 bits with a sign.
    return number - 2**64 if number >= 2**63 else number


def _word(name: str, value: Any) -> int:
    words = _native.WORDS[name]
    if not isinstance(value, str) or value not in words:
        raise OptionError(Status.BAD_OPTION, f"{name}: {value!r} is not one of {', '.join(words)}")
    return words[value]


_INTEGERS: Dict[str, Any] = {"int": _int, "bool": _bool, "seed": _seed, "word": _word}
