"""Does to a server, for a long time, what bad clients and bad networks do, and says what it was left with.

    python3 benches/serve/soak.py target/release/cerebellum smollm2.cbl --seconds 1800

Some threads send requests to all paths, chosen at random: whole ones, ones that go away in the middle, ones that
read slowly or not at all, malformed ones, and what is no HTTP. It fails if an answer has a status that it should not
have, if an answer to a known request ever changes, if anything is left on its way in the end, if standard error has
more than the server says at its start, or if the resident memory of the last third is more than 5 MiB above that of
the third before. SERVE_SOAK_SECONDS sets the seconds."""

import argparse
import collections
import json
import os
import random
import socket
import sys
import threading
import time

from server import Server

MIB = 1 << 20
GROWTH = 5 * MIB
WORDS = "once upon a time there was a king who had a river and a small house by the sea".split()
KNOWN = {"prompt": "Once upon a time", "max_tokens": 12, "receipt": True}
# Besides a whole answer: none for a client that asks wrongly, too many, or too late.
CLEAN = {200, 400, 404, 405, 408, 413, 429, 431, 504}


def words(rng, most):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def good(rng):
    """A request that the server should do: path and body."""
    text = words(rng, rng.choice([5, 30, 120]))
    tokens = rng.randint(1, 40)
    stream = rng.random() < 0.5
    return rng.choice([
        ("/v1/completions", {"prompt": text, "max_tokens": tokens, "stream": stream}),
        ("/v1/completions", {"prompt": text, "max_tokens": tokens, "n": rng.randint(1, 3), "temperature": 0.8,
                             "seed": rng.randint(0, 99), "stream": stream}),
        ("/v1/completions", {"prompt": text, "max_tokens": 2, "echo": True, "logprobs": 2, "stream": stream}),
        ("/v1/completions", {"prompt": [text, words(rng, 9)], "max_tokens": tokens, "stop": [" the"]}),
        ("/v1/completions", {"prompt": text, "max_tokens": tokens, "choices": ["a king", "the sea"]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "max_tokens": tokens,
                                  "stream": stream, "logprobs": True, "top_logprobs": 2}),
        ("/v1/responses", {"input": text, "max_output_tokens": tokens, "stream": stream}),
        ("/v1/embeddings", {"input": [text, "sea"]}),
        ("/score", {"prompt": text, "continuations": [" the sea", " a king"]}),
        ("/classify", {"text": text, "labels": ["good", "bad"]}),
        ("/tokenize", {"text": text}),
        ("/detokenize", {"tokens": [rng.randint(0, 999) for _ in range(9)]}),
    ])


def bad_body(rng):
    """Bytes that are no request of any path."""
    whole = json.dumps(good(rng)[1]).encode()
    return rng.choice([
        b"", b"{", b"[]", b"null", whole[: rng.randrange(len(whole))], whole + b"}", rng.randbytes(200),
        b'{"prompt": "x", "no_such": 1}', b'{"prompt": {"a": 1}}', b'{"messages": [{"role": "king"}]}',
        b'{"prompt": "x", "max_tokens": -1}', b'{"prompt": "x", "n": 1e9}', b'{"input": ""}', b"[" * 100_000,
        b'{"prompt": "' + b"sea " * 50_000 + b'"}',
    ])


def no_http(rng):
    return rng.choice([
        rng.randbytes(300), b"GET / HTTP/9.9\r\n\r\n", b"GET /\r\n\r\n", b"\r\n" * 50,
        b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99999999999\r\n\r\n{}",
        b"POST /tokenize HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"y" * 40_000 + b"\r\n\r\n",
    ])


class Soak:
    def __init__(self, server, pause):
        self.server, self.pause = server, pause
        self.counts = collections.Counter()
        self.wrong = []
        self.end = threading.Event()
        self.known = self.say_known()

    def say_known(self):
        status, answer = self.server.post("/v1/completions", KNOWN)
        assert status == 200, answer
        choice = answer["choices"][0]
        return choice["text"], choice["receipt"]["logits"]

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=120)

    def send(self, connection, path, body):
        connection.sendall(
            b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            % (path.encode(), len(body)) + body
        )

    def read(self, connection, name):
        """An answer to its end; false if it is not as it should be."""
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
        status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
        self.counts[f"{name}: {status}"] += 1
        if status not in CLEAN or b"internal_error" in answer:
            self.wrong.append((name, answer[:300]))
        elif status >= 400 and b'{"error":{"message":"' not in answer and name != "no HTTP":
            self.wrong.append((name, answer[:300]))
        return status, answer

    def whole(self, rng):
        path, body = good(rng)
        with self.connect() as connection:
            self.send(connection, path, json.dumps(body).encode())
            status, answer = self.read(connection, path)
        if status not in (200, 429):
            self.wrong.append((path, body, answer[:400]))

    def same(self, _):
        try:
            if self.say_known() != self.known:
                self.wrong.append(("a known request has another answer",))
            self.counts["known request"] += 1
        except AssertionError as error:
            if "queue_full" not in str(error):
                raise

    def malformed(self, rng):
        path = rng.choice(["/v1/completions", "/v1/chat/completions", "/score", "/classify", "/v1/embeddings",
                           "/tokenize", "/nothing", "/v1/responses"])
        with self.connect() as connection:
            self.send(connection, path, bad_body(rng))
            self.read(connection, "malformed")

    def not_http(self, rng):
        with self.connect() as connection:
            try:
                connection.sendall(no_http(rng))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
            except OSError:
                # The server need not read all of it.
                pass
        self.counts["no HTTP"] += 1

    def leaves(self, rng):
        """Goes away before the request's end, before its answer, or within it."""
        path, body = good(rng)
        body = json.dumps(body | ({"max_tokens": 400, "stream": True} if path == "/v1/completions" else {})).encode()
        with self.connect() as connection:
            where = rng.randrange(4)
            if where == 0:
                head = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 500\r\n\r\n{"
                connection.sendall(head % path.encode())
            else:
                self.send(connection, path, body)
            if where >= 2:
                connection.recv(rng.randint(1, 2000))
            if where == 3:
                time.sleep(rng.random())
            if rng.random() < 0.5:
                # A reset instead of an orderly end.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.counts["left"] += 1

    def slow(self, rng):
        """Reads, or writes, a few bytes at a time."""
        body = {"prompt": words(rng, 20), "max_tokens": 100, "stream": True, "logprobs": 20, "ignore_eos": True}
        with self.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            request = json.dumps(body).encode()
            head = b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(request)
            for byte in head[:40]:
                connection.sendall(bytes([byte]))
                time.sleep(0.01)
            connection.sendall(head[40:] + request)
            for _ in range(rng.randint(5, 100)):
                if not connection.recv(512):
                    break
                time.sleep(0.05)
        self.counts["slow"] += 1

    def silent(self, rng):
        """Reads nothing at all, or sends nothing at all, for some time."""
        with self.connect() as connection:
            if rng.random() < 0.5:
                path, body = good(rng)
                self.send(connection, path, json.dumps(body).encode())
            self.end.wait(rng.uniform(1, 40))
        self.counts["silent"] += 1

    def others(self, rng):
        path = rng.choice(["/", "/health", "/metrics", "/openapi.json", "/v1/models", "/no", "/v1/completions"])
        status, _ = self.server.get(path)
        self.counts[f"GET {path}: {status}"] += 1
        if status not in (200, 404, 405):
            self.wrong.append(("GET", path, status))

    def client(self, seed):
        rng = random.Random(seed)
        kinds = [self.whole] * 6 + [self.malformed] * 3 + [self.leaves] * 4
        kinds += [self.not_http, self.slow, self.silent, self.others, self.same]
        while not self.end.is_set():
            kind = rng.choice(kinds)
            try:
                kind(rng)
            except (ConnectionError, TimeoutError) as error:
                # A reset while the server refuses what it has not read whole.
                self.counts[f"{kind.__name__}: {type(error).__name__}"] += 1
            except Exception as error:
                self.wrong.append((kind.__name__, repr(error)))
            self.end.wait(rng.expovariate(1 / self.pause))


def settle(server):
    """Waits until nothing is on its way, and returns what the server counts."""
    for _ in range(60):
        counts = server.metrics()
        # This question's own connection is one.
        if counts["texts_running"] == counts["texts_waiting"] == 0 and counts["connections"] <= 1:
            break
        time.sleep(1)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model", help="one with a chat template")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SERVE_SOAK_SECONDS", 1800)))
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--pause", type=float, default=0.5, help="mean seconds between a client's requests")
    parser.add_argument("--seed", default=str(time.time_ns()))
    args = parser.parse_args()
    # A small cache of prompts is full soon, so that memory has its plateau.
    server = Server([args.program, "serve", "-m", args.model, "--address", "127.0.0.1:PORT", "--context", "512",
                     "--parallel", "4", "--cache-mb", "24", "--queue", "16", "--max-connections", "64",
                     "--deadline", "60"])
    soak = Soak(server, args.pause)
    began = server.said()
    print(f"seed {args.seed}, {args.seconds:.0f} s", flush=True)
    threads = [threading.Thread(target=soak.client, args=(f"{args.seed} {i}",)) for i in range(args.clients)]
    for thread in threads:
        thread.start()
    start, resident, shown = time.monotonic(), [], 0.0
    while (at := time.monotonic() - start) < args.seconds and server.process.poll() is None:
        resident.append((at, server.memory()["RssAnon"]))
        if at >= shown:
            shown += 60
            done = sum(soak.counts.values())
            print(f"{at:5.0f} s: {done} requests, {len(soak.wrong)} wrong, {resident[-1][1] / MIB:.1f} MiB", flush=True)
        time.sleep(1)
    soak.end.set()
    for thread in threads:
        thread.join(150)
    wrong = soak.wrong
    if server.process.poll() is not None:
        wrong.append(("the server ended", server.process.returncode, server.said()))
    else:
        counts = settle(server)
        if counts["texts_running"] or counts["texts_waiting"] or counts["connections"] > 1:
            wrong.append(("something is left on its way", counts))
        if counts["requests_failed_total"]:
            # Of the statuses from 500 on only the deadline's is the client's own.
            print(f"{counts['requests_failed_total']} answers of status 5xx")
        if soak.say_known() != soak.known:
            wrong.append(("a known request has another answer in the end",))
        if (more := server.said()[len(began):]) != "":
            wrong.append(("standard error", more[:2000]))
        code = server.stop()
        if code != 0:
            wrong.append(("exit code", code, server.said()[-2000:]))
    third = args.seconds / 3
    before = max((size for at, size in resident if third <= at < 2 * third), default=0)
    after = max((size for at, size in resident if at >= 2 * third), default=0)
    print(f"private memory: at most {before / MIB:.1f} MiB in the second third, {after / MIB:.1f} MiB in the last")
    if after > before + GROWTH:
        wrong.append(("memory grows", before, after))
    for name, count in sorted(soak.counts.items()):
        print(f"{count:7} {name}")
    for what in wrong[:20]:
        print("WRONG", *what)
    print(f"{sum(soak.counts.values())} requests, {len(wrong)} wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
