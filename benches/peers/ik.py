"""ik_llama.cpp, through programs that the user has built: `llama-bench`, which measures, and `llama-quantize`.

Each turn is a process of its own, which opens the file, evaluates once without counting, and then once more.
"""

import json
import subprocess

# What is asked for: type of weights, and whether they are repacked for this processor when the file is opened.
# Q4_0 and Q4_K_M are llama.cpp's files; IQ4_KS is a type of ik_llama.cpp alone, with 4.25 bits.
SETTINGS = (("Q4_0", False), ("Q4_0", True), ("Q4_K_M", True), ("IQ4_KS", False))
OWN_TYPES = {"IQ4_KS"}


def name(kind, repack):
    return f"ik_llama.cpp {kind}{', repacked' if repack else ''}"


def quantize(programs, source, target, kind):
    print(f"making {target}", flush=True)
    part = target.with_suffix(".part")
    subprocess.run([programs / "llama-quantize", source, part, kind, "2"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part.rename(target)


class Worker:
    """As `worker.Worker`: subjects that are measured in turns."""

    def __init__(self, programs):
        self.programs, self.subjects = programs, []

    def ask(self, make=None, subject=None, work=None):
        if make:
            self.subjects.append(make)
            return {"subject": len(self.subjects) - 1}
        return self.seconds(self.subjects[subject], work)

    def seconds(self, settings, work):
        tokens = work["tokens"]
        if work["kind"] == "prompt":
            what = ["-p", tokens, "-n", 0]
        elif work["depth"]:
            what = ["-p", 0, "-n", 0, "-gp", f"{work['depth']},{tokens}"]
        else:
            what = ["-p", 0, "-n", tokens]
        cache = {"f16": "f16", "int8": "q8_0"}[settings["kv"]]
        command = [self.programs / "llama-bench", "-m", settings["file"], *what, "-r", 1,
                   "-t", settings["threads"], "-ctk", cache, "-ctv", cache, "-fa", 1,
                   "-rtr", int(settings["repack"]), "-ngl", 0, "-o", "json"]
        output = subprocess.run([str(part) for part in command], check=True, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        return tokens / json.loads(output)[-1]["avg_ts"]

    def close(self):
        pass
