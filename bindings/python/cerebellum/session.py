"""Sessions: a sequence of tokens, and the operations on it."""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref, c_double, c_float, c_size_t, c_uint32
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, NoReturn, Optional, Tuple, Union

from . import _native
from ._native import library
from .arguments import (
    Messages, Path, message_arrays, message_buffer, of_kind, path_bytes, size, text_array, token_array, token_lists, utf8,
    whole_number,
)
from .calls import Call, interruptible
from .classifier import Classifier
from .errors import Error, OptionError, Status, check, failure
from .generation import Generation, step_with, text_of
from .handles import Handle, Pointer
from .model import Model, fields
from .options import (
    ChatOptions, GenerationOptions, NativeOptions, SamplingOptions, SessionOptions, is_constrained, refuse_others,
)
from .stream import StepStream, Text, TextStream, stop_reason_name
from .template import Template

if TYPE_CHECKING:
    from typing_extensions import Literal, Unpack

Prompt = Union[str, Iterable[int]]


class _SessionPointer(Pointer):
    free = library.cbl_session_free

    def cancel(self) -> None:
        library.cbl_session_cancel(self)

    def clear_cancel(self) -> None:
        library.cbl_session_clear_cancel(self)


class Session(Handle):
    """A sequence of tokens, with the memory to continue it.

    A prompt continues the tokens that the session already holds; reset() removes them. One thread at a time
    may use a session: while a call runs on another thread, calls raise Error with the status BUSY. The
    interpreter's lock is released while the library works, and Ctrl-C ends every long call.

    The options are those of SessionOptions.
    """

    model: Model
    """The model of this session."""

    def __init__(self, model: Model, **options: Unpack[SessionOptions]) -> None:
        refuse_others(options, SessionOptions, "Model.session()")
        self.model, self._lock = model, threading.Lock()
        pointer, message = _SessionPointer(), message_buffer()
        with NativeOptions(options) as made:
            status = library.cbl_session_new(
                model._open, made._open, byref(pointer), message, len(message)
            )
        check(status, message.value)
        self._pointer = pointer

    @property
    def _open(self) -> _SessionPointer:
        pointer = super()._open
        assert isinstance(pointer, _SessionPointer)
        return pointer

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session cannot be pickled: pickle its model, and save() its state")

    # ---- Generating

    def generate(self, prompt: Prompt, **options: Unpack[GenerationOptions]) -> Text:
        """The text that follows a prompt. The prompt is a string or token ids.

        By default it has at most 128 tokens (max_tokens), and each is the most probable one (temperature). Its
        stop_reason says why it ended: see Text. Raises Incomplete if it ended before it had the form that
        choices, regex or json_schema require, Cancelled if cancel() stopped it, and Error in other cases, for
        example with the status CONTEXT_FULL if the prompt does not fit.
        """
        return self._text(prompt, options, "Session.generate()").read()

    def stream(self, prompt: Prompt, **options: Unpack[GenerationOptions]) -> TextStream:
        """As generate(), but yields the text in pieces. Each piece has whole characters, and no character that
        may begin a stop string. See Stream."""
        return self._text(prompt, options, "Session.stream()")

    def steps(self, prompt: Prompt, top: int = 0, **options: Unpack[GenerationOptions]) -> StepStream:
        """As stream(), but yields a Step for each token, with the `top` most probable tokens at its
        position."""
        piece_of = step_with(size(top, "top"))
        source, constrained = self._generation(prompt, options, "Session.steps()", piece_of)
        return StepStream(source, self, constrained)

    def _text(self, prompt: Prompt, options: GenerationOptions, where: str) -> TextStream:
        source, constrained = self._generation(prompt, options, where, text_of)
        return TextStream(source, self, constrained)

    def _generation(
        self, prompt: Prompt, options: GenerationOptions, where: str, piece_of: Any
    ) -> Tuple[Generation, bool]:
        refuse_others(options, GenerationOptions, where)
        if isinstance(prompt, str):
            data, begin = utf8(prompt, "prompt"), library.cbl_generation_begin
        else:
            data, begin = token_array(prompt, "prompt"), library.cbl_generation_begin_from_tokens
        return Generation(self, begin, NativeOptions(options), data, piece_of), is_constrained(options)

    def apply(
        self, template: Template, text: str, seed: int = 0, max_tokens: Optional[int] = None
    ) -> Text:
        """The result of a template for a text, such as its translation.

        If a text is too long for the session's context, it is cut between sentences, and the results of the
        parts are joined. The result of a part has at most max_tokens tokens; the template may set fewer.
        stop_reason is "max_tokens" if the result of a part was cut. Replaces the tokens of the session."""
        return self.stream_apply(template, text, seed, max_tokens).read()

    def stream_apply(
        self, template: Template, text: str, seed: int = 0, max_tokens: Optional[int] = None
    ) -> TextStream:
        """As apply(), but yields the result in pieces. See Stream."""
        of_kind(template, Template, "template", "Model.template(name)")
        data, session = utf8(text), self._open
        if max_tokens is not None and whole_number(max_tokens, "max_tokens") < 1:
            raise OptionError(Status.BAD_OPTION, f"max_tokens: {max_tokens} is not at least 1")
        made, prepared = NativeOptions({"seed": seed, "template_tokens": max_tokens}), template._open

        def run(call: Call[str]) -> str:
            def callback(_: object, address: int, length: int) -> bool:
                return call.hand_over(ctypes.string_at(address, length).decode())

            result = _native.TemplateResult()
            with self._alone:
                self._check(library.cbl_apply_template(
                    session, prepared, made._open, data, len(data), _native.TextCallback(callback), None,
                    byref(result), ctypes.sizeof(result),
                ))
            return "max_tokens" if result.cut_parts else stop_reason_name(result.stop_reason)

        return TextStream(Call(run, session), self)

    def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> Text:
        """The model's answer to a conversation, by the chat template in its file. A message is a dictionary
        with "role" ("system", "user" or "assistant") and "content".

        The text of a message never becomes a control token. The conversation replaces the tokens of the
        session; what both begin with is not evaluated again, so append the answer and the next message, and
        call again. If the context is full, the oldest turns are left out, but not the system message. A last
        message of the assistant is continued.

        Raises Error with the status BAD_OPTION if the model has no chat template or the template refuses the
        messages, CONTEXT_FULL if the last turn does not fit, and what generate() raises.
        """
        return self._chat(messages, options, "Session.chat()").read()

    def stream_chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> TextStream:
        """As chat(), but yields the answer in pieces. See Stream."""
        return self._chat(messages, options, "Session.stream_chat()")

    def _chat(self, messages: Messages, options: ChatOptions, where: str) -> TextStream:
        refuse_others(options, ChatOptions, where)
        (roles, contents, count), session = message_arrays(messages), self._open
        made = NativeOptions(options)

        def run(call: Call[str]) -> str:
            def callback(_: object, address: int, length: int) -> bool:
                return call.hand_over(ctypes.string_at(address, length).decode())

            result = _native.ChatResult()
            with self._alone:
                self._check(library.cbl_chat_answer(
                    session, made._open, roles, contents, count, _native.TextCallback(callback), None,
                    byref(result), ctypes.sizeof(result),
                ))
            return stop_reason_name(result.stop_reason)

        return TextStream(Call(run, session), self, is_constrained(options))

    # ---- Asking

    def score(
        self, prompt: Prompt, continuations: Iterable[Prompt], parse_special: bool = False
    ) -> List[Tuple[float, int]]:
        """How probable continuations of a prompt are: for each the natural logarithm of the probability of
        all its tokens, and their number.

        The prompt continues the tokens of the session and stays in it. Prompt and continuations are all
        strings or all token ids; no continuation is empty. The space before a word belongs to the
        continuation: " time", not "time". A session made with all_logits=True is fastest.

        Raises Error with the status CONTEXT_FULL if the prompt and the longest continuation do not fit.
        """
        if not isinstance(prompt, str):
            return self._score_tokens(prompt, continuations)  # type: ignore[arg-type]
        text, array = utf8(prompt), text_array(continuations, "continuations")  # type: ignore[arg-type]
        scores, lengths = (c_double * len(array))(), (c_size_t * len(array))()
        with NativeOptions({"parse_special": parse_special}) as made:
            self._run(
                library.cbl_score, made._open, text, len(text), array, len(array), scores, lengths
            )
        return list(zip(scores, lengths))

    def _score_tokens(
        self, prompt: Iterable[int], continuations: Iterable[Iterable[int]]
    ) -> List[Tuple[float, int]]:
        start, lists = token_array(prompt, "prompt"), token_lists(continuations, "continuations")
        lengths = (c_size_t * len(lists))(*map(len, lists))
        tokens = (c_uint32 * sum(lengths))(*(id for ids in lists for id in ids))
        scores = (c_double * len(lengths))()
        self._run(
            library.cbl_score_tokens, start, len(start), tokens, lengths, len(lengths), scores, None
        )
        return list(zip(scores, lengths))

    def embed(
        self, text: Prompt, pooling: Literal["mean", "last"] = "mean", parse_special: bool = False
    ) -> ctypes.Array[c_float]:
        """The embedding of a text, which is a string or token ids: a vector of length 1 with
        model.info["embedding"] floats. It is a ctypes array, which numpy.frombuffer(vector, "float32")
        accepts. The inner product of two such vectors is near 1 if the texts are similar.

        `pooling` is "mean", the mean over all tokens, or "last", the vector of the last token. Replaces the
        tokens of the session.
        """
        is_text = isinstance(text, str)
        data = utf8(text) if isinstance(text, str) else token_array(text, "text")
        function = library.cbl_embed if is_text else library.cbl_embed_tokens
        width = c_size_t()
        with NativeOptions({"pooling": pooling, "parse_special": parse_special}) as made:
            try:
                self._call(function, made._open, data, len(data), None, 0, byref(width))
            except Error as error:
                if error.status != Status.BUFFER_TOO_SMALL:
                    raise
            embedding = (c_float * width.value)()
            self._run(function, made._open, data, len(data), embedding, len(embedding), byref(width))
        return embedding

    def classify(self, classifier: Classifier, text: str) -> Tuple[str, Dict[str, float]]:
        """The most probable label of a text, and a dictionary of the probabilities of all labels, whose sum
        is 1.

        Replaces the tokens of the session. A session made with all_logits=True is fastest.
        """
        of_kind(classifier, Classifier, "classifier", "Model.classifier(labels)")
        data, best, labels = utf8(text), c_size_t(), classifier.labels
        probabilities = (c_double * len(labels))()
        self._run(
            library.cbl_classify, classifier._open, data, len(data), byref(best), probabilities, len(labels)
        )
        return labels[best.value], dict(zip(labels, probabilities))

    # ---- Token by token

    def evaluate(self, tokens: Iterable[int]) -> None:
        """Appends tokens, at least one. Afterwards `logits` are those of the last token.

        Raises Error with the status CONTEXT_FULL if they do not fit, or BAD_TOKEN if the model does not have
        one of them; the session then stays as it was.
        """
        array = token_array(tokens)
        if len(array) == 1:  # takes no longer than Ctrl-C may wait
            self._call(library.cbl_session_evaluate, array, 1)
        else:
            self._run(library.cbl_session_evaluate, array, len(array))

    @property
    def logits(self) -> ctypes.Array[c_float]:
        """A copy of the last token's logits: a float for each token of the vocabulary. It is a ctypes array,
        which numpy.frombuffer(logits, "float32") accepts.

        Raises Error with the status NO_LOGITS if no token was evaluated since a reset() or rewind().
        """
        start, count, session = ctypes.POINTER(c_float)(), c_size_t(), self._open
        with self._alone:
            self._check(library.cbl_session_logits(session, byref(start), byref(count)))
            copy = (c_float * count.value)()
            ctypes.memmove(copy, start, ctypes.sizeof(copy))
        return copy

    def sample(self, **options: Unpack[SamplingOptions]) -> int:
        """Chooses the next token by the logits of the last one; the options are those of SamplingOptions. The
        session does not change: evaluate([token]) appends the token."""
        refuse_others(options, SamplingOptions, "Session.sample()")
        token = c_uint32()
        with NativeOptions(options) as made:
            self._call(library.cbl_session_sample, made._open, byref(token))
        return token.value

    @property
    def tokens(self) -> List[int]:
        """The tokens that the session holds."""
        start, count, session = ctypes.POINTER(c_uint32)(), c_size_t(), self._open
        with self._alone:
            self._check(library.cbl_session_tokens(session, byref(start), byref(count)))
            return start[: count.value]

    @property
    def position(self) -> int:
        """The number of tokens that the session holds. Any thread may ask."""
        position: int = library.cbl_session_position(self._open)
        return position

    def reset(self) -> None:
        """Removes all tokens."""
        self._call(library.cbl_session_reset)

    def rewind(self, position: int) -> None:
        """Removes the tokens from `position` on; `position` is at most self.position."""
        self._call(library.cbl_session_rewind, size(position, "position"))

    # ---- State

    def cancel(self) -> None:
        """Stops the running call or, if none runs, the next one; the call raises Cancelled. Any thread may call
        this."""
        self._open.cancel()

    def clear_cancel(self) -> None:
        """Withdraws a cancel() that has not stopped a call yet. Any thread may call this."""
        self._open.clear_cancel()

    def fork(self) -> Session:
        """A new session with the same options and the same tokens."""
        pointer = _SessionPointer()
        self._call(library.cbl_session_fork, None, byref(pointer))
        fork = Session.__new__(Session)
        fork.model, fork._lock, fork._pointer = self.model, threading.Lock(), pointer
        return fork

    def save(self) -> bytes:
        """The session's tokens and cache as bytes, for restore(). They are not encrypted."""
        needed, session = c_size_t(), self._open
        with self._alone:
            status = library.cbl_session_save(session, None, 0, byref(needed))
            buffer = ctypes.create_string_buffer(needed.value)
            if status == Status.BUFFER_TOO_SMALL:
                status = library.cbl_session_save(session, buffer, needed.value, byref(needed))
            self._check(status)
        return buffer.raw

    def restore(self, saved: Union[bytes, bytearray, memoryview]) -> None:
        """Replaces the session's state by the bytes that save() returned in a session of the same model and
        type of cache.

        Raises Error with the status BAD_SAVED if the bytes are damaged or belong to another model, and
        CONTEXT_FULL if this session has too few positions.
        """
        if not isinstance(saved, (bytes, bytearray, memoryview)):
            raise TypeError("saved: the bytes of save() are needed; restore_file() takes a path")
        data = bytes(saved)
        self._call(library.cbl_session_restore, data, len(data))

    def save_file(self, path: Path) -> None:
        """As save(), to a file that only its owner may read. There is always the old file or the new one, never
        a part of it. A device, a pipe or a directory is refused."""
        self._call(library.cbl_session_save_file, path_bytes(path))

    def restore_file(self, path: Path) -> None:
        """As restore(), from a file of save_file()."""
        self._call(library.cbl_session_restore_file, path_bytes(path))

    def lock_memory(self) -> None:
        """Keeps the session's memory, total_bytes of Model.plan(), in RAM as long as the session exists. Raises
        Error with the status NO_MEMORY if the system refuses."""
        self._call(library.cbl_session_lock_memory)

    @property
    def stats(self) -> Dict[str, Any]:
        """Facts and counts: isa, context and position (tokens), threads; evaluated_tokens and
        evaluation_seconds since the session was made; guessed_tokens and right_guesses. Of the last
        generation: prompt_tokens, prompt_seconds, generated_tokens, generation_seconds, stop_reason, and
        pending_token, a token that was generated but not evaluated, or -1."""
        stats = _native.SessionStats()
        self._call(library.cbl_session_get_stats, byref(stats), ctypes.sizeof(stats))
        return {**fields(stats), "stop_reason": stop_reason_name(stats.stop_reason)}

    @property
    def _alone(self) -> Any:
        """The lock of one call, for `with`. A second call raises BUSY and does not wait."""
        if self._lock.locked():
            raise failure(Status.BUSY, "session", b"")
        return self._lock

    def _call(self, function: Any, *arguments: Any) -> None:
        """Makes a short call."""
        session = self._open
        with self._alone:
            self._check(function(session, *arguments))

    def _run(self, function: Any, *arguments: Any) -> None:
        """Makes a call that may take long."""
        session = self._open
        with self._alone:
            self._check(interruptible(lambda: function(session, *arguments), session))

    def _check(self, status: int) -> None:
        """Raises the exception of a call that held the lock."""
        if status != Status.OK:
            raise failure(status, "session", library.cbl_session_error(self._open))
