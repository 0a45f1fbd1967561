"""Records under benches/record: a JSON file, and the same as tables in Markdown."""

import json
import platform
import time
from pathlib import Path

from figures import FirstToken, figures, first_tokens


def add(path, figure, result, versions, command):
    record = json.loads(path.read_text()) if path.exists() else {"figures": {}}
    record["machine"] = machine()
    record["figures"][figure.name] = {
        **result, "versions": versions, "command": command,
        "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def machine():
    """What the figures depend on."""
    def of(file, key):
        lines = Path(file).read_text().splitlines()
        values = [line.split(":", 1)[1].strip() for line in lines if line.startswith(key)]
        return values or ["unknown"]

    names, memory = of("/proc/cpuinfo", "model name"), of("/proc/meminfo", "MemTotal")
    family, model = of("/proc/cpuinfo", "cpu family")[0], of("/proc/cpuinfo", "model\t")[0]
    flags = of("/proc/cpuinfo", "flags")[0].split()
    wanted = ["avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]
    return {
        "processor": f"{names[0]} (family {family}, model {model})", "processors": len(names),
        "flags": [flag for flag in wanted if flag in flags], "memory": memory[0],
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
    }


def ratios(figure, result, peer="llama.cpp"):
    """Ours over a peer's best, and what we measured; `None` for what is not there."""
    rates = result["tokens_per_second"]
    ours = rates[f"cerebellum {figure.weights[0]}"]
    theirs = {name: rate for name, rate in rates.items() if name.startswith(f"{peer} ")}
    best = max(theirs, key=theirs.get) if theirs else None
    return ours, best, theirs.get(best), ours / theirs[best] if best else None


def line(figure, result):
    """What has just been measured, for the terminal."""
    if isinstance(figure, FirstToken):
        rows = [f"{name}: {r['seconds']:.3f} s, peak {mb(r['peak_bytes'])}"
                for name, r in result["runtimes"].items()]
        return f"{figure.name}: " + "; ".join(rows)
    ours, best, theirs, ratio = ratios(figure, result)
    text = f"{figure.name}: {ours:.1f}/s, {percent(fraction(result))} of the limit"
    if best:
        text += f"; {best} {theirs:.1f}/s; ratio {ratio:.2f}, aim {figure.aim or '-'}"
    _, best, theirs, ratio = ratios(figure, result, "ik_llama.cpp")
    if best:
        text += f"; {best} {theirs:.1f}/s; ratio {ratio:.2f}, aim {figure.ik_aim or '-'}"
    return text


def fraction(result):
    return result["limit"]["result"]["fraction_of_limit"]


def shares(result):
    """Of the machine's rates of reading memory and of multiplying integers, what the work reached."""
    machine, work = result["limit"]["machine"], result["limit"]["result"]
    memory = work["gb_per_second"] / machine["memory_gb_per_second"]
    most = machine["int8_gmac_per_second"]
    return memory, work["gmac_per_second"] / most if most else None


def percent(value):
    return "-" if value is None else f"{100 * value:.0f} %"


def mb(size):
    return f"{size / 1e6:.0f} MB"


def write_table(path):
    """PATH.md beside PATH.json."""
    record = json.loads(path.read_text())
    known = {figure.name: figure for figure in [*figures(), *first_tokens()]}
    measured = [(known[name], result) for name, result in record["figures"].items()
                if name in known]
    order = list(known.values()).index
    measured.sort(key=lambda pair: order(pair[0]))
    speeds = [pair for pair in measured if not isinstance(pair[0], FirstToken)]
    starts = [pair for pair in measured if isinstance(pair[0], FirstToken)]
    m = record["machine"]
    text = [
        f"# {path.stem}",
        f"{m['processor']}, {m['processors']} processors, {', '.join(m['flags'])}; {m['memory']};"
        f" {m['system']}; Python {m['python']}. Made by `python3 benches/peers/run.py`; samples,"
        f" versions, commands and limits of each figure are in [{path.name}]({path.name}). Versions:"
        f" {versions(record)}.",
        "Tokens per second, medians, measured in turns in one run. Ratio: ours to llama.cpp's best"
        " setting of those measured. Of the limit: the part of the time that reading the bytes or"
        " multiplying the integers would take at the machine's best, measured in the same run; in the"
        " next column its two parts, bytes read per second and integers multiplied per second, each"
        " beside the machine's best.",
    ]
    for threads in sorted({figure.threads for figure, _ in speeds}, reverse=True):
        rows = [speed_row(figure, result) for figure, result in speeds if figure.threads == threads]
        head = ["what", "ours", "llama.cpp, best", "ratio", "aim (stretch)",
                "ik_llama.cpp, best, ratio (aim)", "of the limit (aim)", "bytes, products", "others"]
        text += [f"## {threads} thread{'s' if threads > 1 else ''}", table(head, rows)]
    if starts:
        rows = [row for figure, result in starts for row in start_rows(figure, result)]
        head = ["shape, runtime", "file", "first token", "peak resident", "of it private",
                "file + plan", "plan"]
        text += ["## First token and memory", START_NOTE, table(head, rows)]
    path.with_suffix(".md").write_text("\n\n".join(text) + "\n")


START_NOTE = """\
Two threads. First token: from the start of `cerebellum-run` to the first of its output, prompt of 4
tokens, file in the page cache; for llama.cpp from loading the model in a process that has loaded the
library. Memory: after a context of 512 tokens has been filled."""


def versions(record):
    newest = max(record["figures"].values(), key=lambda result: result["time"])
    return ", ".join(f"{name} {version}" for name, version in newest["versions"].items())


def speed_row(figure, result):
    ours, best, theirs, ratio = ratios(figure, result)
    aim = f"{figure.aim or '-'}" + (f" ({figure.stretch})" if figure.stretch else "")
    limit = percent(fraction(result)) + (f" ({percent(figure.limit)})" if figure.limit else "")
    _, ik_best, ik_rate, ik_ratio = ratios(figure, result, "ik_llama.cpp")
    ik = (f"{ik_rate:.0f} ({ik_best.removeprefix('ik_llama.cpp ')}), {ik_ratio:.2f}"
          f" ({figure.ik_aim or '-'})" if ik_best else "-")
    named = {best, ik_best, f"cerebellum {figure.weights[0]}"}
    others = [f"{name} {rate:.0f}" for name, rate in result["tokens_per_second"].items()
              if name not in named]
    best = f"{theirs:.0f} ({best.removeprefix('llama.cpp ')})" if best else "-"
    return [figure.title, f"{ours:.0f}", best, f"{ratio:.2f}" if ratio else "-",
            aim if figure.aim or figure.stretch else "-", ik, limit,
            ", ".join(map(percent, shares(result))), "; ".join(others)]


def start_rows(figure, result):
    for name, r in result["runtimes"].items():
        plan = r.get("plan_bytes")
        aim = f" (aim {figure.aim_seconds} s)" if plan and figure.aim_seconds else ""
        yield [f"{figure.shape}, {name}", mb(r["file_bytes"]), f"{r['seconds']:.3f} s{aim}",
               mb(r["peak_bytes"]), mb(r["private_bytes"]),
               mb(r["file_bytes"] + plan) if plan else "-", mb(plan) if plan else "-"]


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
