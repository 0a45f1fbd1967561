"""The command `cerebellum`, a program that lies beside this file.

A package of its own, so that the command starts without the library that the module `cerebellum` loads."""

from __future__ import annotations

import os
import subprocess
import sys

_NAME = "cerebellum.exe" if sys.platform == "win32" else "cerebellum"


def main() -> None:
    """Runs the command with the arguments of this process, and takes its place."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), _NAME)
    if not os.path.exists(program):
        sys.exit(
            "cerebellum: the module was installed with CEREBELLUM_LIBRARY and without the command: install it "
            "with CEREBELLUM_COMMAND=PATH too, or by cargo install --path tools in the repository"
        )
    if sys.platform == "win32":  # has no exec that keeps the console
        sys.exit(subprocess.run([program, *sys.argv[1:]]).returncode)
    os.execv(program, ["cerebellum", *sys.argv[1:]])
