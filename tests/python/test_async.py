"""`async for` over streams."""

import asyncio
import time
import unittest

import cerebellum
from support import LONG, PROMPT, SHORT, model, run


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.session = model.session()
        self.text = self.session.generate(PROMPT, **SHORT)
        self.session.reset()

    def check_usable(self):
        self.session.reset()
        self.assertEqual(self.session.generate(PROMPT, **SHORT), self.text)

    async def test_the_same_pieces_as_with_for(self):
        pieces = list(self.session.stream(PROMPT, **SHORT))
        self.session.reset()
        self.assertEqual([piece async for piece in self.session.stream(PROMPT, **SHORT)], pieces)
        self.session.reset()
        steps = [step async for step in self.session.steps(PROMPT, **SHORT)]
        self.assertEqual("".join(step.text for step in steps), self.text)
        batch, texts = model.batch(2), ["", ""]
        async for index, piece in batch.stream([PROMPT, "The cat"], **SHORT):
            texts[index] += piece
        self.assertEqual(texts, batch.generate([PROMPT, "The cat"], **SHORT))

    async def test_the_loop_goes_on_meanwhile(self):
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.create_task(count())
        # One long call: the prompt.
        async for _ in self.session.stream([5, 6] * 200, max_tokens=1, ignore_end_of_text=True):
            pass
        counter.cancel()
        self.assertGreater(turns, 50)

    async def test_several_sessions_at_a_time(self):
        async def tell(session):
            return "".join([piece async for piece in session.stream(PROMPT, **SHORT)])

        sessions = [model.session(context=64) for _ in range(4)]
        self.assertEqual(await asyncio.gather(*map(tell, sessions)), [self.text] * 4)

    async def test_cancelling_the_task_ends_the_generation_at_once(self):
        batch = model.batch(2)
        for make in (
            lambda: self.session.stream([5, 6] * 200, **LONG), lambda: self.session.steps(PROMPT, **LONG),
            lambda: batch.stream([PROMPT, "The cat"] * 50, **LONG),
        ):
            for turn in range(10):
                self.session.reset()

                async def read(make=make):
                    async for _ in make():
                        pass

                task = asyncio.create_task(read())
                await asyncio.sleep(0.003 * turn)
                start = time.monotonic()
                task.cancel()
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                self.assertLess(time.monotonic() - start, 1)
                self.check_usable()
        self.assertEqual(len(batch.generate([PROMPT], **SHORT)), 1)

    async def test_leaving_the_loop_ends_the_generation(self):
        for _ in range(20):
            self.session.reset()
            async for _ in self.session.stream(PROMPT, **LONG):
                break
            self.check_usable()

    async def test_a_timeout_is_a_cancellation(self):
        with self.assertRaises(asyncio.TimeoutError):
            stream = self.session.stream(PROMPT, **LONG)
            while True:
                await asyncio.wait_for(stream.__anext__(), 0.0005)
        self.check_usable()

    async def test_errors_arrive(self):
        with self.assertRaises(cerebellum.Error):
            async for _ in self.session.stream([10**9]):
                pass
        self.check_usable()

    def test_ctrl_c_ends_the_loop(self):
        done = run("""
import asyncio, os, signal, threading
session = model.session()
async def main():
    # From here on the loop hears signals.
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    while True:
        session.reset()
        async for _ in session.stream([5, 6] * 200, max_tokens=10**6):
            pass
try:
    asyncio.run(main())
except KeyboardInterrupt:
    session.reset()
    print(session.generate([5], max_tokens=3).stop_reason)
""")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "max_tokens\n", ""))


if __name__ == "__main__":
    unittest.main()
