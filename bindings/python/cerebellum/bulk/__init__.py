"""Runs one model over whole corpora, on several processes of any engine.

    from cerebellum import bulk

    scorer = bulk.Scorer("model.cbl", context=512)
    print(scorer({"text": ["Once upon a time", "time a upon Once"]}))

    if __name__ == "__main__":
        bulk.run(scorer, ["part-0.jsonl", "part-1.jsonl"], "scores", workers=2)

A task (Scorer, Classifier, Embedder, Generator) is called with a batch of rows and returns the batch with more
columns. It pickles as the model's path, the model's digest and its options, so Ray, Spark, Dask and
multiprocessing can send it. A row's results are the same bytes in every batch, on every engine and processor.
The guide is docs/bulk.md.
"""

from __future__ import annotations

from .columns import Rows
from .jobs import run, run_part
from .tasks import Classifier, Embedder, Generator, GeneratorOptions, LabelOptions, Scorer, Task, Worker

__all__ = [
    "Classifier", "Embedder", "Generator", "GeneratorOptions", "LabelOptions", "Rows", "Scorer", "Task", "Worker",
    "run", "run_part",
]
