"""Load on `cerebellum serve`, and on llama.cpp's llama-server beside it: tokens a second, time to the first token,
memory.

    python3 benches/serve/load.py --ours target/release/cerebellum smollm2-i4.cbl \\
        --llama llama-server smollm2-q4_0.gguf --out load.json

Each client sends a request, reads the stream to its end, and sends the next. A request is a completion of 64 tokens,
greedy, from a prompt of about 100 tokens, of which the first half is the same in all. No prompt comes twice. Both
servers get the same requests, as many texts at a time as there are clients (at most --most-parallel), and the same
threads; each level of clients starts a new server."""

import argparse
import asyncio
import json
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from server import Server

SHARED = (
    "You are the assistant of a small library in a town by the sea. Visitors ask you about books, opening hours and "
    "the garden behind the house. Answer in plain words, politely, in a few sentences, and say so if you do not know. "
)
WORDS = (
    "river lamp stone winter garden letter music ship island forest teacher bread mountain window story market "
    "horse bridge summer cloud doctor paper silver village road engine flower morning kitchen ocean"
).split()
TOKENS = 64
CONTEXT = 512


def prompt(rng):
    """About 50 tokens that are the same in all, and about as many that are not."""
    asked = " ".join(rng.choice(WORDS) for _ in range(36))
    return f"{SHARED}A visitor asks about {asked}. The assistant answers:"


async def complete(port, text):
    """Seconds until the first text and until the end, and the numbers of tokens: of the answer, and of the prompt."""
    body = json.dumps({
        "prompt": text, "max_tokens": TOKENS, "temperature": 0, "stream": True, "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }).encode()
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"{status!r} {await reader.read()!r}")
    first, usage = None, None
    async for line in reader:
        # Chunks of HTTP are whole events of both servers, so a line is a whole line.
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        if first is None:
            piece = json.loads(line[6:])
            if piece["choices"] and piece["choices"][0].get("text"):
                first = time.perf_counter()
        if b'"usage":{' in line:
            usage = json.loads(line[6:])["usage"]
    end = time.perf_counter()
    writer.close()
    if first is None or usage is None or usage["completion_tokens"] != TOKENS:
        raise RuntimeError(f"no whole answer: first {first}, usage {usage}")
    return first - start, end - start, usage["completion_tokens"], usage["prompt_tokens"]


async def clients(port, count, each, seed):
    async def client(number):
        rng = random.Random(f"{seed} {number}")
        return [await complete(port, prompt(rng)) for _ in range(each)]

    start = time.perf_counter()
    done = await asyncio.gather(*map(client, range(count)))
    return time.perf_counter() - start, [answer for answers in done for answer in answers]


def quantile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))]


def level(command, count, each, seed):
    server = Server(command)
    try:
        # The weights into memory, and what a server does once.
        asyncio.run(clients(server.port, 1, 1, "warm"))
        before = server.processor()
        seconds, answers = asyncio.run(clients(server.port, count, each, seed))
        first, whole, tokens, prompts = zip(*answers)
        memory = server.memory()
        return {
            "clients": count, "requests": len(answers), "seconds": seconds,
            "tokens_per_second": sum(tokens) / seconds,
            "first_token_p50": statistics.median(first), "first_token_p99": quantile(first, 0.99),
            "answer_p50": statistics.median(whole), "prompt_tokens": statistics.mean(prompts),
            "peak_resident": memory["VmHWM"], "private": memory["RssAnon"],
            "processor_seconds": server.processor() - before, "command": " ".join(server.command),
        }
    finally:
        server.stop()


def ours(program, model, parallel, threads):
    return [program, "serve", "-m", model, "--address", "127.0.0.1:PORT", "--context", str(CONTEXT), "--parallel",
            str(parallel), "--threads", str(threads), "--max-connections", "1024"]


def llama(program, model, parallel, threads):
    return [program, "-m", model, "--host", "127.0.0.1", "--port", "PORT", "-c", str(CONTEXT * parallel), "-np",
            str(parallel), "-t", str(threads), "-tb", str(threads), "-fa", "on", "-cb", "--no-webui"]


def version(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", nargs=2, action="append", default=[], metavar=("PROGRAM", "MODEL"))
    parser.add_argument("--llama", nargs=2, action="append", default=[], metavar=("PROGRAM", "MODEL"))
    parser.add_argument("--llama-more", default="", help="more options of llama-server, separated by spaces")
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--requests", type=int, default=128, help="at each level, but at least 2 of each client, "
                        "and at most 16")
    parser.add_argument("--most-parallel", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", default="load")
    parser.add_argument("--out", type=Path, help="also writes the figures as JSON")
    args = parser.parse_args()
    servers = [("cerebellum", program, model, ours, []) for program, model in args.ours]
    servers += [("llama-server", program, model, llama, args.llama_more.split()) for program, model in args.llama]
    if not servers:
        parser.error("give --ours or --llama")
    programs = {program: version([program, "--version"]) for _, program, *_ in servers}
    machine = {"system": platform.platform(), "python": platform.python_version()}
    found = []
    report = {"command": sys.argv, "programs": programs, "machine": machine, "levels": found}
    for count in map(int, args.clients.split(",")):
        for name, program, model, command, more in servers:
            each = min(16, max(2, args.requests // count))
            parallel = min(count, args.most_parallel)
            made = level(command(program, model, parallel, args.threads) + more, count, each, args.seed)
            made |= {"server": name, "model": Path(model).name}
            found.append(made)
            print("{server:13} {model:24} {clients:3} clients: {tokens_per_second:7.1f} tokens/s, first token p50 "
                  "{first_token_p50:.3f} s, p99 {first_token_p99:.3f} s, peak {mb:.0f} MB".format(
                      **made, mb=made["peak_resident"] / 1e6), flush=True)
            if args.out:
                args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
