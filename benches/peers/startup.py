"""Time from the start of a process to its first token, and the memory that it takes."""

import json
import signal
import statistics
import subprocess
import time

from worker import proc_status, token_ids

THREADS = 2
# Tokens generated behind the prompt that fills the context, and how many of them are waited for.
LAST, WAITED = 64, 60


def measure_ours(program, file, figure, rounds):
    """Of `cerebellum-run`, everything included from the start of the process."""
    file.read_bytes()  # into the page cache
    runs = [run_ours(program, file, figure.prompt, 2, 1) for _ in range(rounds + 1)][1:]
    command = [program.with_name("cerebellum"), "plan", file, "--context", str(figure.context),
               "-t", str(THREADS), "--json"]
    plan = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    full = ["--context", str(figure.context)]
    full = run_ours(program, file, figure.context - LAST, LAST, WAITED, full)
    return {
        "file_bytes": file.stat().st_size,
        "plan_bytes": plan["total_private_bytes"],
        "seconds": statistics.median(run["seconds"] for run in runs),
        "samples": [run["seconds"] for run in runs],
        "peak_bytes": full["VmHWM"],
        "private_bytes": full["RssAnon"],
    }


def run_ours(program, file, prompt, generate, wait, options=()):
    """Holds the process when so many tokens have come, and looks at it."""
    tokens = ",".join(map(str, token_ids(prompt)))
    command = [program, file, "--tokens", tokens, "--ids", "-n", str(generate), "-t", str(THREADS)]
    start = time.perf_counter()
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        for _ in range(wait):
            assert process.stdout.readline(), f"{program} wrote too few tokens"
        seconds = time.perf_counter() - start
        process.send_signal(signal.SIGSTOP)
        status = proc_status(process.pid)
        process.kill()
    return {"seconds": seconds, **status}


def measure_llama(make_worker, file, flash, figure, rounds):
    """Of a process in which llama.cpp is loaded already, so without the start of Python, by which
    its memory is lessened too."""
    file.read_bytes()

    def run(prompt, context):
        settings = {"file": str(file), "threads": THREADS, "flash": flash, "context": context}
        worker = make_worker()
        try:
            return worker.ask(first_token={"settings": settings, "prompt": prompt})
        finally:
            worker.close()

    runs = [run(figure.prompt, 2048) for _ in range(min(rounds, 5))]
    full = run(figure.context, figure.context)
    return {
        "file_bytes": file.stat().st_size,
        "seconds": statistics.median(run["seconds"] for run in runs),
        "samples": [run["seconds"] for run in runs],
        "peak_bytes": full["VmHWM"],
        "private_bytes": full["RssAnon"],
    }
