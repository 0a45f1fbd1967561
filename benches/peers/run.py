#!/usr/bin/env python3
"""Measures this runtime beside llama.cpp and CTranslate2. See README.md beside this file.

    python3 benches/peers/run.py                      # everything, about two hours
    python3 benches/peers/run.py 111M-prompt-512-t2   # one figure or several, into the same record
    python3 benches/peers/run.py SmolLM2-135M         # all figures of a shape
    python3 benches/peers/run.py --list
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")

# llama.cpp is compiled here, for this processor or for one without AVX-512.
ENVIRONMENTS = {
    "native": "-DGGML_NATIVE=ON",
    "avx2": "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("figures", nargs="*", help="names, see --list, or shapes; default: all")
    parser.add_argument("--list", action="store_true", help="list the figures")
    parser.add_argument("--prepare", action="store_true", help="make environments and files only")
    parser.add_argument("--table", action="store_true", help="only write the record's table again")
    parser.add_argument("--rounds", type=int, default=7, help="turns; the median counts")
    parser.add_argument("--record", type=Path, help="JSON file to add the figures to")
    parser.add_argument("--ik", type=Path, metavar="DIRECTORY",
                        help="also measure ik_llama.cpp, whose llama-bench and llama-quantize are there")
    parser.add_argument("--home", type=Path, default=ROOT / "target/peers",
                        help="where environments and model files are kept (9 GB)")
    parser.add_argument("--target", type=Path, default=ROOT / "target/release",
                        help="where our library and programs were built")
    args = parser.parse_args()
    args.home = args.home.absolute()
    enter_environment(args.home)
    import record
    from figures import FirstToken, figures, first_tokens

    known = {figure.name: figure for figure in [*figures(), *first_tokens()]}
    if args.list:
        print("\n".join(known))
        return
    chosen = []
    for name in args.figures or known:
        of_shape = [figure.name for figure in known.values() if figure.shape == name]
        if not of_shape and name not in known:
            sys.exit(f"no figure or shape {name}; see --list")
        chosen += of_shape or [name]
    path = args.record or ROOT / "benches/record" / f"{time.strftime('%Y-%m-%d')}.json"
    bench = Bench(args.home, args.target.absolute(), args.rounds, args.ik and args.ik.absolute())
    for name in [] if args.table else chosen:
        figure = known[name]
        if args.prepare:
            bench.prepare(figure)
            continue
        is_start = isinstance(figure, FirstToken)
        result = bench.first_token(figure) if is_start else bench.speed(figure)
        command = f"python3 benches/peers/run.py {name} --rounds {args.rounds}"
        record.add(path, figure, result, bench.versions(), command)
        print(record.line(figure, result), flush=True)
    if path.exists():
        record.write_table(path)


def evict(file):
    """Drops a file from the page cache. One that was just written lies there in small pages."""
    if file.is_file():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def enter_environment(home):
    """Goes on in the virtual environment, which is made first if there is none."""
    python = environment(home, "native")
    if Path(sys.prefix) != python.parents[1]:
        os.execv(python, [python, *sys.argv])


def environment(home, name):
    """The Python with llama.cpp compiled by these options."""
    directory = home / f"venv-{name}"
    python = directory / "bin/python"
    if not (directory / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        options = {**os.environ, "CMAKE_ARGS": ENVIRONMENTS[name]}
        subprocess.run([python, "-m", "pip", "install", "--no-cache-dir", "--no-binary",
                        "llama-cpp-python", "-r", REQUIREMENTS], env=options, check=True)
        (directory / "complete").touch()
    return python


class Bench:
    """Measures figures."""

    def __init__(self, home, target, rounds, ik_programs=None):
        self.home, self.target, self.rounds, self.ik = home, target, rounds, ik_programs
        self.library = self.target / "libcerebellum.so"
        for path in [self.library, self.target / "cerebellum", self.target / "cerebellum-run"]:
            if not path.exists():
                sys.exit(f"{path} is missing: cargo build --release --workspace "
                         "--features cerebellum/capi")

    def files(self, shape):
        from shapes import Files

        models = self.home / "models"
        models.mkdir(parents=True, exist_ok=True)
        return Files(models, shape, self.target / "cerebellum")

    def prepare(self, figure):
        files = self.files(figure.shape)
        for weights in getattr(figure, "weights", ["int4"]):
            files.ours(weights)
        for kind, _ in figure.llama:
            files.llama(kind)
        if getattr(figure, "ctranslate2", False):
            files.ctranslate2()
        for kind, _ in self.ik_settings(figure):
            files.ik(kind, self.ik)
        environment(self.home, getattr(figure, "peers", "native"))

    def ik_settings(self, figure):
        """Those of ik_llama.cpp that take part."""
        import ik

        return ik.SETTINGS if self.ik and getattr(figure, "ik", False) else ()

    def subjects(self, figure):
        """Name, runtime and settings of everything that takes part."""
        files = self.files(figure.shape)
        common = {"threads": figure.threads, "kv": figure.kv, "context": figure.context}
        for weights in figure.weights:
            isa = {"isa": figure.isa} if figure.isa else {}
            yield f"cerebellum {weights}", "cerebellum", {
                "file": str(files.ours(weights)), **common, **isa}
        for kind, flash in figure.llama:
            yield f"llama.cpp {kind}{', flash attention' if flash else ''}", "llama.cpp", {
                "file": str(files.llama(kind)), **common, "flash": flash}
        for kind, repack in self.ik_settings(figure):
            import ik

            yield ik.name(kind, repack), "ik_llama.cpp", {
                "file": str(files.ik(kind, self.ik)), **common, "repack": repack}
        if figure.ctranslate2:
            yield "CTranslate2 int8", "ctranslate2", {
                "file": str(files.ctranslate2()), "threads": figure.threads}

    def speed(self, figure):
        """Tokens per second of all subjects, in turns, after one turn that is not counted."""
        subjects = list(self.subjects(figure))
        for _, _, settings in subjects:
            evict(Path(settings["file"]))
        python = environment(self.home, figure.peers)
        workers, made = {}, {}
        work = {"kind": figure.kind, "tokens": figure.tokens, "depth": figure.depth,
                "goes_on": figure.goes_on}
        try:
            for name, kind, settings in subjects:
                if kind not in workers:
                    workers[kind] = self.worker(kind, python)
                made[name] = workers[kind].ask(make=settings)
            kinds = {name: kind for name, kind, _ in subjects}
            samples = {name: [] for name in made}
            for turn in range(self.rounds + 1):
                for name, answer in made.items():
                    worker = workers[kinds[name]]
                    seconds = worker.ask(subject=answer["subject"], work=work)
                    if turn > 0:
                        samples[name].append(figure.tokens / seconds)
        finally:
            for worker in workers.values():
                worker.close()
        return {
            "tokens_per_second": {name: statistics.median(rates) for name, rates in samples.items()},
            "samples": samples,
            "settings": {name: {k: v for k, v in answer.items() if k != "subject"}
                         for name, answer in made.items()},
            "limit": self.limit(figure),
        }

    def limit(self, figure):
        """What `cerebellum bench` measures of the same work beside the machine's limits."""
        prompt = figure.tokens if figure.kind == "prompt" else 0
        decode = figure.tokens if figure.kind == "decode" else 0
        file = self.files(figure.shape).ours(figure.weights[0])
        command = [self.target / "cerebellum", "bench", "-m", file, "-p", str(prompt), "-n",
                   str(decode), "--depth", str(figure.depth), "--kv", figure.kv, "-t",
                   str(figure.threads), "-r", "3", "--json"]
        environment = {**os.environ, **({"CEREBELLUM_ISA": figure.isa} if figure.isa else {})}
        report = json.loads(subprocess.run(command, env=environment, check=True, text=True,
                                           stdout=subprocess.PIPE).stdout)
        result = report["results"][0]
        return {"machine": result["limits"], "result": result}

    def first_token(self, figure):
        from startup import measure_llama, measure_ours

        files = self.files(figure.shape)
        ours = files.ours("int4")
        results = {"cerebellum int4": measure_ours(
            self.target / "cerebellum-run", ours, figure, self.rounds)}
        for kind, flash in figure.llama:
            name = f"llama.cpp {kind}{', flash attention' if flash else ''}"
            results[name] = measure_llama(
                lambda: self.worker("llama.cpp", environment(self.home, "native")),
                files.llama(kind), flash, figure, self.rounds)
        return {"runtimes": results}

    def worker(self, kind, python):
        if kind == "ik_llama.cpp":
            import ik

            return ik.Worker(self.ik)
        from worker import Worker

        return Worker(kind, python, self.library)

    def versions(self):
        """Of the runtimes."""
        from importlib.metadata import version

        git = lambda *command: subprocess.run(
            ["git", *command], cwd=self.target, text=True, stdout=subprocess.PIPE).stdout.strip()
        return {
            "cerebellum": git("describe", "--always", "--dirty", "--exclude=*"),
            "llama-cpp-python": version("llama-cpp-python"),
            "ctranslate2": version("ctranslate2"),
        }


if __name__ == "__main__":
    main()
