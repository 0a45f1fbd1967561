"""Runs quantized GPT models from one memory-mapped file.

    import cerebellum

    model = cerebellum.Model("model.cbl")
    session = model.session(threads=2)
    for text in session.stream("Once upon a time", max_tokens=60, temperature=0.8):
        print(text, end="", flush=True)

    classifier = model.classifier(["alarm", "timer", "weather"])
    print(session.classify(classifier, "wake me at six")[0])

A model may be shared by threads and pickles by its path, so that workers of Ray, Spark or Dask open it
where they are; processes on one machine share its pages. A session is for one thread at a time. The
interpreter's lock is released while the library works.
"""

import collections
import ctypes
import json
import queue
import threading
from ctypes import byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_void_p

from . import _native
from ._native import library as _library

__version__ = _library.cbl_version_string().decode()
__all__ = [
    "Batch", "Classifier", "Error", "Model", "Session", "Step", "Template", "has_constraints",
    "isa_names",
]

_MESSAGE_SIZE = 512


class Error(Exception):
    """What the library says; `status` is the number of a cbl_status."""

    def __init__(self, status, message=""):
        super().__init__(message or _library.cbl_status_text(status).decode())
        self.status = status

    def __reduce__(self):
        return (Error, (self.status, str(self)))


def isa_names():
    """Names of the instruction sets that this processor supports, the best one last."""
    names = []
    while True:
        name = _library.cbl_isa_name(len(names))
        if name is None:
            return names
        names.append(name.decode())


def has_constraints():
    """Whether the options choices, regex and json_schema work in this build of the library."""
    return _library.cbl_has_constraints()


Step = collections.namedtuple("Step", "token text log_probability top")
Step.__doc__ = """A token of a generation (None if held-back text follows the last one), the text that has
become certain with it, the natural logarithm of its probability (None if a constraint left no choice),
and the most probable tokens in its place as pairs with theirs."""


class _Handle:
    """Something of the library's that is freed once."""

    _free = None

    def __init__(self, pointer):
        self._pointer = pointer

    def close(self):
        """Frees it now rather than when it is collected."""
        if getattr(self, "_pointer", None):
            status = getattr(_library, self._free)(self._pointer)
            if status != _native.OK:
                raise Error(status)
            self._pointer = None

    def __del__(self):
        try:
            self.close()
        except Exception:  # the interpreter may be half gone
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def _as_parameter_(self):
        return self._pointer  # NULL once closed, which the library refuses


class _Options(_Handle):
    _free = "cbl_options_free"

    def __init__(self, stop=(), examples=(), logit_bias=None, choices=None, json_schema=None, **options):
        pointer = c_void_p()
        self._pointer = None
        self._check(_library.cbl_options_new(byref(pointer)))
        self._pointer = pointer
        if choices is not None:
            if not choices or any("\n" in choice for choice in choices):
                raise ValueError("choices: there are none, or one has a line break")
            options["choices"] = "\n".join(choices)
        if json_schema is not None:
            is_text = isinstance(json_schema, str)
            options["json_schema"] = json_schema if is_text else json.dumps(json_schema)
        for name, value in options.items():
            if value is not None:
                self._set(name, value)
        for token, bias in (logit_bias or {}).items():
            self._check(_library.cbl_options_set_logit_bias(self, token, bias))
        for text in [stop] if isinstance(stop, str) else stop:
            text = text.encode()
            self._check(_library.cbl_options_add_stop(self, text, len(text)))
        for text, label in examples:
            text, label = text.encode(), label.encode()
            status = _library.cbl_options_add_example(self, text, len(text), label, len(label))
            self._check(status)

    def _set(self, name, value):
        if name not in _native.OPTIONS:
            raise TypeError(f"no option {name!r}; there are {', '.join(_native.OPTIONS)} and stop")
        key, kind = _native.OPTIONS[name]
        values = _native.VALUES.get(name, {})
        if isinstance(value, str) and values:
            if value not in values:
                raise ValueError(f"{name}: {value!r} is not one of {', '.join(values)}")
            value = values[value]
        if kind == "int":
            # The seed may use all 64 bits.
            status = _library.cbl_options_set_int(self, key, ctypes.c_int64(int(value)).value)
            if name != "seed" and not -(2**63) <= int(value) < 2**63:
                raise OverflowError(f"{name}: {value}")
        elif kind == "float":
            status = _library.cbl_options_set_float(self, key, float(value))
        else:
            text = value.encode()
            status = _library.cbl_options_set_string(self, key, text, len(text))
        self._check(status)

    def _check(self, status):
        if status != _native.OK:
            raise Error(status, _library.cbl_options_error(self._pointer).decode())


def _checked(status, message):
    if status != _native.OK:
        raise Error(status, message.value.decode(errors="replace"))


def _message():
    return ctypes.create_string_buffer(_MESSAGE_SIZE)


def _fields(structure):
    values = {name: getattr(structure, name) for name, _ in structure._fields_ if name != "reserved"}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}


def _step(step, top):
    text = ctypes.string_at(step.text, step.length).decode()
    token, log_probability, found = c_uint32(max(step.token, 0)), c_double(), c_size_t()
    if not step.logits:
        return Step(None if step.token < 0 else step.token, text, None, [])
    _raise_for(_library.cbl_log_probabilities(
        step.logits, step.logits_count, byref(token), 1, byref(log_probability)
    ))
    tokens, logs = (c_uint32 * max(top, 1))(), (c_double * max(top, 1))()
    _raise_for(_library.cbl_top_tokens(
        step.logits, step.logits_count, tokens, logs, top, byref(found)
    ))
    pairs = list(zip(tokens[: found.value], logs[: found.value]))
    return Step(step.token, text, log_probability.value, pairs)


def _raise_for(status):
    if status != _native.OK:
        raise Error(status)


def _token_array(tokens):
    return (c_uint32 * len(tokens))(*tokens)


def _text_array(texts):
    texts = [text.encode() for text in texts]
    if any(0 in text for text in texts):
        raise ValueError("a text of a list has a zero character")
    return (c_char_p * len(texts))(*texts)


def _streamed(run, cancel):
    """Yields what `run` hands to its argument, which says whether to go on, on a thread of its own.

    Leaving the loop calls `cancel`.
    """
    pieces = queue.Queue()
    end, wanted = object(), threading.Event()
    wanted.set()

    def work():
        try:
            run(lambda piece: pieces.put(piece) or wanted.is_set())
            pieces.put(end)
        except BaseException as error:  # goes on in the caller's thread
            pieces.put(error)

    thread = threading.Thread(target=work, name="cerebellum-stream", daemon=True)
    thread.start()
    try:
        while True:
            piece = pieces.get()
            if piece is end:
                return
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        wanted.clear()
        if thread.is_alive():
            cancel()
        thread.join()


class Model(_Handle):
    """A model file that is open. `access` is "map" or "read"; `verify` checks every checksum."""

    _free = "cbl_model_free"

    def __init__(self, path, access="map", verify=False):
        self._pointer = None
        self._arguments = (path, access, verify)
        name = path if isinstance(path, bytes) else str(path).encode()
        pointer, message = c_void_p(), _message()
        with _Options(access=access, verify=verify) as options:
            status = _library.cbl_model_open(name, options, byref(pointer), message, _MESSAGE_SIZE)
        _checked(status, message)
        self._pointer = pointer

    def __reduce__(self):
        return (Model, self._arguments)

    @property
    def info(self):
        """Architecture, sizes and more, as a dictionary."""
        info = _native.ModelInfo()
        status = _library.cbl_model_get_info(self, byref(info), ctypes.sizeof(info))
        if status != _native.OK:
            raise Error(status)
        return _fields(info)

    def plan(self, **options):
        """Bytes that a session with these options will take, as a dictionary."""
        plan, message = _native.MemoryPlan(), _message()
        with _Options(**options) as made:
            size = ctypes.sizeof(plan)
            status = _library.cbl_model_plan(self, made, byref(plan), size, message, _MESSAGE_SIZE)
        _checked(status, message)
        return _fields(plan)

    def verify(self):
        """Reads the whole model and raises Error if anything is damaged."""
        message = _message()
        _checked(_library.cbl_model_verify(self, message, _MESSAGE_SIZE), message)

    def tokenize(self, text, parse_special=False):
        """The token ids of a text."""
        data, message, count = text.encode(), _message(), c_size_t()
        tokens = (c_uint32 * len(data))()
        with _Options(parse_special=parse_special) as options:
            status = _library.cbl_model_tokenize(
                self, options, data, len(data), tokens, len(data), byref(count), message, _MESSAGE_SIZE
            )
        _checked(status, message)
        return tokens[: count.value]

    def detokenize(self, tokens):
        """The bytes that tokens stand for: UTF-8, if they are whole characters."""
        array, message, length = _token_array(tokens), _message(), c_size_t()
        arguments = (byref(length), message, _MESSAGE_SIZE)
        status = _library.cbl_model_detokenize(self, array, len(array), None, 0, *arguments)
        buffer = ctypes.create_string_buffer(length.value)
        if status == _native.BUFFER_TOO_SMALL:
            size = length.value
            status = _library.cbl_model_detokenize(self, array, len(array), buffer, size, *arguments)
        _checked(status, message)
        return buffer.raw[: length.value]

    def session(self, **options):
        """A session; the options are context, cache, threads, chunk, isa, all_logits, draft."""
        return Session(self, **options)

    def classifier(self, labels, **options):
        """Prepares to choose among labels; see Classifier."""
        return Classifier(self, labels, **options)

    def template(self, name):
        """The model file's own template of that name, or a built-in one; see Template."""
        return Template(self, name)

    def batch(self, sequences, **options):
        """So many sequences that are generated together; the options are those of session()."""
        return Batch(self, sequences, **options)

    def plan_batch(self, sequences, **options):
        """As plan(), for a batch."""
        plan, message = _native.MemoryPlan(), _message()
        with _Options(**options) as made:
            status = _library.cbl_model_plan_batch(
                self, made, sequences, byref(plan), ctypes.sizeof(plan), message, _MESSAGE_SIZE
            )
        _checked(status, message)
        return _fields(plan)


class Classifier(_Handle):
    """Labels, and how to tell which of them fits a text; pickles by its model's path.

    The options are template, such as "Utterance: {text}\\nIntent: {label}\\n"; examples, pairs of a text
    and its label; normalization, "sum" or "mean"; calibration, "none", "content_free" or
    "mutual_information". May be shared by threads, each with a session of its own of the same Model.
    """

    _free = "cbl_classifier_free"

    def __init__(self, model, labels, **options):
        self._pointer = None
        self.labels = list(labels)
        self._arguments = (model, options)
        pointer, message, array = c_void_p(), _message(), _text_array(self.labels)
        with _Options(**options) as made:
            status = _library.cbl_classifier_new(
                model, made, array, len(array), byref(pointer), message, _MESSAGE_SIZE
            )
        _checked(status, message)
        self._pointer = pointer

    def __reduce__(self):
        model, options = self._arguments
        return (_make_classifier, (model, self.labels, options))

    @property
    def model(self):
        """The model, whose sessions it works with."""
        return self._arguments[0]


def _make_classifier(model, labels, options):
    return Classifier(model, labels, **options)


class Template(_Handle):
    """How a task is put to a model: Template(model, "translate") is the model file's own or a built-in
    one, Template.from_text() makes one from a text with {text} in it (docs/templates.md). Pickles."""

    _free = "cbl_template_free"

    def __init__(self, model, name):
        self._make(name, (Template, (model, name)), _library.cbl_template_named, model)

    @classmethod
    def from_text(cls, text):
        """A template from its own text."""
        template = cls.__new__(cls)
        template._make(text, (Template.from_text, (text,)), _library.cbl_template_new)
        return template

    def _make(self, text, recipe, function, *first):
        self._pointer, self._recipe = None, recipe
        pointer, message, data = c_void_p(), _message(), text.encode()
        status = function(*first, data, len(data), byref(pointer), message, _MESSAGE_SIZE)
        _checked(status, message)
        self._pointer = pointer

    def __reduce__(self):
        return self._recipe


class Session(_Handle):
    """A sequence of tokens and what it takes to continue it."""

    _free = "cbl_session_free"

    def __init__(self, model, **options):
        self._pointer = None
        pointer, message = c_void_p(), _message()
        with _Options(**options) as made:
            status = _library.cbl_session_new(model, made, byref(pointer), message, _MESSAGE_SIZE)
        _checked(status, message)
        self._pointer = pointer

    def __reduce__(self):
        raise TypeError("a session cannot be pickled: pickle its model, and save() its state")

    def _check(self, status):
        if status != _native.OK:
            raise Error(status, _library.cbl_session_error(self).decode(errors="replace"))

    def generate(self, prompt, **options):
        """The text that follows a prompt, a string or token ids; options as for stream()."""
        pieces = []
        self._generate(prompt, options, lambda text: pieces.append(text) or True)
        return "".join(pieces)

    def stream(self, prompt, **options):
        """As generate(), but yields pieces of text as they come.

        The options are max_tokens, temperature, top_k, top_p, min_p, repetition_penalty,
        repetition_window, seed, stop (a string or several), logit_bias (a dictionary of tokens),
        ignore_end_of_text and parse_special; with has_constraints() also choices, regex and json_schema
        (a dictionary or JSON). The library works on a thread of its own; leaving the loop stops it.
        """
        try:
            yield from _streamed(lambda put: self._generate(prompt, options, put), self.cancel)
        finally:
            self.clear_cancel()

    def steps(self, prompt, top=0, **options):
        """As stream(), from token ids, but yields a Step for each token, with so many alternatives."""
        try:
            yield from _streamed(lambda put: self._steps(prompt, top, options, put), self.cancel)
        finally:
            self.clear_cancel()

    def _steps(self, prompt, top, options, on_step):
        raised = []

        def callback(_, step):
            try:
                return bool(on_step(_step(step.contents, top)))
            except BaseException as error:  # must not go through C
                raised.append(error)
                return False

        callback, tokens = _native.StepCallback(callback), _token_array(prompt)
        with _Options(**options) as made:
            status = _library.cbl_generate_steps(
                self, made, tokens, len(tokens), callback, None, None
            )
        if raised:
            raise raised[0]
        self._check(status)

    def apply(self, template, text, seed=0):
        """What a template makes of a text. What the session holds is replaced."""
        pieces = []
        self._apply(template, text, seed, lambda piece: pieces.append(piece) or True)
        return "".join(pieces)

    def stream_apply(self, template, text, seed=0):
        """As apply(), but yields pieces as they come."""
        try:
            run = lambda put: self._apply(template, text, seed, put)
            yield from _streamed(run, self.cancel)
        finally:
            self.clear_cancel()

    def _apply(self, template, text, seed, on_text):
        raised, data = [], text.encode()

        def callback(_, piece, length):
            try:
                return bool(on_text(ctypes.string_at(piece, length).decode()))
            except BaseException as error:  # must not go through C
                raised.append(error)
                return False

        callback = _native.TextCallback(callback)
        with _Options(seed=seed) as made:
            status = _library.cbl_apply_template(
                self, template, made, data, len(data), callback, None, None, 0
            )
        if raised:
            raise raised[0]
        self._check(status)

    def _generate(self, prompt, options, on_text):
        """Calls `on_text` with pieces; what it raises goes on from here. Returns the stop reason."""
        raised = []

        def callback(_, text, length):
            try:
                return bool(on_text(ctypes.string_at(text, length).decode()))
            except BaseException as error:  # must not go through C
                raised.append(error)
                return False

        reason, callback = c_int32(), _native.TextCallback(callback)
        with _Options(**options) as made:
            if isinstance(prompt, str):
                text = prompt.encode()
                status = _library.cbl_generate(
                    self, made, text, len(text), callback, None, byref(reason)
                )
            else:
                tokens = _token_array(prompt)
                status = _library.cbl_generate_from_tokens(
                    self, made, tokens, len(tokens), callback, None, byref(reason)
                )
        if raised:
            raise raised[0]
        self._check(status)
        return _library.cbl_stop_reason_name(reason).decode()

    def score(self, prompt, continuations, **options):
        """Natural logarithms of the probabilities of continuations of a prompt, as a list of pairs with
        their numbers of tokens.

        The prompt comes behind what the session holds, and stays. A session made with all_logits=True is
        fastest. The option is parse_special. Prompt and continuations may be token ids instead of strings.
        """
        if not isinstance(prompt, str):
            return self._score_tokens(_token_array(prompt), list(continuations))
        text, array = prompt.encode(), _text_array(continuations)
        scores, lengths = (c_double * len(array))(), (c_size_t * len(array))()
        with _Options(**options) as made:
            status = _library.cbl_score(
                self, made, text, len(text), array, len(array), scores, lengths
            )
        self._check(status)
        return list(zip(scores, lengths))

    def _score_tokens(self, prompt, continuations):
        lengths = (c_size_t * len(continuations))(*map(len, continuations))
        tokens = _token_array([token for tokens in continuations for token in tokens])
        scores = (c_double * len(lengths))()
        status = _library.cbl_score_tokens(
            self, prompt, len(prompt), tokens, lengths, len(lengths), scores, None
        )
        self._check(status)
        return list(zip(scores, lengths))

    def embed(self, text, **options):
        """The embedding of a text, a string or token ids: a ctypes array of floats, of length 1 as a
        vector; numpy.frombuffer takes it. It replaces what the session holds. The options are pooling,
        "mean" or "last", and parse_special."""
        if isinstance(text, str):
            data, function = text.encode(), _library.cbl_embed
        else:
            data, function = _token_array(text), _library.cbl_embed_tokens
        width = c_size_t()
        with _Options(**options) as made:
            status = function(self, made, data, len(data), None, 0, byref(width))
            embedding = (c_float * width.value)()
            if status == _native.BUFFER_TOO_SMALL:
                status = function(self, made, data, len(data), embedding, width, byref(width))
        self._check(status)
        return embedding

    def classify(self, classifier, text):
        """The label that fits a text best, and the probabilities of all labels as a dictionary.

        What the session holds is replaced. A session made with all_logits=True is fastest.
        """
        data, best = text.encode(), c_size_t()
        probabilities = (c_double * len(classifier.labels))()
        status = _library.cbl_classify(
            self, classifier, data, len(data), byref(best), probabilities, len(probabilities)
        )
        self._check(status)
        return classifier.labels[best.value], dict(zip(classifier.labels, probabilities))

    def evaluate(self, tokens):
        """Appends tokens."""
        array = _token_array(tokens)
        self._check(_library.cbl_session_evaluate(self, array, len(array)))

    @property
    def logits(self):
        """A copy of the last token's logits, as a ctypes array of floats: numpy.frombuffer takes it."""
        pointer, count = ctypes.POINTER(c_float)(), c_size_t()
        self._check(_library.cbl_session_logits(self, byref(pointer), byref(count)))
        copy = (c_float * count.value)()
        ctypes.memmove(copy, pointer, ctypes.sizeof(copy))
        return copy

    def sample(self, **options):
        """Chooses the next token; does not evaluate it."""
        token = c_uint32()
        with _Options(**options) as made:
            self._check(_library.cbl_session_sample(self, made, byref(token)))
        return token.value

    @property
    def tokens(self):
        """The tokens in the session."""
        pointer, count = ctypes.POINTER(c_uint32)(), c_size_t()
        self._check(_library.cbl_session_tokens(self, byref(pointer), byref(count)))
        return pointer[: count.value]

    @property
    def position(self):
        """The number of tokens in the session."""
        return _library.cbl_session_position(self)

    def reset(self):
        """Forgets every token."""
        self._check(_library.cbl_session_reset(self))

    def rewind(self, position):
        """Forgets the tokens from `position` on."""
        self._check(_library.cbl_session_rewind(self, position))

    def cancel(self):
        """Stops what is running on the session, or else the next call; from any thread."""
        _library.cbl_session_cancel(self)

    def clear_cancel(self):
        """Takes back a cancel() that nothing has followed."""
        _library.cbl_session_clear_cancel(self)

    def fork(self):
        """Another session with the same tokens, made as this one was."""
        pointer = c_void_p()
        self._check(_library.cbl_session_fork(self, None, byref(pointer)))
        fork = Session.__new__(Session)
        fork._pointer = pointer
        return fork

    def save(self):
        """The session's state as bytes."""
        size = c_size_t()
        status = _library.cbl_session_save(self, None, 0, byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        if status == _native.BUFFER_TOO_SMALL:
            status = _library.cbl_session_save(self, buffer, size.value, byref(size))
        self._check(status)
        return buffer.raw

    def restore(self, saved):
        """Takes over what save() returned, from a session of the same model and type of cache."""
        self._check(_library.cbl_session_restore(self, saved, len(saved)))

    @property
    def stats(self):
        """What the session has done, as a dictionary."""
        stats = _native.SessionStats()
        self._check(_library.cbl_session_get_stats(self, byref(stats), ctypes.sizeof(stats)))
        values = _fields(stats)
        values["stop_reason"] = _library.cbl_stop_reason_name(stats.stop_reason).decode()
        return values


class Batch(_Handle):
    """Several sequences that are generated together: a pass over the weights serves all of them."""

    _free = "cbl_batch_free"

    def __init__(self, model, sequences, **options):
        self._pointer = None
        pointer, message = c_void_p(), _message()
        with _Options(**options) as made:
            status = _library.cbl_batch_new(
                model, made, sequences, byref(pointer), message, _MESSAGE_SIZE
            )
        _checked(status, message)
        self._pointer = pointer

    def __reduce__(self):
        raise TypeError("a batch cannot be pickled: pickle its model")

    def generate(self, prompts, **options):
        """The texts that follow so many prompts, any number, as a list; options as for
        Session.stream(). For a prompt that cannot be continued, the list has an Error instead."""
        prompts = list(prompts)
        texts = [[] for _ in prompts]
        errors = self._generate(prompts, options, lambda it: texts[it[0]].append(it[1]) or True)
        return [error or "".join(pieces) for error, pieces in zip(errors, texts)]

    def stream(self, prompts, **options):
        """As generate(), but yields pairs of a prompt's index and a piece of text, or an Error at the
        end, as they come."""
        prompts = list(prompts)

        def run(put):
            for index, error in enumerate(self._generate(prompts, options, put)):
                if error:
                    put((index, error))

        return _streamed(run, self.cancel)

    def cancel(self):
        """Stops what is running on the batch, or else the next call; from any thread."""
        _library.cbl_batch_cancel(self)

    def _generate(self, prompts, options, on_text):
        """Calls `on_text` with an index and a piece. Returns each prompt's Error, or None."""
        raised = []

        def callback(_, index, text, length):
            try:
                wanted = bool(on_text((index, ctypes.string_at(text, length).decode())))
            except BaseException as error:  # must not go through C
                raised.append(error)
                wanted = False
            if not wanted:
                self.cancel()
            return wanted

        array, callback = _text_array(prompts), _native.BatchTextCallback(callback)
        statuses = (c_int32 * len(array))(*[-1] * len(array))
        with _Options(**options) as made:
            status = _library.cbl_batch_generate(
                self, made, array, len(array), callback, None, statuses, None
            )
        if raised:
            raise raised[0]
        if status != _native.OK and -1 in statuses:  # what concerns all of them
            raise Error(status, _library.cbl_batch_error(self).decode(errors="replace"))
        return [None if status == _native.OK else Error(status) for status in statuses]
