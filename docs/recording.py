#!/usr/bin/env python3
"""Draws docs/recording.svg, the recording of a terminal that README.md shows: what the commands below print.

    cargo demo && python3 docs/recording.py

Each line appears at its time and stays; who prefers no motion sees all of them at once.
"""

import html
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "target/demo/cerebellum"
MODEL = "target/demo.cbl"
COMMANDS = [
    f"cerebellum generate -m {MODEL} -p 'Once upon a time there was a' -n 54 --temperature 0.6 --seed 1 -q",
    f"cerebellum classify -m {MODEL} -l alarm,timer,weather,greeting 'wake me up at six'",
    f"cerebellum translate -m {MODEL} 'Where is your brother? He is very old.'",
    f"cerebellum plan {MODEL} --context 512",
]
COLUMNS, LINE, FONT, MARGIN = 96, 19, 14, 16
# Seconds: for each character that is typed, between the command and what it prints, and after it.
TYPING, ANSWER, PAUSE = 0.03, 0.4, 1.2

STYLE = """
svg { font: %dpx ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
rect { fill: #16181d; } text { fill: #d7dae0; white-space: pre; } .typed { fill: #8fd18a; }
.line { animation: appear 0.01s both; } @keyframes appear { from { opacity: 0; } to { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { .line { animation: none; } }
""" % FONT


def main():
    if not PROGRAM.exists() or not (ROOT / MODEL).exists():
        sys.exit(f"{PROGRAM} or {MODEL} is missing: cargo demo")
    lines, now = [], 0.3
    for command in COMMANDS:
        typed = wrap(f"$ {command}")
        lines += [(now, "typed", line) for line in typed]
        now += TYPING * len(command) + ANSWER
        lines += [(now, "", line) for line in printed_by(command)] + [(now, "", "")]
        now += PAUSE
    (ROOT / "docs/recording.svg").write_text(drawing(lines[:-1]))


def printed_by(command):
    """The lines on standard output, cut to the columns of the terminal."""
    words = ["sh", "-c", command.replace("cerebellum", str(PROGRAM), 1)]
    output = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [part for line in output.rstrip().split("\n") for part in wrap(line.expandtabs(12)) or [""]]


def wrap(line):
    return textwrap.wrap(line, COLUMNS, subsequent_indent="", drop_whitespace=False)


def drawing(lines):
    width = round(COLUMNS * FONT * 0.602) + 2 * MARGIN
    height = len(lines) * LINE + 2 * MARGIN
    rows = [
        f'<text class="line {kind}" x="{MARGIN}" y="{MARGIN + FONT + row * LINE}"'
        f' style="animation-delay: {time:.2f}s">{html.escape(line)}</text>'
        for row, (time, kind, line) in enumerate(lines) if line
    ]
    title = "A terminal: the bundled model continues a story, classifies, translates, and states its memory"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        ' xml:space="preserve">',
        f"<title>{title}</title>", f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="8"/>', *rows, "</svg>", ""])


if __name__ == "__main__":
    main()
