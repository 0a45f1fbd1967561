"""Objects that several threads use and close: nothing is freed under a call."""

import gc
import threading
import time
import unittest

import cerebellum
from cerebellum import Status
from support import LONG, MODEL, PROMPT, SHORT, model, until

USERS = 3


def together(*works):
    """Runs functions on threads of their own and raises what they raise."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Threads(unittest.TestCase):
    def test_a_model_is_closed_under_its_users(self):
        for turn in range(30):
            one = cerebellum.Model(MODEL)
            one.tokenize("a")
            classifier, template = one.classifier(["a", "b"]), one.template("translate")

            def use():
                try:
                    while True:
                        one.tokenize("Once upon a time there was a king. " * 20)
                        one.detokenize([5, 6, 7])
                        one.info
                        session = one.session(context=128)
                        session.classify(classifier, "wake me")
                        session.apply(template, "a")
                except cerebellum.Error as error:
                    self.assertEqual(error.status, Status.BAD_HANDLE)

            def close():
                time.sleep(0.002 * (turn % 5))
                for thing in (one, classifier, template):
                    thing.close()

            together(close, *[use] * USERS)

    def test_a_session_is_closed_under_its_users(self):
        for turn in range(30):
            session = model.session(context=64)

            def use():
                try:
                    while True:
                        for call in (
                            lambda: session.generate([5], **SHORT), lambda: session.tokens,
                            lambda: session.logits, session.reset, session.save, lambda: session.position,
                        ):
                            try:
                                call()
                            except cerebellum.Error as error:
                                if error.status == Status.BAD_HANDLE:
                                    return
                                allowed = (Status.BUSY, Status.NO_LOGITS, Status.CONTEXT_FULL)
                                self.assertIn(error.status, allowed)
                finally:
                    gc.collect()

            def close():
                time.sleep(0.002 * (turn % 5))
                session.close()

            together(close, *[use] * USERS)

    def test_a_session_in_use_says_so(self):
        session, errors = model.session(), []

        def generate():
            with self.assertRaises(cerebellum.Cancelled):
                session.generate(PROMPT, **LONG)

        def disturb():
            until(lambda: session.position > 0)
            for call in (session.reset, lambda: session.generate(PROMPT), lambda: session.tokens):
                try:
                    call()
                except cerebellum.Error as error:
                    errors.append(error)
            session.cancel()

        together(generate, disturb)
        self.assertEqual([error.status for error in errors], [Status.BUSY] * 3)
        self.assertIn("another thread", str(errors[0]))

    def test_a_batch_is_closed_under_its_users(self):
        for turn in range(10):
            batch = model.batch(2, context=64)

            def use():
                try:
                    while True:
                        try:
                            batch.generate([PROMPT, "The cat"], **SHORT)
                            for _ in batch.stream([PROMPT, "The cat"], **SHORT):
                                break
                        except cerebellum.Error as error:
                            if error.status == Status.BAD_HANDLE:
                                return
                            self.assertIn(error.status, (Status.BUSY, Status.CANCELLED))
                finally:
                    gc.collect()

            def close():
                time.sleep(0.002 * (turn % 5))
                batch.close()

            together(close, *[use] * USERS)


if __name__ == "__main__":
    unittest.main()
