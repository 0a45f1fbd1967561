"""Ctrl-C ends whatever runs, is never lost, and leaves sessions and batches usable."""

import os
import random
import signal
import time
import unittest

import cerebellum
from support import LONG, PROMPT, SHORT, model

TIMES = int(os.environ.get("PYTHON_INTERRUPTS", "30"))


class Interrupts(unittest.TestCase):
    """A timer's signal, whose handler raises KeyboardInterrupt as that of Ctrl-C does, comes in the midst of
    calls that go on for longer."""

    def setUp(self):
        self.before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        self.random = random.Random(1)

    def tearDown(self):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)

    def interrupted(self, call, times=TIMES, longest=0.02):
        for _ in range(times):
            with self.assertRaises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, self.random.uniform(0.001, longest))
                call()
                # It came too late for the call, at the latest now.
                time.sleep(1)

    def check_usable(self, session):
        session.reset()
        self.assertEqual(len(session.generate([5], **SHORT) and session.tokens), 12)

    def test_sessions_are_interrupted(self):
        session = model.session()
        own = cerebellum.Template.from_text("max-tokens: 200\n---\n{text}")
        calls = [
            lambda: session.generate(PROMPT, **LONG),
            lambda: list(session.stream(PROMPT, **LONG)),
            lambda: list(session.steps(PROMPT, **LONG)),
            lambda: session.apply(own, "He is old. And then"),
            lambda: list(session.stream_apply(own, "He is old. And then")),
        ]
        for call in calls:
            def anew(call=call):
                session.reset()
                call()
            self.interrupted(anew)
            self.check_usable(session)

    def test_long_prompts_are_interrupted_before_their_end(self):
        session, tokens = model.session(all_logits=True), [5, 6] * 250
        text = model.detokenize(tokens).decode()
        classifier = model.classifier(["a", "b"])
        calls = [
            lambda: session.evaluate(tokens), lambda: session.score(tokens, [[5], [6]]),
            lambda: session.embed(tokens), lambda: session.classify(classifier, text[:400]),
            lambda: session.generate(tokens, **LONG), lambda: list(session.stream(tokens, **LONG)),
        ]
        for call in calls:
            def again(call=call):
                while True:
                    session.reset()
                    call()
            self.interrupted(again, 10)
            self.check_usable(session)
        positions = set()
        for _ in range(50):
            session.reset()
            self.interrupted(lambda: session.evaluate(tokens), 1, 0.003)
            positions.add(session.position)
        # Before the end, unless other programs keep us from the processor.
        self.assertIn(0, positions)

    def test_batches_are_interrupted(self):
        batch, prompts = model.batch(2), [PROMPT, "The cat"] * 10
        expected = batch.generate(prompts[:2], **SHORT)
        self.interrupted(lambda: batch.generate(prompts, **LONG))
        self.assertEqual(batch.generate(prompts[:2], **SHORT), expected)
        self.interrupted(lambda: list(batch.stream(prompts, **LONG)))
        self.assertEqual(batch.generate(prompts[:2], **SHORT), expected)

    def test_an_interrupt_in_the_body_of_a_loop_ends_the_stream(self):
        session, batch = model.session(), model.batch(2)
        for make in (lambda: session.stream(PROMPT, **LONG), lambda: batch.stream([PROMPT] * 3, **LONG)):
            try:
                for _ in make():
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                pass
        self.check_usable(session)
        self.assertEqual(len(batch.generate([PROMPT], **SHORT)), 1)


if __name__ == "__main__":
    unittest.main()
