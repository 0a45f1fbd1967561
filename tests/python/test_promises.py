"""What the module promises, when all goes well."""

import json
import pickle
import threading
import unittest

import cerebellum
from support import PROMPT, SHORT, model


class Promises(unittest.TestCase):
    def setUp(self):
        self.session = model.session(context=64, threads=2)
        self.tokens = model.tokenize(PROMPT)
        self.text = self.session.generate(PROMPT, **SHORT)
        self.session.reset()

    def tearDown(self):
        self.session.close()

    def test_models_tell_about_themselves(self):
        self.assertEqual(model.info["architecture"], "gpt2")
        self.assertTrue(model.info["has_tokenizer"])
        self.assertLess(model.plan(context=64)["total_bytes"], model.plan(context=128)["total_bytes"])
        two = model.plan_batch(2, context=64)["cache_bytes"]
        self.assertEqual(two, 2 * model.plan(context=64)["cache_bytes"])
        model.verify()
        self.assertTrue(cerebellum.isa_names())

    def test_texts_become_tokens_and_back(self):
        self.assertEqual(model.detokenize(self.tokens), PROMPT.encode())
        self.assertEqual(model.detokenize([]), b"")
        self.assertEqual(len(model.tokenize("<|endoftext|>", parse_special=True)), 1)

    def test_a_text_is_the_same_whole_in_pieces_and_from_tokens(self):
        pieces = list(self.session.stream(PROMPT, **SHORT))
        self.assertGreater(len(pieces), 1)
        self.assertEqual("".join(pieces), self.text)
        self.session.reset()
        self.assertEqual(self.session.generate(self.tokens, **SHORT), self.text)
        self.session.reset()
        self.assertEqual(self.session.generate(iter(self.tokens), **SHORT), self.text)

    def test_a_text_knows_why_it_ended(self):
        self.assertEqual(self.text.stop_reason, "max_tokens")
        self.assertEqual(self.session.stats["stop_reason"], "max_tokens")
        self.assertEqual(self.session.stats["generated_tokens"], 12)
        copy = pickle.loads(pickle.dumps(self.text))
        self.assertEqual((copy, copy.stop_reason), (self.text, "max_tokens"))
        stream = self.session.stream(PROMPT, **SHORT)
        self.assertIsNone(stream.stop_reason)
        self.assertEqual((stream.read(), stream.stop_reason, stream.text), (self.text, "max_tokens", self.text))
        self.session.reset()
        stop = self.text[4:9]
        cut = self.session.generate(PROMPT, stop=stop, **SHORT)
        self.assertEqual((cut, cut.stop_reason), (self.text[: self.text.index(stop)], "stop_string"))
        self.session.reset()
        full = self.session.generate(PROMPT, max_tokens=1000, ignore_end_of_text=True)
        self.assertEqual(full.stop_reason, "context_full")

    def test_steps_tell_of_every_token(self):
        steps = list(self.session.steps(self.tokens, top=3, **SHORT))
        self.assertEqual("".join(step.text for step in steps), self.text)
        for step in steps:
            if step.token is not None:
                self.assertEqual(step.top[0], (step.token, step.log_probability))
                self.assertEqual(len(step.top), 3)
        self.session.reset()
        self.assertEqual([step.token for step in self.session.steps(PROMPT, **SHORT)],
                         [step.token for step in steps])
        self.session.reset()
        bias = {steps[0].token: -100}
        self.assertNotEqual(self.session.generate(PROMPT, logit_bias=bias, **SHORT), self.text)

    def test_the_penalty_s_window_may_be_all_tokens(self):
        options = {"repetition_penalty": 5, "max_tokens": 50, "ignore_end_of_text": True}
        texts = []
        for window in (1, 64, 0):
            self.session.reset()
            texts.append(self.session.generate(PROMPT, repetition_window=window, **options))
        self.assertNotEqual(texts[0], texts[2])
        self.assertEqual(texts[1], texts[2])

    def test_saved_restored_forked_the_same(self):
        self.session.evaluate(self.tokens)
        saved, fork = self.session.save(), self.session.fork()
        token, logits = self.session.sample(), self.session.logits
        self.assertEqual(max(range(len(logits)), key=lambda i: logits[i]), token)
        other = pickle.loads(pickle.dumps(model)).session(context=48)
        other.restore(bytearray(saved))
        self.assertEqual((other.tokens, fork.tokens), (self.tokens, self.tokens))
        self.assertEqual((bytes(other.logits), bytes(fork.logits)), (bytes(logits), bytes(logits)))
        self.session.rewind(2)
        self.assertEqual(self.session.position, 2)

    def test_scores_and_embeddings(self):
        (there, length), (bicycle, _) = self.session.score(PROMPT, [" there was", " bicycle"])
        self.assertTrue(bicycle < there < 0 and length == 2)
        self.session.reset()
        continuations = [model.tokenize(" there was"), model.tokenize(" bicycle")]
        self.assertEqual(self.session.score(self.tokens, continuations)[0], (there, 2))
        vector = self.session.embed("set an alarm")
        self.assertAlmostEqual(sum(x * x for x in vector), 1, places=5)
        self.assertEqual(len(vector), model.info["embedding"])
        self.assertEqual(bytes(self.session.embed(model.tokenize("set an alarm"))), bytes(vector))
        self.assertNotEqual(bytes(self.session.embed("set an alarm", pooling="last")), bytes(vector))

    def test_classes(self):
        classifier = model.classifier(["weather", "alarm"], calibration="content_free")
        label, probabilities = self.session.classify(classifier, "wake me at six")
        self.assertEqual(label, "alarm")
        self.assertGreater(probabilities["alarm"], probabilities["weather"])
        copy = pickle.loads(pickle.dumps(classifier))
        session = copy.model.session(context=64)
        self.assertEqual(session.classify(copy, "wake me at six")[1], probabilities)

    def test_templates(self):
        own = cerebellum.Template.from_text("max-tokens: 4\n---\n{text} And then")
        applied = self.session.apply(own, "He is old.")
        # The first part's result is cut, and the second one's is not.
        session, options = model.session(context=128), 'max-tokens: 6\nsplit: sentences\nstop: ","'
        parts = cerebellum.Template.from_text(options + "\n---\n{text} And")
        self.assertEqual(session.apply(parts, "A dog.").stop_reason, "stop_string")
        self.assertEqual(session.apply(parts, "He is old. A dog.").stop_reason, "max_tokens")
        shorter = self.session.apply(own, "He is old.", max_tokens=1)
        self.assertTrue(applied.startswith(shorter) and len(shorter) < len(applied))
        self.assertTrue(applied)
        self.assertEqual(applied.stop_reason, "max_tokens")
        self.assertEqual("".join(self.session.stream_apply(own, "He is old.")), applied)
        self.assertEqual(self.session.apply(pickle.loads(pickle.dumps(own)), "He is old."), applied)
        named = pickle.loads(pickle.dumps(model.template("translate")))
        self.assertIsInstance(named, cerebellum.Template)

    @unittest.skipUnless(cerebellum.has_constraints(), "a build without constraints")
    def test_texts_of_a_given_form(self):
        schema = {"type": "object", "properties": {"hour": {"enum": [6, 7]}}, "required": ["hour"]}
        schema["additionalProperties"] = False
        made = self.session.generate("Wake me at six: ", json_schema=schema, max_tokens=40)
        self.assertIn(json.loads(made)["hour"], (6, 7))
        self.assertEqual(made.stop_reason, "complete")
        self.session.reset()
        made = self.session.generate("Wake me at", choices=["six", "seven thirty"])
        self.assertIn(made.strip(), ("six", "seven thirty"))

    def test_a_batch_makes_the_same_texts(self):
        prompts = [PROMPT, "The cat", "x " * 999, "A dog"]
        batch = model.batch(2, context=64)
        texts = batch.generate(prompts, **SHORT)
        self.assertEqual((len(texts), texts[0], texts[0].stop_reason), (4, self.text, "max_tokens"))
        self.assertEqual(texts[2].status, cerebellum.Status.CONTEXT_FULL)
        streamed = ["", "", "", ""]
        for index, piece in batch.stream(prompts, **SHORT):
            streamed[index] = piece if isinstance(piece, Exception) else streamed[index] + piece
        self.assertEqual(streamed[:2] + streamed[3:], texts[:2] + texts[3:])
        self.assertEqual(streamed[2].status, cerebellum.Status.CONTEXT_FULL)
        self.assertEqual(batch.generate([]), [])

    def test_threads_with_a_session_each(self):
        results = []

        def work():
            results.append(model.session(context=64).generate(PROMPT, **SHORT))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(results, [self.text, self.text])


if __name__ == "__main__":
    unittest.main()
