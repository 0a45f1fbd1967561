"""Opening: from a file in a file, with progress, and given up."""

import os
import pickle
import tempfile
import unittest
from pathlib import Path

import cerebellum
from cerebellum import Error, Status
from support import MODEL, PROMPT, SHORT, model, status_of


class Opening(unittest.TestCase):
    def test_a_model_inside_of_another_file(self):
        expected, content = model.session(context=64).generate(PROMPT, **SHORT), Path(MODEL).read_bytes()
        with tempfile.TemporaryFile() as package:
            package.write(b"x" * 128 + content + b"y" * 64)
            package.flush()
            for access in ("map", "read"):
                one = cerebellum.Model.from_fd(package, 128, len(content), access=access, verify=True)
                self.assertEqual(one.session(context=64).generate(PROMPT, **SHORT), expected)
                with self.assertRaisesRegex(TypeError, "from_fd"):
                    pickle.dumps(one)
            self.assertEqual(status_of(lambda: cerebellum.Model.from_fd(package)), Status.BAD_MODEL)
            with self.assertRaises(Error):
                cerebellum.Model.from_fd(package, 128, len(content) + 10**6)
            with self.assertRaises(ValueError):
                cerebellum.Model.from_fd(package, -1)
        with open(MODEL, "rb") as file:
            one = cerebellum.Model.from_fd(file.fileno())
        self.assertEqual(one.session(context=64).generate(PROMPT, **SHORT), expected)
        with self.assertRaises(TypeError):
            cerebellum.Model.from_fd(MODEL)

    def test_a_file_that_was_written_to_is_refused(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "live.cbl")
            path.write_bytes(Path(MODEL).read_bytes())
            os.utime(path, (10**9, 10**9))  # A clock may tick only every few milliseconds.
            one = cerebellum.Model(path)
            session = one.session(context=64)
            session.generate(PROMPT, **SHORT)
            path.write_bytes(b"x" * 4096)
            for call in (
                lambda: one.tokenize("a"),
                lambda: one.detokenize([5]),
                one.verify,
                lambda: session.generate("a", **SHORT),
                lambda: list(session.stream("a", **SHORT)),
                lambda: session.embed("a"),
                session.save,
                session.fork,
            ):
                self.assertEqual(status_of(call), Status.MODEL_CHANGED)

    def test_progress_is_told_on_the_calling_thread(self):
        told = []
        cerebellum.Model(MODEL, access="read", verify=True, progress=lambda *step: told.append(step))
        self.assertEqual({stage for stage, _, _ in told}, {"read", "verify"})
        self.assertTrue(all(0 <= done <= total for _, done, total in told))
        self.assertEqual(told[-1][1], told[-1][2])

    def test_what_progress_raises_gives_up(self):
        for kind in (KeyboardInterrupt, ValueError):
            def progress(*_, kind=kind):
                raise kind

            with self.assertRaises(kind):
                cerebellum.Model(MODEL, access="read", progress=progress)

    def test_memory_is_locked_or_the_reason_is_told(self):
        session, batch = model.session(context=32), model.batch(2, context=32)
        for thing in (model, session, batch):
            try:
                thing.lock_memory()
            except Error as error:
                self.assertEqual(error.status, Status.NO_MEMORY)


if __name__ == "__main__":
    unittest.main()
