"""Puts the shared library into the package: the one that CEREBELLUM_LIBRARY names, or else one that is
built as packages are, by packaging/install.sh of the repository around this directory."""

import os
import shutil
import subprocess
import sys
import tempfile
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
LICENCES = ["LICENSE-APACHE", "LICENSE-MIT", "packaging/THIRD-PARTY.txt"]


def library(prefix):
    """The library, built in a directory `prefix` if it must be."""
    given = os.environ.get("CEREBELLUM_LIBRARY")
    if given:
        return Path(given)
    if not (REPOSITORY / "Cargo.toml").exists():
        raise SystemExit("not inside the cerebellum repository: set CEREBELLUM_LIBRARY to the library")
    if sys.platform == "win32":
        raise SystemExit("build the library with cargo, and set CEREBELLUM_LIBRARY to it")
    install = ["packaging/install.sh", "--with-chat", "--with-constraints", "--prefix", str(prefix)]
    subprocess.run(install, cwd=REPOSITORY, check=True)
    return prefix / "lib" / NAME


class Build(build_py):
    def run(self):
        super().run()
        package = Path(self.build_lib) / "cerebellum"
        with tempfile.TemporaryDirectory() as prefix:
            shutil.copy(library(Path(prefix)), package / NAME)
        for file in LICENCES:
            # Beside this directory, unless it was taken out of the repository.
            if (REPOSITORY / file).exists():
                (package / "licences").mkdir(exist_ok=True)
                shutil.copy(REPOSITORY / file, package / "licences")


class Wheel(bdist_wheel):
    """A wheel for this platform and any Python 3: the library does not know of Python."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


setup(cmdclass={"build_py": Build, "bdist_wheel": Wheel})
