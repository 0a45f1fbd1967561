"""Jobs: a task over many files, which go on where they were stopped."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import re
from concurrent.futures.process import BrokenProcessPool
from typing import Any, BinaryIO, Callable, Dict, Iterable, List, Optional, Tuple

from ..arguments import Path, size
from .columns import Rows, as_rows
from .files import TEMPORARY, file_digest, value_digest, write_whole
from .tasks import Task

Progress = Callable[[int, int], object]

_JOB = "job.json"
_DIGEST = "[0-9a-f]{16}"
# After so many deaths of workers without a finished part in between, a part is the cause.
_MOST_DEATHS = 3


def run(
    task: Task, parts: Iterable[Path], directory: Path, workers: int = 1, progress: Optional[Progress] = None
) -> List[str]:
    """Runs a task over files and returns the paths of its results, in the order of the parts.

    A part is a file of rows: .jsonl (a JSON object in each line), or .parquet or .arrow, which need pyarrow. Its
    result, in the same format, is in `directory`; its name has the digest of the task, of the library's
    version and of the part. So a job that is called again does not repeat finished parts. A result is there
    whole or not at all, whenever a process is killed.

    `workers` processes share the parts; with 1 it is this process. If a worker is killed, another one takes its
    part. A part has to fit into a worker's memory. `progress` is called with the number of finished parts and of
    all parts.

    The directory belongs to one job: raises ValueError if it has the results of another task. Raises
    RuntimeError, with the part's name, if a part fails; the finished ones stay.
    """
    paths = [os.path.abspath(os.fsdecode(part)) for part in parts]
    names = [os.path.basename(path) for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"parts: two have the name {name!r}, and so would their results: rename one")
    if not 1 <= size(workers, "workers") <= 1024:
        raise ValueError(f"workers: {workers} is not from 1 to 1024")
    for path in paths:
        _format_of(path)
    where = _claimed(task, directory)
    results: Dict[int, str] = {}
    tell = progress or (lambda done, total: None)
    for index, path in enumerate(paths):
        found = _finished(task, path, where)
        if found:
            results[index] = found
    tell(len(results), len(paths))
    todo = [index for index in range(len(paths)) if index not in results]
    # The largest first, so that no worker begins with one when the others have none left.
    todo.sort(key=lambda index: -os.path.getsize(paths[index]))
    for index, result in _outcomes(task, paths, todo, where, workers):
        results[index] = result
        tell(len(results), len(paths))
    for name in os.listdir(where):
        if name.startswith(TEMPORARY):  # of workers that were killed
            os.remove(os.path.join(where, name))
    return [results[index] for index in range(len(paths))]


def run_part(task: Task, part: Path, directory: Path) -> str:
    """Runs a task over one part, unless that is finished, and returns the path of the result: what run() does
    for each part, for the workers of an engine. Workers may do the same part at the same time."""
    path = os.path.abspath(os.fsdecode(part))
    read, write = _format_of(path)
    where = _claimed(task, directory)
    result = _result_path(task, path, where)
    if not os.path.exists(result):
        rows = task(read(path))
        write_whole(result, lambda file: write(rows, file))
    # Results of what the part was before it changed.
    stem, suffix = os.path.splitext(os.path.basename(path))
    old = re.compile(rf"{re.escape(stem)}\.{_DIGEST}{re.escape(suffix)}")
    for name in os.listdir(where):
        if old.fullmatch(name) and name != os.path.basename(result):
            os.remove(os.path.join(where, name))
    return result


def _outcomes(
    task: Task, paths: List[str], todo: List[int], where: str, workers: int
) -> Iterable[Tuple[int, str]]:
    """Runs parts and yields their results as they are finished."""
    if workers == 1:
        for index in todo:
            yield index, _one(task, paths[index], where)
        return
    # A process that is started anew does not inherit the locks of this one's threads.
    context = multiprocessing.get_context("spawn")
    deaths = 0
    while todo:
        pool = concurrent.futures.ProcessPoolExecutor(min(workers, len(todo)), context)
        try:
            running = {pool.submit(_one, task, paths[index], where): index for index in todo}
            for future in concurrent.futures.as_completed(running):
                result = future.result()
                todo.remove(running[future])
                deaths = 0
                yield running[future], result
        except BrokenProcessPool:
            deaths += 1
            if deaths == _MOST_DEATHS:
                names = ", ".join(os.path.basename(paths[index]) for index in todo[:workers])
                raise RuntimeError(
                    f"workers were killed {deaths} times, at parts such as {names}: if memory ran out, use fewer "
                    "workers, a smaller context or smaller parts, and call run() again; finished parts are kept"
                ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one(task: Task, path: str, where: str) -> str:
    try:
        return run_part(task, path, where)
    except Exception as error:
        message = f"{os.path.basename(path)}: {type(error).__name__}: {error}"
        raise RuntimeError(f"part {message}; finished parts are kept: call run() again") from error


def _claimed(task: Task, directory: Path) -> str:
    """The directory, which is made and marked as this task's."""
    where = os.path.abspath(os.fsdecode(directory))
    os.makedirs(where, exist_ok=True)
    mark = os.path.join(where, _JOB)
    wanted = task.identity
    try:
        with open(mark, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        text = json.dumps(wanted, indent=2) + "\n"
        write_whole(mark, lambda file: file.write(text.encode()))
        return where
    # As JSON writes it: keys are strings.
    if found != json.loads(json.dumps(wanted)):
        differ = [name for name in wanted if found.get(name) != json.loads(json.dumps(wanted[name]))]
        raise ValueError(
            f"{where} has the results of another task, by {', '.join(differ)} ({_JOB}): use another directory"
        )
    return where


def _result_path(task: Task, path: str, where: str) -> str:
    stem, suffix = os.path.splitext(os.path.basename(path))
    digest = value_digest([task.identity, file_digest(path)])[:16]
    return os.path.join(where, f"{stem}.{digest}{suffix}")


def _finished(task: Task, path: str, where: str) -> Optional[str]:
    result = _result_path(task, path, where)
    return result if os.path.exists(result) else None


# ---- Formats

def _read_jsonl(path: str) -> Rows:
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number}: a JSON object is needed, such as {{\"text\": \"...\"}}")
                rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _write_jsonl(rows: Rows, file: BinaryIO) -> None:
    for row in as_rows(rows):
        file.write(json.dumps(row).encode() + b"\n")


def _read_parquet(path: str) -> Rows:
    from pyarrow import parquet  # type: ignore[import-untyped,import-not-found,unused-ignore]

    return parquet.read_table(path, partitioning=None)


def _write_parquet(rows: Rows, file: BinaryIO) -> None:
    from pyarrow import parquet

    parquet.write_table(rows, file)


def _read_arrow(path: str) -> Rows:
    import pyarrow  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with pyarrow.OSFile(path) as file:
        return pyarrow.ipc.open_file(file).read_all()


def _write_arrow(rows: Rows, file: BinaryIO) -> None:
    import pyarrow

    with pyarrow.ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows)


_FORMATS: Dict[str, Tuple[Callable[[str], Any], Callable[[Any, BinaryIO], None]]] = {
    ".jsonl": (_read_jsonl, _write_jsonl),
    ".parquet": (_read_parquet, _write_parquet),
    ".arrow": (_read_arrow, _write_arrow),
}


def _format_of(path: str) -> Tuple[Callable[[str], Any], Callable[[Any, BinaryIO], None]]:
    suffix = os.path.splitext(path)[1]
    if suffix not in _FORMATS:
        raise ValueError(f"part {path}: its name has to end in one of {', '.join(_FORMATS)}")
    return _FORMATS[suffix]
