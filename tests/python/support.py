"""What the tests of the Python module share. They need the model that CEREBELLUM_MODEL names."""

import os
import subprocess
import sys
import time
from pathlib import Path

import cerebellum

MODEL = os.environ["CEREBELLUM_MODEL"]
REPOSITORY = Path(__file__).resolve().parents[2]
PROMPT = "Once upon a time"
# A text of 12 tokens, whatever the model says.
SHORT = {"max_tokens": 12, "ignore_end_of_text": True}
# A text that would go on to the end of the context.
LONG = {"max_tokens": 10**6, "ignore_end_of_text": True}

model = cerebellum.Model(MODEL)


def run(source, *arguments):
    """Runs a program of Python; `source` finds the model in MODEL. It hears Ctrl-C, which a shell has ignored
    that runs the tests in the background."""
    preamble = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import cerebellum\nMODEL = {MODEL!r}\nmodel = cerebellum.Model(MODEL)\n"
    )
    command = [sys.executable, "-c", preamble + source, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, text=True)


def status_of(call):
    """The status of the Error that a call raises."""
    try:
        call()
    except cerebellum.Error as error:
        return error.status
    raise AssertionError("nothing was raised")


def until(condition, seconds=20):
    """Waits for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)
