"""Streams compute what is asked for, and can be left at any place and time."""

import gc
import os
import threading
import time
import unittest

import cerebellum
from cerebellum import Status
from support import LONG, PROMPT, SHORT, model, run, status_of


class Streams(unittest.TestCase):
    def setUp(self):
        self.session = model.session()
        self.text = self.session.generate(PROMPT, **SHORT)
        self.session.reset()

    def check_usable(self):
        self.session.reset()
        self.assertEqual(self.session.generate(PROMPT, **SHORT), self.text)

    def test_streams_do_not_run_ahead(self):
        for make in (self.session.steps, self.session.stream):
            self.session.reset()
            stream = make(PROMPT, **LONG)
            for _ in range(5):
                next(stream)
            time.sleep(0.1)
            stream.close()
            # A piece of text may be made of several tokens, which are few.
            most = 5 if make == self.session.steps else 15
            self.assertLessEqual(self.session.stats["generated_tokens"], most)
            self.assertLessEqual(self.session.position, len(model.tokenize(PROMPT)) + most)
        batch, pieces = model.batch(2), 0
        for pieces, _ in enumerate(batch.stream([PROMPT, "The cat"], **LONG)):
            if pieces == 5:
                start = time.process_time()
                time.sleep(0.1)
                self.assertLess(time.process_time() - start, 0.03, "somebody worked meanwhile")
                break

    def test_leaving_a_stream_early_ends_it(self):
        own = cerebellum.Template.from_text("max-tokens: 200\n---\n{text}")
        streams = [
            lambda: self.session.stream(PROMPT, **LONG), lambda: self.session.steps(PROMPT, **LONG),
            lambda: self.session.stream_apply(own, "He is old. And then"),
        ]
        for make in streams:
            for _ in range(20):
                self.session.reset()
                for _ in make():
                    break
                self.check_usable()
                # Never begun.
                make()
                make().close()
                with make() as stream:
                    next(stream)
                self.assertEqual(list(stream), [])
                self.check_usable()

    def test_leaving_a_batch_s_stream_early_does_not_stop_the_next_call(self):
        batch, prompts = model.batch(2, context=32), [PROMPT, "The cat"]
        expected = batch.generate(prompts, max_tokens=2)
        for turn in range(300):
            for piece, _ in enumerate(batch.stream(prompts, max_tokens=3 + turn % 3)):
                if piece == turn % 5:
                    break
            self.assertEqual(batch.generate(prompts, max_tokens=2), expected)

    def test_another_call_ends_a_stream_and_its_next_piece_says_so(self):
        calls = [
            self.session.reset, lambda: self.session.rewind(1), lambda: self.session.evaluate([5]),
            lambda: self.session.generate([5], max_tokens=1), lambda: next(self.session.stream([5])),
        ]
        for call in calls:
            self.session.reset()
            stream = self.session.stream(PROMPT, **LONG)
            next(stream)
            # These look only.
            self.session.tokens, self.session.logits, self.session.stats, self.session.sample()
            self.session.fork().close()
            next(stream)
            call()
            with self.assertRaises(cerebellum.Error) as caught:
                next(stream)
            self.assertEqual(caught.exception.status, Status.NO_GENERATION)
            self.assertIn("another call", str(caught.exception))
            self.assertEqual(list(stream), [])
            self.check_usable()

    def test_a_suspended_template_keeps_its_session_and_says_so(self):
        own = cerebellum.Template.from_text("max-tokens: 200\n---\n{text}")
        stream = self.session.stream_apply(own, "He is old. And then")
        next(stream)
        with self.assertRaises(cerebellum.Error) as caught:
            self.session.reset()
        self.assertEqual(caught.exception.status, Status.BUSY)
        self.assertIn("close()", str(caught.exception))
        next(stream)
        stream.close()
        self.check_usable()

    def test_closing_the_session_ends_its_stream(self):
        stream = self.session.stream(PROMPT, **LONG)
        next(stream)
        self.session.close()
        self.assertEqual(status_of(lambda: next(stream)), Status.BAD_HANDLE)
        self.assertEqual(list(stream), [])

    def test_a_stream_may_be_read_by_another_thread(self):
        stream, pieces = self.session.stream(PROMPT, **SHORT), []
        pieces.append(next(stream))
        thread = threading.Thread(target=lambda: pieces.extend(stream))
        thread.start()
        thread.join()
        self.assertEqual("".join(pieces), self.text)

    def test_cancel_is_an_exception_that_has_the_text(self):
        pieces = []
        with self.assertRaises(cerebellum.Cancelled) as caught:
            for piece in self.session.stream(PROMPT, **LONG):
                pieces.append(piece)
                if len(pieces) == 3:
                    self.session.cancel()
        error = caught.exception
        self.assertEqual((error.status, error.stop_reason), (Status.CANCELLED, "cancelled"))
        self.assertEqual(error.text, "".join(pieces))
        self.check_usable()

        def generate():
            try:
                self.session.generate(PROMPT, **LONG)
            except cerebellum.Error as error:
                results.append(error)

        results = []
        self.session.reset()
        thread = threading.Thread(target=generate)
        thread.start()
        time.sleep(0.02)
        self.session.cancel()
        thread.join()
        self.assertIsInstance(results[0], cerebellum.Cancelled)
        self.session.clear_cancel()
        self.check_usable()

    def test_streams_in_a_cycle_are_ended_when_they_are_collected(self):
        holder = [self.session.stream(PROMPT, **LONG)]
        holder.append(holder)
        next(holder[0])
        del holder
        gc.collect()
        self.check_usable()

    @unittest.skipUnless(hasattr(os, "fork"), "no fork")
    def test_a_forked_process_can_leave_what_its_parent_began(self):
        done = run("""
import os, sys
batch = model.batch(2, context=64)
stream = batch.stream(["Once", "The cat"], max_tokens=40)
next(stream)
child = os.fork()
if child == 0:
    try:
        next(stream)
    except RuntimeError as error:
        assert "fork" in str(error)
        stream.close()
        sys.exit(7)
    sys.exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert len(list(stream)) > 3
""")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))


class Exit(unittest.TestCase):
    """The interpreter may exit at any time."""

    def check_exit(self, source, code=0):
        for _ in range(3):
            done = run(source)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (code, "", ""), source)

    def test_with_a_suspended_stream(self):
        own = 'cerebellum.Template.from_text("max-tokens: 200\\n---\\n{text}")'
        for make in (
            'session.stream("Once", max_tokens=10**6)',
            'session.steps("Once", max_tokens=10**6)',
            f'session.stream_apply({own}, "He is old.")',
            'model.batch(2).stream(["Once", "The cat"], max_tokens=10**6)',
        ):
            self.check_exit(f"session = model.session()\nstream = {make}\nnext(stream)\n")
        begin = 'stream = model.batch(2).stream(["Once", "The cat"], max_tokens=10**6)\n'
        self.check_exit(begin + "next(stream)\nstream.me = stream\nimport sys\nsys.exit(3)\n", 3)

    def test_with_daemon_threads_that_generate(self):
        self.check_exit("""
import threading, time
def work(make):
    while True:
        try:
            for piece in make():
                pass
        except (cerebellum.Error, RuntimeError):
            pass
sessions = [model.session(), model.session()]
batch = model.batch(2)
for make in (
    lambda: [sessions[0].reset(), sessions[0].generate("Once", max_tokens=300)],
    lambda: [sessions[1].reset()] and sessions[1].steps("Once", max_tokens=300),
    lambda: batch.stream(["Once", "The cat"], max_tokens=300),
    lambda: batch.generate(["Once", "The cat"], max_tokens=300),
):
    threading.Thread(target=work, args=(make,), daemon=True).start()
time.sleep(0.1)
""")

    def test_while_a_call_begins(self):
        # The call's thread begins after the interpreter has ended the calls it knew of.
        self.check_exit("""
import threading
from cerebellum import calls
start, begun, exited = calls._thread.start_new_thread, threading.Event(), threading.Event()
def start_late(work, arguments):
    begun.set()
    exited.wait()
    return start(work, arguments)
calls._thread.start_new_thread = start_late
results = []
def ask():
    try:
        next(model.batch(2).stream(["Once", "The cat"], max_tokens=10**6))
    except RuntimeError as error:
        results.append(str(error))
thread = threading.Thread(target=ask)
thread.start()
begun.wait()
calls._end_all()
exited.set()
thread.join()
assert results == ["the interpreter is exiting"], results
""")

    def test_in_the_midst_of_a_loop(self):
        self.check_exit("""
import atexit
session = model.session()
atexit.register(lambda: session.reset())
for piece in session.stream("Once", max_tokens=10**6):
    raise SystemExit(5)
""", 5)


if __name__ == "__main__":
    unittest.main()
