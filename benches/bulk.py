"""Figures of docs/bulk.md: bulk.py MODEL.cbl TEXT [CT2]

Scores the lines of TEXT in pieces of about 60 words: tokens a second of one core, of one process with two
threads, of two processes; and how long a worker takes until its first batch can begin. Where other programs
run, the seconds of the processors, in brackets, say more than those of the clock.

CT2 is a directory of CTranslate2 with the same weights and the ids as words (convert_ctranslate2() in
benches/peers/shapes.py): it scores the same tokens in int8, in batches of up to 2048 tokens."""

import multiprocessing
import pickle
import resource
import statistics
import sys
import time
from pathlib import Path

import cerebellum
from cerebellum import bulk

MOST_PIECES = 160


def corpus(path):
    words = Path(path).read_text(encoding="utf-8").split()
    return [" ".join(words[start : start + 60]) for start in range(0, min(len(words), 60 * MOST_PIECES), 60)]


def started(pickled):
    """Seconds from a task's bytes to a session that waits for a batch, in a new process."""
    start, cpu = time.perf_counter(), time.process_time()
    pickle.loads(pickled).open()
    return time.perf_counter() - start, time.process_time() - cpu


def timed(task, texts):
    """Tokens, and when the work began and ended, by the clock and by the processors."""
    task(texts[:2])
    start, cpu = time.time(), time.process_time()
    rows = task(texts)
    return sum(row["tokens"] for row in rows), start, time.time(), time.process_time() - cpu


def peer(directory, model, texts):
    """CTranslate2 in place of a task. It scores what follows the first token, which is the end of text here as for
    Scorer."""
    import ctranslate2

    model = cerebellum.Model(model)
    start = [model.info["end_of_text"]]
    tokens = [[str(id) for id in start + model.tokenize(text)] for text in texts]
    generator = ctranslate2.Generator(directory, device="cpu", intra_threads=1, inter_threads=1, compute_type="int8")

    def task(rows):
        found = generator.score_batch(tokens[: len(rows)], max_batch_size=2048, batch_type="tokens")
        return [{"tokens": len(scores.log_probs)} for scores in found]

    return timed(task, texts)


def report(name, outcomes):
    tokens = sum(outcome[0] for outcome in outcomes)
    clock = max(outcome[2] for outcome in outcomes) - min(outcome[1] for outcome in outcomes)
    cpu = sum(outcome[3] for outcome in outcomes)
    print(f"{name}: {tokens / clock:7.1f} tokens/s ({tokens / cpu:7.1f} a second of a core)", flush=True)


def main():
    model, texts = sys.argv[1], corpus(sys.argv[2])
    spawn = multiprocessing.get_context("spawn")
    pickled = pickle.dumps(bulk.Scorer(model, context=512))
    with spawn.Pool(1, maxtasksperchild=1) as pool:
        times = [pool.apply(started, (pickled,)) for _ in range(7)]
        clock, cpu = (1000 * statistics.median(column) for column in zip(*times))
        print(f"start of a worker: {clock:.1f} ms ({cpu:.1f} ms of a core), median of 7", flush=True)
    one, two = (bulk.Scorer(model, context=512, threads=threads) for threads in (1, 2))
    report("one process, one thread   ", [timed(one, texts)])
    report("one process, two threads  ", [timed(two, texts)])
    with spawn.Pool(2) as pool:
        halves = pool.starmap(timed, [(one, texts[::2]), (one, texts[1::2])], chunksize=1)
        report("two processes, one thread ", halves)
    if sys.argv[3:]:
        with spawn.Pool(1) as pool:
            report("CTranslate2, one thread   ", [pool.apply(peer, (sys.argv[3], model, texts))])
    print(f"most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
