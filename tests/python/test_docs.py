"""The programs in docs/python.md, docs/bulk.md and the module's own description run."""

import contextlib
import io
import os
import re
import shutil
import tempfile
import textwrap
import unittest

import cerebellum
from support import MODEL, REPOSITORY


class Docs(unittest.TestCase):
    def setUp(self):
        self.before, self.directory = os.getcwd(), tempfile.TemporaryDirectory()
        os.chdir(self.directory.name)
        for name in ("demo.cbl", "large.cbl", "model.cbl"):
            shutil.copy(MODEL, name)

    def tearDown(self):
        os.chdir(self.before)
        self.directory.cleanup()

    def check_runs(self, source, names):
        written = io.StringIO()
        with contextlib.redirect_stdout(written):
            exec(source, names)
        return written.getvalue()

    def test_the_guide(self):
        text = (REPOSITORY / "docs" / "python.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        self.assertGreater(len(blocks), 3)
        batch = cerebellum.Model("demo.cbl").batch(2, context=64)
        names = {"cerebellum": cerebellum, "prompts": ["Once", "x " * 99], "batch": batch}
        written = "".join(self.check_runs(block, names) for block in blocks)
        self.assertIn("max_tokens", written)
        self.assertIn("verify 100 %", written)
        self.assertIn("failed:", written)

    def test_the_guide_to_whole_corpora(self):
        text = (REPOSITORY / "docs" / "bulk.md").read_text()
        (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        self.assertIn("log_probability", self.check_runs(block, {}))

    def test_the_description(self):
        code = re.search(r"\n\n((?:    .*\n|\n)+)", cerebellum.__doc__)[1]
        self.assertIn("alarm", self.check_runs(textwrap.dedent(code), {}))


if __name__ == "__main__":
    unittest.main()
