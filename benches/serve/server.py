"""Starts a server and looks at it from outside: its answers, its memory, what its standard error says."""

import http.client
import json
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server on a free port of this machine. `command` gets the port where it says PORT."""

    def __init__(self, command, wait=60.0):
        self.port = free_port()
        self.command = [part.replace("PORT", str(self.port)) for part in command]
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        end = time.monotonic() + wait
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{self.command[0]} did not start:\n{self.said()}")
            time.sleep(0.05)

    def is_ready(self):
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body, timeout=120.0):
        status, text = self.ask("POST", path, json.dumps(body), timeout)
        return status, json.loads(text)

    def ask(self, method, path, body=None, timeout=120.0):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"content-type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metrics(self):
        """The values of /metrics by their names, without the program's."""
        text = self.get("/metrics")[1]
        return {name: int(value) for name, value in re.findall(r"^cerebellum_(\w+) (\d+)$", text, re.M)}

    def memory(self):
        """Bytes: resident now, at most so far, and of what no file stands for."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return {name: int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1]) << 10
                for name in ("VmRSS", "VmHWM", "RssAnon")}

    def processor(self):
        """Seconds of the processors so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        """Asks it to end, and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
