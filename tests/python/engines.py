"""cerebellum.bulk on Ray Data, Spark and Dask, with local clusters of two workers, one of which is killed in the
middle: engines.py MODEL.cbl [ray] [spark] [dask]

`.ci/nightly bulk` runs it, because it needs these packages and pyarrow. Prints figures for docs/bulk.md."""

import os
import signal
import sys
import tempfile
import time

import pyarrow

from cerebellum import bulk

ROWS = 240
WORDS = "once upon a time there was king who had three little birds in the tall tree by sea wake me at six".split()


def corpus():
    """Rows of 0 to 60 words, and some without a text."""
    texts = [" ".join(WORDS[(i * i + j * 7) % len(WORDS)] for j in range(i % 61)) for i in range(ROWS)]
    texts[17], texts[101] = None, "a\0b"
    return pyarrow.table({"id": pyarrow.array(range(ROWS)), "text": texts})


def tasks(model):
    return [
        bulk.Scorer(model, context=64),
        bulk.Classifier(model, ["alarm", "story"], context=128),
        bulk.Embedder(model, context=64),
        bulk.Generator(model, context=96, max_tokens=8, temperature=0.8, seed=3),
    ]


def as_bytes(table):
    """The rows of a table in the order of their ids, as bytes: floats are compared bit by bit."""
    table = table.sort_by("id").combine_chunks()
    # Engines have large strings or pandas' notes in the schema; the values are what is compared.
    types = [pyarrow.field(field.name, plain(field.type)) for field in table.schema]
    sink = pyarrow.BufferOutputStream()
    table = table.cast(pyarrow.schema(types))
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(pyarrow.RecordBatch.from_pylist(table.to_pylist(), schema=table.schema))
    return sink.getvalue().to_pybytes()


def plain(kind):
    if pyarrow.types.is_large_string(kind):
        return pyarrow.string()
    return pyarrow.list_(plain(kind.value_type)) if pyarrow.types.is_nested(kind) else kind


class DiesOnce(bulk.Task):
    """A task whose process is killed at one row, the first time that any worker reaches it."""

    def __init__(self, task, mark):
        self.task, self.mark, self.columns = task, mark, task.columns

    def __reduce__(self):
        return (DiesOnce, (self.task, self.mark))

    def __repr__(self):
        return f"DiesOnce({self.task!r}, {self.mark!r})"

    def open(self):
        self.task.open()

    def __call__(self, rows):
        if 120 in list(rows["id"] if hasattr(rows, "iloc") else rows.column("id").to_pylist()):
            try:
                open(self.mark, "x").close()
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.task(rows)


def on_ray(all_tasks, table):
    import ray

    # Two for the workers, and one for what cuts the table into blocks.
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for task in all_tasks:
        data = ray.data.from_arrow(table).repartition(12).map_batches(
            bulk.Worker, fn_constructor_args=(task,), batch_format="pyarrow", batch_size=16,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        yield pyarrow.concat_tables(ray.get(data.to_arrow_refs()))
    ray.shutdown()


def on_spark(all_tasks, table):
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # not the first python3 of PATH
    # Four attempts: local clusters give up at the first failure otherwise.
    spark = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    for task in all_tasks:
        frame = spark.createDataFrame(table).repartition(7)
        yield frame.mapInArrow(task.batches, task.spark_schema(frame.schema)).toArrow()
    spark.stop()


def on_dask(all_tasks, table):
    import dask.dataframe
    import distributed

    # Processes of two threads each: threads share a task.
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:
        with distributed.Client(cluster):
            for task in all_tasks:
                frame = dask.dataframe.from_pandas(table.to_pandas(), npartitions=11)
                done = frame.map_partitions(task, meta=task.meta(frame)).compute()
                # pandas' lists do not say that their floats have 32 bits.
                yield pyarrow.Table.from_pandas(done, task.arrow_schema(table.schema), preserve_index=False)


ENGINES = {"ray": on_ray, "spark": on_spark, "dask": on_dask}


def main():
    model, names = sys.argv[1], sys.argv[2:] or list(ENGINES)
    table, all_tasks = corpus(), tasks(model)
    start = time.perf_counter()
    wanted = [as_bytes(task(table)) for task in all_tasks]
    print(f"one process: {time.perf_counter() - start:.1f} s")
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            mark = os.path.join(directory, name)
            dying = [DiesOnce(all_tasks[0], mark), *all_tasks]
            start = time.perf_counter()
            for index, (task, found) in enumerate(zip(dying, ENGINES[name](dying, table))):
                kind = type(all_tasks[max(index - 1, 0)]).__name__
                assert found.num_rows == ROWS, f"{name}, {kind}: {found.num_rows} rows"
                assert as_bytes(found) == wanted[max(index - 1, 0)], f"{name}, {kind}: other bytes"
                if index == 0:
                    assert os.path.exists(mark), f"{name}: no worker was killed"
                print(f"{name}, {kind}{', a worker killed' * (index == 0)}: equal", flush=True)
            print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
