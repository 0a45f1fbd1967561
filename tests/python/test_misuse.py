"""Mistakes get an exception that says what to do, and nothing is cut, wrapped or ignored in silence."""

import copy
import pickle
import tempfile
import unittest
from pathlib import Path

import cerebellum
from cerebellum import Error, OptionError, Status
from support import MODEL, PROMPT, SHORT, model, status_of


class Misuse(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.session, cls.batch = model.session(context=64), model.batch(2, context=64)

    def setUp(self):
        self.session.reset()

    def refused(self, kind, words, call, *arguments, **options):
        """The call raises this exception, with these words in its message."""
        with self.assertRaises(kind) as caught:
            call(*arguments, **options)
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, str(caught.exception))
        return caught.exception

    def test_token_ids_are_not_wrapped(self):
        session = self.session
        for bad in (2**32, 2**32 + 5, -1, 2**64):
            for call in (session.evaluate, session.generate, session.embed, session.steps, model.detokenize):
                error = self.refused(Error, ["[1]", str(bad)], call, [5, bad])
                self.assertEqual(error.status, Status.BAD_TOKEN)
            self.refused(Error, str(bad), session.score, [5], [[5], [bad]])
            self.refused(Error, str(bad), session.generate, "a", logit_bias={bad: 1})
        self.assertEqual(status_of(lambda: session.evaluate([10**9])), Status.BAD_TOKEN)
        self.refused(TypeError, "[0]", session.evaluate, [1.5])
        self.refused(TypeError, "[1]", session.evaluate, [1, "a"])

    def test_bytes_are_no_token_ids_and_no_text(self):
        session = self.session
        for bad in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
            self.refused(TypeError, type(bad).__name__, session.generate, bad)
            self.refused(TypeError, type(bad).__name__, session.stream, bad)
            self.refused(TypeError, type(bad).__name__, session.steps, bad)
            self.refused(TypeError, type(bad).__name__, session.evaluate, bad)
            self.refused(TypeError, type(bad).__name__, session.embed, bad)
            self.refused(TypeError, type(bad).__name__, session.score, bad, [[1]])
            self.refused(TypeError, "decode", model.tokenize, bad)
        self.refused(TypeError, "decode", model.classifier, [b"a", b"b"])
        self.refused(TypeError, "decode", self.batch.generate, [b"a"])
        self.refused(TypeError, "list of strings", self.batch.generate, "abc")
        self.refused(TypeError, "list of strings", model.classifier, "abc")
        self.refused(TypeError, "list of strings", session.generate, "a", choices="yes")
        self.refused(TypeError, "tokenize()", session.evaluate, "abc")
        self.refused(TypeError, "decode", session.generate, b"abc")
        self.refused(TypeError, "restore_file()", session.restore, "path")

    def test_labels_and_names_are_no_classifiers_and_templates(self):
        self.refused(TypeError, "Model.classifier(labels)", self.session.classify, ["a", "b"], "text")
        self.refused(TypeError, "Model.template(name)", self.session.apply, "translate", "text")

    def test_a_checkpoint_is_no_model_file(self):
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "config.json").write_text("{}")
            for given in (directory, Path(directory), "hf:Org/Model"):
                self.refused(Error, ["is a checkpoint", "cerebellum quantize"], cerebellum.Model, given)

    def test_paths_are_not_cut_at_a_zero(self):
        self.refused(ValueError, "zero", cerebellum.Model, MODEL + "\0.old")
        self.refused(ValueError, "zero", cerebellum.Model, MODEL.encode() + b"\0")
        self.refused(ValueError, "zero", self.session.save_file, "a\0b")
        self.refused(ValueError, "zero", self.session.restore_file, "a\0b")
        self.refused(TypeError, "", cerebellum.Model, 5)
        self.refused(ValueError, "[1]", self.batch.generate, ["a", "a\0b"])
        cerebellum.Model(Path(MODEL)).close()
        cerebellum.Model(MODEL.encode()).close()

    def test_files_of_sessions_are_named_in_messages(self):
        self.session.evaluate([5, 6])
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "saved"
            self.session.save_file(path)
            self.session.reset()
            self.session.restore_file(path)
            self.assertEqual(self.session.tokens, [5, 6])
            for call in (self.session.save_file, self.session.restore_file):
                error = self.refused(Error, "nowhere", call, Path(directory) / "nowhere" / "saved")
                self.assertEqual(error.status, Status.IO)

    def test_options_belong_somewhere(self):
        session = self.session
        self.refused(TypeError, ["max_tokens", "generate()"], model.session, max_tokens=5)
        self.refused(TypeError, ["context", "Model.session()"], session.generate, "a", context=100)
        self.refused(TypeError, ["context", "Model.session()"], session.stream, "a", context=100)
        self.refused(TypeError, ["context", "Model.session()"], session.steps, [1], context=100)
        self.refused(TypeError, ["context", "Model.session()"], self.batch.generate, ["a"], context=100)
        self.refused(TypeError, ["context", "Model.session()"], self.batch.stream, ["a"], context=100)
        self.refused(TypeError, ["all_logits", "Model.session()"], model.batch, 2, all_logits=True)
        self.refused(TypeError, ["all_logits", "Model.session()"], model.plan_batch, 2, all_logits=True)
        self.refused(TypeError, ["verify", "Model()"], model.plan, verify=True)
        self.refused(TypeError, ["template", "Model.classifier()"], session.generate, "a", template="x")
        self.refused(TypeError, ["temperature", "generate()"], model.classifier, ["a", "b"], temperature=1)
        session.evaluate([5])
        self.refused(TypeError, ["regex", "generate()"], session.sample, regex="a")
        self.refused(TypeError, ["choices", "generate()"], session.sample, choices=["a"])
        meant = ["temprature", "did you mean 'temperature'"]
        self.refused(TypeError, meant, session.generate, "a", temprature=1)
        self.refused(TypeError, "did you mean 'temperature'", session.generate, "a", temp=1)
        self.refused(TypeError, ["colour", "context"], model.session, colour="red")

    def test_values_are_refused_in_the_words_of_python(self):
        session = self.session
        self.refused(OptionError, "max_tokens: -1", session.generate, "a", max_tokens=-1)
        self.refused(OptionError, "max_tokens: ", session.generate, "a", max_tokens=2**64)
        own = cerebellum.Template.from_text("{text}")
        self.refused(OptionError, "max_tokens: 0", session.apply, own, "a", max_tokens=0)
        self.refused(OptionError, "max_tokens: -1", session.stream_apply, own, "a", max_tokens=-1)
        self.refused(TypeError, "max_tokens: ", session.apply, own, "a", max_tokens="7")
        self.refused(OptionError, "seed: -1", session.generate, "a", seed=-1)
        self.refused(OptionError, "seed: ", session.generate, "a", seed=2**64)
        self.refused(OptionError, "top_p: ", session.generate, "a", top_p=2)
        self.refused(OptionError, "threads: 1000", model.session, threads=1000)
        self.refused(OptionError, "cache: 'float64'", model.session, cache="float64")
        self.refused(OptionError, "context: ", model.session, context=10**9)
        self.refused(OptionError, "isa: ", model.session, isa="sse9")
        self.refused(OptionError, "stop: ", session.generate, "a", stop="")
        self.refused(OptionError, "logit_bias: ", session.generate, "a", logit_bias={5: 1e9})
        self.refused(OptionError, "choices: ", session.generate, "a", choices=["a\nb"])
        self.refused(OptionError, "choices: ", session.generate, "a", choices=[])
        self.refused(OptionError, "choices: ", session.generate, "a", choices=[""])
        self.refused(OptionError, "sequences: 0", model.batch, 0)
        self.refused(OptionError, "regex: ", session.generate, "a", regex="")
        self.refused(OptionError, "logit_bias: ", session.generate, "a", logit_bias={10**6: 1})
        self.refused(OptionError, "logit_bias: ", self.batch.generate, ["a"], logit_bias={10**6: 1})
        self.refused(OptionError, "min_p: -1 is not from 0 to 1", session.generate, "a", min_p=-1)
        self.refused(OptionError, "choices and regex: ", session.generate, "a", choices=["a"], regex="b")
        self.refused(OptionError, "all_logits: 7", model.session, all_logits=7)
        self.refused(TypeError, "max_tokens: ", session.generate, "a", max_tokens=1.5)
        self.refused(TypeError, "max_tokens: ", session.generate, "a", max_tokens="7")
        self.refused(TypeError, "temperature: ", session.generate, "a", temperature="hot")
        self.refused(TypeError, "parse_special: ", model.tokenize, "a", parse_special="false")
        self.refused(ValueError, "top: -1", session.steps, [1], top=-1)
        self.refused(ValueError, "position: -1", session.rewind, -1)
        self.refused(ValueError, "sequences: ", model.batch, 2**64 + 2)
        self.refused(ValueError, "pooling: ", session.embed, "a", pooling="median")
        # 64 bits of a seed, and None for a default, are fine.
        text = session.generate(PROMPT, seed=2**64 - 1, temperature=None, **SHORT)
        self.assertEqual(len(model.tokenize(text)), 12)

    @unittest.skipUnless(cerebellum.has_constraints(), "a build without constraints")
    def test_a_text_that_was_cut_is_not_passed_off_as_whole(self):
        session, schema = self.session, {"type": "array", "items": {"type": "string"}, "minItems": 5}
        options = {"json_schema": schema, "max_tokens": 6}
        error = self.refused(cerebellum.Incomplete, "max_tokens", session.generate, "A list: ", **options)
        self.assertEqual(error.stop_reason, "incomplete")
        self.assertTrue(error.text.strip().startswith("["))
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((again.text, again.stop_reason, str(again)), (error.text, "incomplete", str(error)))
        session.reset()
        pieces = []
        with self.assertRaises(cerebellum.Incomplete):
            for piece in session.stream("A list: ", **options):
                pieces.append(piece)
        self.assertEqual("".join(pieces), error.text)
        session.reset()
        with self.assertRaises(cerebellum.Incomplete):
            list(session.steps("A list: ", **options))
        made = self.batch.generate(["A list: "], **options)
        self.assertIsInstance(made[0], cerebellum.Incomplete)
        self.assertEqual(made[0].text, error.text)
        last = list(self.batch.stream(["A list: "], **options))[-1]
        self.assertIsInstance(last[1], cerebellum.Incomplete)
        session.reset()
        self.refused(cerebellum.Incomplete, "stop string", session.generate, "A list: ",
                     json_schema=schema, stop="[", max_tokens=40)

    def test_failures_carry_the_library_s_message_and_pickle(self):
        self.assertIn("/nowhere", str(self.refused(Error, "", cerebellum.Model, "/nowhere")))
        error = self.refused(Error, "", self.session.evaluate, [10**9])
        self.assertEqual(pickle.loads(pickle.dumps(error)).status, Status.BAD_TOKEN)
        texts = self.batch.generate(["a", "x " * 999, "x " * 998], **SHORT)
        self.assertIn("context", str(texts[1]))
        self.assertEqual([text.status for text in texts[1:]], [Status.CONTEXT_FULL] * 2)
        self.refused(Error, "translate", model.template, "sing")
        self.refused(Error, "{text}", model.classifier, ["a", "b"], template="{label}")
        with self.assertRaises(Error):
            next(self.session.stream([10**9]))

    def test_what_cannot_be_pickled_says_what_can(self):
        for thing in (self.session, self.batch):
            self.refused(TypeError, "pickle its model", pickle.dumps, thing)
            self.refused(TypeError, "pickle its model", copy.copy, thing)
            self.refused(TypeError, "pickle its model", copy.deepcopy, thing)

    def test_what_is_closed_says_so(self):
        session, batch, one = model.session(context=32), model.batch(1, context=32), cerebellum.Model(MODEL)
        classifier, template = one.classifier(["a", "b"]), one.template("translate")
        other = one.session(context=32)
        for thing in (session, batch, one, classifier, template):
            thing.close()
            thing.close()
        calls = [
            session.reset, session.save, session.cancel, session.fork, lambda: session.position,
            lambda: session.generate("a"), lambda: session.stream("a"), lambda: session.steps([1]),
            lambda: batch.generate(["a"]), batch.cancel, lambda: one.info, one.verify, one.session,
            lambda: other.classify(classifier, "a"), lambda: other.apply(template, "a"),
        ]
        for call in calls:
            with self.assertRaises(Error) as caught:
                call()
            self.assertEqual(caught.exception.status, Status.BAD_HANDLE)
            self.assertIn("closed", str(caught.exception))
        # A session does not need its model to be open.
        self.assertEqual(len(other.generate([5], **SHORT) and other.tokens), 12)


if __name__ == "__main__":
    unittest.main()
