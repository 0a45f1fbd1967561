"""Puts the shared library into the package: the one that CEREBELLUM_LIBRARY names, or else one that
cargo builds from the repository around this directory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    from wheel.bdist_wheel import bdist_wheel

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = {"darwin": "libcerebellum.dylib", "win32": "cerebellum.dll"}
NAME = NAMES.get(sys.platform, "libcerebellum.so")


def library():
    given = os.environ.get("CEREBELLUM_LIBRARY")
    if given:
        return Path(given)
    if not (REPOSITORY / "Cargo.toml").exists():
        raise SystemExit("not inside the cerebellum repository: set CEREBELLUM_LIBRARY to the library")
    command = ["cargo", "rustc", "--lib", "--crate-type", "cdylib", "--profile", "device", "--locked"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return target / "device" / NAME


class Build(build_py):
    def run(self):
        super().run()
        shutil.copy(library(), Path(self.build_lib) / "cerebellum" / NAME)


class Wheel(bdist_wheel):
    """A wheel for this platform and any Python 3: the library does not know of Python."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


setup(cmdclass={"build_py": Build, "bdist_wheel": Wheel})
