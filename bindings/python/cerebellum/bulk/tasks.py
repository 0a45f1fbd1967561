"""Tasks: what to compute for each row of a batch."""

from __future__ import annotations

import datetime
import os
from typing import (
    TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, Union,
)

from .. import classifier as _classifier
from ..arguments import Path, kind_of, size
from ..batch import Batch
from ..errors import Error, Incomplete, OptionError, Status
from ..model import Model
from ..options import (
    BatchOptions, ChatOptions, ClassifierOptions, GenerationOptions, NativeOptions, SessionOptions, refuse_others,
)
from ..session import Session
from .columns import Columns, Rows, arrow_schema, extended, plain, spark_schema, values
from .files import model_digest, value_digest
from .process import lent, model_of

if TYPE_CHECKING:
    from typing_extensions import Literal, Unpack

# What a failure of one row is; every other failure ends the job.
_ROW_FAILURES = {
    Status.BAD_ARGUMENT: "empty",  # a text without tokens: nothing else is wrong with a single row's arguments
    Status.INVALID_UTF8: "invalid_text",
    Status.BAD_TEXT: "bad_text",
    Status.BAD_TOKEN: "bad_token",
    Status.CONTEXT_FULL: "context_full",
    Status.NON_FINITE: "non_finite",
}

# Options that change how long a job takes, and no result.
_OF_SPEED = ("threads", "chunk", "isa", "draft", "all_logits", "sequences")


class LabelOptions(SessionOptions, ClassifierOptions, total=False):
    """Options of bulk.Classifier."""


class GeneratorOptions(BatchOptions, ChatOptions, total=False):
    """Options of bulk.Generator; `date` and `thinking` only with chat=True."""


class Task:
    """A model, options, and the names of the columns that hold the input: the base of the classes here.

    A task is called with a batch and returns the batch with more columns, in the same form and order: a
    pyarrow Table or RecordBatch, a pandas DataFrame, or a dictionary of columns. For a list of texts it returns
    a list of dictionaries. The last column is `error`: None, or why this row has no result ("missing", "empty",
    "context_full", "bad_text", "invalid_text", "incomplete", "bad_token", "non_finite").

    A task pickles as the model's path, the model's digest, and its options. The process that receives it opens
    the file once, and makes a session for each of its threads that works on a batch; the session serves the
    next batches too. Any number of threads may call a task.

    Making a task reads the header of the model file. Raises Error with the status MODEL_CHANGED, when it is
    called, if another file has the path there.
    """

    columns: Columns
    """Names and types of the columns that the task adds."""
    path: str
    """The absolute path of the model file."""
    digest: str
    """The digest of the model file: of its header and of the checksums of all its tensors."""

    def __init__(self, model: Union[Path, Model], settings: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """`settings` are the arguments of the class, `options` those of the library."""
        self.path = os.path.abspath(os.fsdecode(_path_of(model)))
        self.digest = model_digest(self.path)
        self._settings = {name: plain(value) for name, value in settings.items()}
        self._options = {name: plain(value) for name, value in options.items() if value is not None}
        self._prepare()

    def _prepare(self) -> None:
        NativeOptions(self._options).close()  # finds mistakes where the task is made
        self._key = value_digest([type(self).__name__, self.path, self.digest, self._settings, self._options])

    def __reduce__(self) -> Tuple[Any, ...]:
        return (_made_again, (type(self), self.path, self.digest, self._settings, self._options))

    def __repr__(self) -> str:
        given = {**self._settings, **self._options}
        return f"{type(self).__name__}({self.path!r}, {', '.join(f'{name}={given[name]!r}' for name in given)})"

    @property
    def identity(self) -> Dict[str, Any]:
        """All that a row's result depends on but the row: the class, the digest of the model, the options but
        those of speed, and the version of the library."""
        from .. import __version__

        given = {**self._settings, **self._options}
        options = {name: value for name, value in given.items() if name not in _OF_SPEED}
        return {"task": type(self).__name__, "model": self.digest, "options": options, "version": __version__}

    def __call__(self, rows: Rows) -> Rows:
        """The batch with the columns of the results."""
        inputs = [values(rows, self._settings[name], len(self._inputs()) > 1) for name in self._inputs()]
        results: List[Optional[Tuple[Any, ...]]] = [None] * len(inputs[0])
        todo = []
        for index, row in enumerate(zip(*inputs)):
            why = _unusable(row, index, self._is_text())
            if why:
                results[index] = self._failed(why)
            else:
                todo.append(index)
        if todo:
            self._compute([[column[index] for column in inputs] for index in todo], todo, results)
        return extended(rows, self.columns, results)  # type: ignore[arg-type]

    def batches(self, batches: Iterable[Rows]) -> Iterator[Rows]:
        """The task as a function of an iterator of batches: for mapInArrow() and mapInPandas() of Spark."""
        return map(self, batches)

    def open(self) -> None:
        """Opens the model in this process and makes a session now, before the first batch comes."""
        with self._lent():
            pass

    def arrow_schema(self, schema: Any) -> Any:
        """The pyarrow Schema of the results of batches with this schema."""
        return arrow_schema(schema, self.columns)

    def spark_schema(self, schema: Any) -> Any:
        """The Spark StructType of the results of a data frame with this schema."""
        return spark_schema(schema, self.columns)

    def meta(self, frame: Any) -> Any:
        """An empty pandas DataFrame with the columns of the results: `meta` of Dask's map_partitions()."""
        return self(getattr(frame, "_meta", frame).iloc[:0])

    # ---- For the classes below

    def _inputs(self) -> Tuple[str, ...]:
        """The settings that name a column."""
        return ("text",)

    def _is_text(self) -> bool:
        return True

    def _model(self) -> Model:
        return model_of(self.path, self.digest)

    def _lent(self) -> Any:
        """A session for one thread."""
        return lent(self._key, self._make)

    def _make(self) -> Any:
        return self._model().session(**_of(self._options, SessionOptions))

    def _failed(self, why: str) -> Tuple[Any, ...]:
        return (None,) * (len(self.columns) - 1) + (why,)

    def _compute(self, rows: List[List[Any]], indices: List[int], results: List[Any]) -> None:
        """Writes the result of each row at its index: the longest first, so that one session after the other
        runs out of work at the end only."""
        with self._lent() as session:
            for place in longest_first([row[-1] for row in rows]):
                session.reset()
                row = rows[place]
                results[indices[place]] = self._guarded(lambda: self._row(session, *row))

    def _row(self, session: Session, *inputs: Any) -> Tuple[Any, ...]:
        raise NotImplementedError

    def _guarded(self, compute: Callable[[], Tuple[Any, ...]]) -> Tuple[Any, ...]:
        """The result of a row, or its failure."""
        try:
            return (*compute(), None)
        except Error as error:
            return self._failed(failure_of(error))


class Scorer(Task):
    """How probable texts are: log_probability (natural logarithm), tokens (their number), error.

    `text` names the column of the texts. `prompt` names a column of what comes before each text; by default
    nothing does, and the model starts from its begin or end of text token. Rows with equal prompts are
    computed together. The options are those of SessionOptions.
    """

    columns = (("log_probability", "double"), ("tokens", "int64"), ("error", "string"))

    def __init__(
        self, model: Union[Path, Model], text: str = "text", prompt: Optional[str] = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        refuse_others(options, SessionOptions, "bulk.Scorer()")
        super().__init__(model, {"text": text, "prompt": prompt}, {"all_logits": True, **options})

    def _inputs(self) -> Tuple[str, ...]:
        return ("text",) if self._settings["prompt"] is None else ("prompt", "text")

    def _compute(self, rows: List[List[Any]], indices: List[int], results: List[Any]) -> None:
        groups: Dict[str, List[int]] = {}
        for place, row in enumerate(rows):
            groups.setdefault(row[0] if len(row) > 1 else "", []).append(place)
        with self._lent() as session:
            for prompt, places in groups.items():
                texts = [rows[place][-1] for place in places]
                for place, result in zip(places, self._scores(session, prompt, texts)):
                    results[indices[place]] = result

    def _scores(self, session: Session, prompt: str, texts: List[str]) -> List[Tuple[Any, ...]]:
        """The results of texts after one prompt. If one fails, the library does not say which: halves do."""
        session.reset()
        try:
            return [(*score, None) for score in session.score(prompt, texts)]
        except Error as error:
            why = failure_of(error)
        if len(texts) == 1:
            return [self._failed(why)]
        half = len(texts) // 2
        return self._scores(session, prompt, texts[:half]) + self._scores(session, prompt, texts[half:])


class Classifier(Task):
    """Which of several labels fits a text best: label, probabilities (of all labels, in their order), error.

    `text` names the column of the texts. The options are those of Model.classifier() and SessionOptions.
    """

    columns = (("label", "string"), ("probabilities", "doubles"), ("error", "string"))

    def __init__(
        self, model: Union[Path, Model], labels: Iterable[str], text: str = "text",
        **options: Unpack[LabelOptions],
    ) -> None:
        refuse_others(options, LabelOptions, "bulk.Classifier()")
        labels = labels if isinstance(labels, (str, bytes)) else list(labels)
        super().__init__(model, {"labels": labels, "text": text}, {"all_logits": True, **options})
        self._labelled().close()  # finds mistakes in the labels

    def _labelled(self) -> _classifier.Classifier:
        return self._model().classifier(self._settings["labels"], **_of(self._options, ClassifierOptions))

    def _make(self) -> Any:
        session = super()._make()
        session.labelled = self._labelled()  # lives as long as the session
        return session

    def _row(self, session: Any, *inputs: Any) -> Tuple[Any, ...]:
        label, probabilities = session.classify(session.labelled, inputs[0])
        return label, list(probabilities.values())


class Embedder(Task):
    """Embeddings of texts: embedding (a list of floats, of length 1 as a vector), error.

    `text` names the column of the texts, `pooling` is that of Session.embed(). The options are those of
    SessionOptions.
    """

    columns = (("embedding", "floats"), ("error", "string"))

    def __init__(
        self, model: Union[Path, Model], text: str = "text", pooling: Literal["mean", "last"] = "mean",
        **options: Unpack[SessionOptions],
    ) -> None:
        refuse_others(options, SessionOptions, "bulk.Embedder()")
        NativeOptions({"pooling": pooling}).close()
        super().__init__(model, {"text": text, "pooling": pooling}, options)

    def _row(self, session: Session, *inputs: Any) -> Tuple[Any, ...]:
        return (list(session.embed(inputs[0], self._settings["pooling"])),)


class Generator(Task):
    """Texts that follow prompts: generated, stop_reason, error.

    `text` names the column of the prompts. `sequences` texts are generated together, so that one pass reads the
    weights once for all of them. With chat=True a row is a message of the user, or a list of messages as
    Session.chat() takes it; answers are generated one by one. The options are those of Model.batch(),
    Session.generate() and, with chat=True, Session.chat().

    Every row draws with the same seed: equal prompts have equal texts. For several texts of a prompt, make
    several tasks with different seeds.
    """

    columns = (("generated", "string"), ("stop_reason", "string"), ("error", "string"))

    def __init__(
        self, model: Union[Path, Model], text: str = "text", sequences: int = 8, chat: bool = False,
        **options: Unpack[GeneratorOptions],
    ) -> None:
        refuse_others(options, GeneratorOptions, "bulk.Generator()")
        for name in ("date", "thinking"):
            if options.get(name) is not None and not chat:
                raise TypeError(f"bulk.Generator() takes the option {name!r} with chat=True only")
        if not 1 <= size(sequences, "sequences") <= 1024:
            raise OptionError(Status.BAD_OPTION, f"sequences: {sequences} is not from 1 to 1024")
        given: Dict[str, Any] = dict(options)
        if chat and given.get("date") is None:
            # All workers write the same day, also after midnight.
            given["date"] = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        super().__init__(model, {"text": text, "sequences": sequences, "chat": bool(chat)}, given)

    def _is_text(self) -> bool:
        return not self._settings["chat"]

    def _make(self) -> Any:
        if self._settings["chat"]:
            return super()._make()
        return self._model().batch(self._settings["sequences"], **_of(self._options, BatchOptions))

    def _compute(self, rows: List[List[Any]], indices: List[int], results: List[Any]) -> None:
        if self._settings["chat"]:
            super()._compute(rows, indices, results)
            return
        batch: Batch
        with self._lent() as batch:
            order = longest_first([row[0] for row in rows])
            prompts = [rows[place][0] for place in order]
            for place, text in zip(order, batch.generate(prompts, **_of(self._options, GenerationOptions))):
                if isinstance(text, Error):
                    results[indices[place]] = self._failed(failure_of(text))
                else:
                    results[indices[place]] = (str(text), text.stop_reason, None)

    def _row(self, session: Session, *inputs: Any) -> Tuple[Any, ...]:
        messages = [{"role": "user", "content": inputs[0]}] if isinstance(inputs[0], str) else inputs[0]
        text = session.chat(messages, **_of(self._options, ChatOptions))
        return str(text), text.stop_reason


class Worker:
    """A task as a class, which actor pools make an instance of: map_batches() of Ray Data, with
    fn_constructor_args=(task,). It opens the model when it is made."""

    def __init__(self, task: Task) -> None:
        self.task = task
        task.open()

    def __call__(self, rows: Rows) -> Rows:
        return self.task(rows)


def longest_first(texts: Sequence[Any]) -> List[int]:
    """The indices of texts, those of long ones first: texts that are generated together then end together."""
    return sorted(range(len(texts)), key=lambda index: -len(texts[index]))


def failure_of(error: Error) -> str:
    """The word for the failure of a row. The library's own message is not in it, because it depends on the other
    rows of the batch. Raises the error if it does not concern the row alone."""
    if isinstance(error, Incomplete):
        return "incomplete"
    if error.status not in _ROW_FAILURES:
        raise error
    return _ROW_FAILURES[Status(error.status)]


def _unusable(row: Tuple[Any, ...], index: int, is_text: bool) -> Optional[str]:
    """Why the values of a row cannot be given to the library, if so."""
    for value in row:
        if value is None:
            return "missing"
        if not isinstance(value, str):
            if is_text:
                raise TypeError(f"rows[{index}]: a string is needed, not {kind_of(value)} {value!r}")
        elif "\0" in value:
            return "bad_text"
        else:
            try:
                value.encode()
            except UnicodeEncodeError:  # half of a surrogate pair
                return "invalid_text"
    return None


def _of(options: Mapping[str, Any], kind: Any) -> Any:
    """Those of the options that are of this kind."""
    return {name: value for name, value in options.items() if name in kind.__annotations__}


def _path_of(model: Union[Path, Model]) -> Path:
    if not isinstance(model, Model):
        return model
    if model._recipe is None:
        raise TypeError("model: a model of from_fd() has no path that workers could open: pass a path")
    path: Path = model._recipe[0]
    return path


def _made_again(kind: Type[Task], path: str, digest: str, settings: Dict[str, Any], options: Dict[str, Any]) -> Task:
    task = kind.__new__(kind)
    task.path, task.digest, task._settings, task._options = path, digest, settings, options
    task._prepare()
    return task
