"""cerebellum.bulk: tasks pickle, rows do not depend on their batch, and jobs go on where they were killed."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import unittest
from pathlib import Path

import cerebellum
from cerebellum import bulk
from support import MODEL, model, run

TEXTS = [
    "Once upon a time there was a king", "the king said", "", "wake me at six", None, "a\0b", "half \ud800",
    "long " * 200, "Once", "wake me at six", "there were three little birds in a tall tree by the sea",
]
ERRORS = {4: "missing", 5: "bad_text", 6: "invalid_text", 7: "context_full"}
TASKS = [
    bulk.Scorer(MODEL, context=96),
    bulk.Classifier(MODEL, ["alarm", "story"], context=96, examples=iter([("it was", "story")])),
    bulk.Embedder(MODEL, context=96),
    bulk.Generator(MODEL, context=96, max_tokens=6, temperature=0.9, seed=7, sequences=3),
]


def rows_of(task, rows):
    """The results, without the input."""
    result = task(rows)
    names = [name for name, _ in task.columns]
    return list(zip(*(result[name] for name in names)))


def call(task, texts):
    return rows_of(task, {"text": texts})


class DiesOnce:
    """A task that kills its process in the middle of the first part that it gets."""

    def __init__(self, task, mark):
        self.task, self.mark = task, mark
        self.identity = task.identity

    def __call__(self, rows):
        if not os.path.exists(self.mark):
            open(self.mark, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.task(rows)


class DiesAlways(DiesOnce):
    def __call__(self, rows):
        os.kill(os.getpid(), signal.SIGKILL)


class Tasks(unittest.TestCase):
    def test_results_are_those_of_sessions(self):
        scorer, classifier, embedder, generator = TASKS
        text = TEXTS[0]
        with model.session(context=96) as session:
            self.assertEqual(call(scorer, [text])[0][:2], session.score("", [text])[0])
            session.reset()
            self.assertEqual(call(embedder, [text])[0][0], list(session.embed(text)))
            labels = model.classifier(["alarm", "story"], examples=[("it was", "story")])
            label, probabilities = session.classify(labels, text)
            self.assertEqual(call(classifier, [text])[0], (label, list(probabilities.values()), None))
            session.reset()
            written = session.generate(text, max_tokens=6, temperature=0.9, seed=7)
            self.assertEqual(call(generator, [text])[0], (written, written.stop_reason, None))

    def test_a_row_does_not_depend_on_its_batch(self):
        for task in TASKS:
            with self.subTest(task):
                whole = call(task, TEXTS)
                self.assertEqual(len(whole), len(TEXTS))
                for index, error in ERRORS.items():
                    self.assertEqual(whole[index][-1], error)
                    self.assertEqual(set(whole[index][:-1]), {None})
                self.assertIsNone(whole[0][-1])
                self.assertEqual(whole[3], whole[9])
                self.assertEqual([call(task, [text])[0] for text in TEXTS], whole)
                self.assertEqual(call(task, TEXTS[::-1])[::-1], whole)
                with_others = {**task._options, "threads": 2, "chunk": 5, "isa": "scalar"}
                other = bulk.tasks._made_again(type(task), task.path, task.digest, task._settings, with_others)
                self.assertEqual(call(other, TEXTS), whole)

    def test_other_processes_give_the_same(self):
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            for task in TASKS:
                halves = pool.starmap(call, [(task, TEXTS[:5]), (task, TEXTS[5:])])
                self.assertEqual(halves[0] + halves[1], call(task, TEXTS))

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork()")
    def test_a_fork_has_sessions_of_its_own(self):
        wanted = call(TASKS[0], TEXTS)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            self.assertEqual(pool.apply(call, (TASKS[0], TEXTS)), wanted)

    def test_prompts(self):
        scorer = bulk.Scorer(MODEL, text="answer", prompt="question", context=96)
        prompts = ["Once upon a", "the king", "Once upon a", "Once upon a"]
        answers = [" time", " said", " hill", "long " * 99]
        found = rows_of(scorer, {"question": prompts, "answer": answers})
        with model.session(context=96) as session:
            for prompt, answer, result in list(zip(prompts, answers, found))[:3]:
                session.reset()
                self.assertEqual(result, (*session.score(prompt, [answer])[0], None))
        self.assertEqual(found[3], (None, None, "context_full"))

    def test_pickles_are_small_and_open_nothing(self):
        for task in TASKS:
            pickled = pickle.dumps(task)
            self.assertLess(len(pickled), 1000)
            again = pickle.loads(pickled)
            self.assertEqual(again.identity, task.identity)
            self.assertEqual(again._key, task._key)
        self.assertEqual(bulk.process.model_of(TASKS[0].path, TASKS[0].digest), TASKS[3]._model())

    def test_another_file_at_the_path_is_noticed(self):
        with tempfile.TemporaryDirectory() as directory:
            path = shutil.copy(MODEL, directory)
            pickled = pickle.dumps(bulk.Scorer(path))
            with open(path, "r+b") as file:  # a checksum, as another quantization would have it
                file.seek(-12, os.SEEK_END)
                file.write(b"\xaa")
            with self.assertRaisesRegex(cerebellum.Error, "another model here") as caught:
                pickle.loads(pickled)(["a"])
            self.assertEqual(caught.exception.status, cerebellum.Status.MODEL_CHANGED)

    def test_forms_of_rows(self):
        found = TASKS[2](["Once"])[0]
        self.assertEqual(set(found), {"embedding", "error"})
        self.assertEqual(TASKS[2]([]), [])
        self.assertEqual(TASKS[2]({"text": [], "id": []}), {"text": [], "id": [], "embedding": [], "error": []})
        for rows, words in [
            ({"words": ["a"]}, "there is no column 'text'"), ({"text": ["a"], "error": [1]}, "adds a column 'error'"),
            ({"text": [5]}, r"rows\[0\]: a string is needed"), ("a", "a list of texts is needed"),
        ]:
            with self.assertRaisesRegex((TypeError, ValueError), words):
                TASKS[2](rows)

    def test_mistakes_are_found_where_a_task_is_made(self):
        for make, words in [
            (lambda: bulk.Scorer(MODEL, max_tokens=5), r"bulk\.Scorer\(\) takes no option 'max_tokens'"),
            (lambda: bulk.Generator(MODEL, temperature=-1), "temperature: "),
            (lambda: bulk.Generator(MODEL, date="2025-01-01"), "with chat=True only"),
            (lambda: bulk.Generator(MODEL, sequences=0), "sequences: 0 is not from 1"),
            (lambda: bulk.Classifier(MODEL, "alarm"), "a list of strings is needed"),
            (lambda: bulk.Embedder(MODEL, pooling="max"), "pooling: "),
            (lambda: bulk.Scorer(__file__), "is not a model file"),
        ]:
            with self.subTest(words), self.assertRaisesRegex((TypeError, ValueError, cerebellum.Error), words):
                make()

    def test_incomplete_texts_are_rows_without_a_result(self):
        generator = bulk.Generator(MODEL, context=96, max_tokens=2, choices=["a very long answer indeed"])
        if cerebellum.has_constraints():
            self.assertEqual(call(generator, ["Once"]), [(None, None, "incomplete")])

    def test_chat(self):
        generator = bulk.Generator(MODEL, chat=True, context=96, max_tokens=5, date="2025-01-31")
        turns = [{"role": "user", "content": "Once"}]
        try:
            with model.session(context=96) as session:
                answer = session.chat(turns, max_tokens=5)
        except cerebellum.Error:
            self.skipTest("the model has no chat template")
        self.assertEqual([row[0] for row in call(generator, ["Once", turns])], [answer, answer])


class Jobs(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.results = self.directory / "results"
        self.parts = []
        for number in range(4):
            self.parts.append(self.directory / f"part-{number}.jsonl")
            lines = [json.dumps({"id": f"{number}-{index}", "text": text}) for index, text in enumerate(TEXTS[number:])]
            self.parts[-1].write_text("\n".join(lines) + "\n")
        self.task = TASKS[0]

    def expected(self):
        texts = [text for number in range(4) for text in TEXTS[number:]]
        return call(self.task, texts)

    def read(self, paths):
        lines = [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]
        self.assertEqual(len({line["id"] for line in lines}), len(lines))
        return [tuple(line[name] for name, _ in self.task.columns) for line in lines]

    def test_runs_once(self):
        seen = []
        paths = bulk.run(self.task, self.parts, self.results, workers=2, progress=lambda *done: seen.append(done))
        self.assertEqual(self.read(paths), self.expected())
        self.assertEqual(seen, [(done, 4) for done in range(5)])
        before = [os.stat(path).st_mtime_ns for path in paths]
        self.assertEqual(bulk.run(self.task, self.parts, self.results), paths)
        self.assertEqual([os.stat(path).st_mtime_ns for path in paths], before)
        # A part that changes is done again, and its old result goes.
        self.parts[1].write_text('{"id": "new", "text": "Once"}\n')
        again = bulk.run(self.task, self.parts, self.results)
        self.assertEqual([a == b for a, b in zip(again, paths)], [True, False, True, True])
        self.assertEqual(sorted(os.listdir(self.results)), sorted(["job.json", *map(os.path.basename, again)]))

    @unittest.skipUnless(hasattr(signal, "SIGKILL"), "needs SIGKILL")
    def test_a_killed_worker_loses_and_doubles_nothing(self):
        task = DiesOnce(self.task, str(self.directory / "died"))
        paths = bulk.run(task, self.parts, self.results, workers=2)
        self.assertTrue(os.path.exists(task.mark))
        self.assertEqual(self.read(paths), self.expected())
        self.assertEqual(len(os.listdir(self.results)), 5)

    @unittest.skipUnless(hasattr(signal, "SIGKILL"), "needs SIGKILL")
    def test_a_part_that_kills_every_worker_ends_the_job(self):
        with self.assertRaisesRegex(RuntimeError, "killed 3 times, at parts such as part-"):
            bulk.run(DiesAlways(self.task, ""), self.parts, self.results, workers=2)

    def test_a_killed_job_goes_on(self):
        # Killed while the third part is written.
        found = run(f"""
import os
from cerebellum import bulk
from cerebellum.bulk import files
replace, count = os.replace, []
def dying(*names):
    count.append(names)
    if len(count) == 4:
        os._exit(9)
    replace(*names)
os.replace = dying
bulk.run(bulk.Scorer(MODEL, context=96), {[str(part) for part in self.parts]}, {str(self.results)!r})
""")
        self.assertEqual(found.returncode, 9, found.stderr)
        names = os.listdir(self.results)
        self.assertEqual(sum(name.endswith(".jsonl") for name in names), 2, names)
        paths = bulk.run(self.task, self.parts, self.results)
        self.assertEqual(self.read(paths), self.expected())
        self.assertEqual(len(os.listdir(self.results)), 5)

    def test_refuses_what_would_mix_results(self):
        bulk.run(self.task, self.parts[:1], self.results)
        with self.assertRaisesRegex(ValueError, "results of another task, by options"):
            bulk.run(bulk.Scorer(MODEL, context=97), self.parts, self.results)
        # What changes no result may change.
        bulk.run(bulk.Scorer(MODEL, context=96, threads=2, chunk=8), self.parts[:1], self.results)
        with self.assertRaisesRegex(ValueError, "two have the name"):
            bulk.run(self.task, [self.parts[0], self.parts[0]], self.results)
        with self.assertRaisesRegex(ValueError, "has to end in one of"):
            bulk.run(self.task, ["a.csv"], self.results)

    def test_a_bad_part_is_named(self):
        self.parts[2].write_text("[1]\n")
        with self.assertRaisesRegex(RuntimeError, r"part part-2\.jsonl: ValueError: line 1: a JSON object"):
            bulk.run(self.task, self.parts, self.results, workers=2)


if __name__ == "__main__":
    unittest.main()
