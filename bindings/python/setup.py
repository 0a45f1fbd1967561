"""Puts the shared library and the command into the package: those that CEREBELLUM_LIBRARY and
CEREBELLUM_COMMAND name, or else those of the repository around this directory, built as packages are."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    from wheel.bdist_wheel import bdist_wheel

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = {"darwin": "libcerebellum.dylib", "win32": "cerebellum.dll"}
NAME = NAMES.get(sys.platform, "libcerebellum.so")
COMMAND = "cerebellum.exe" if sys.platform == "win32" else "cerebellum"
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
    if not shutil.which("cargo"):
        raise SystemExit("cargo is missing: install Rust (https://rustup.rs), or take a wheel that is built")
    install = ["packaging/install.sh", "--with-chat", "--with-constraints", "--prefix", str(prefix)]
    # Here 0.7 MB are no price for a sixth of the time in which `bulk.Scorer` scores a corpus (docs/bulk.md).
    subprocess.run(install, cwd=REPOSITORY, check=True, env={**os.environ, "CARGO_PROFILE_DEVICE_OPT_LEVEL": "3"})
    return prefix / "lib" / NAME


def command():
    """The command, or None: who has a library that is built needs no Rust for the module alone."""
    given = os.environ.get("CEREBELLUM_COMMAND")
    if given:
        return Path(given)
    if os.environ.get("CEREBELLUM_LIBRARY"):
        return None
    build = ["cargo", "rustc", "--quiet", "--release", "--locked", "--package", "cerebellum-tools"]
    subprocess.run([*build, "--bin", "cerebellum", "--", "-C", "strip=symbols"], cwd=REPOSITORY, check=True)
    return Path(cargo("metadata", "--no-deps")["target_directory"]) / "release" / COMMAND


def cargo(*arguments):
    """What `cargo metadata` says."""
    call = ["cargo", *arguments, "--locked", "--format-version", "1"]
    return json.loads(subprocess.run(call, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout)


def notices():
    """The packages whose code is in the command, their licences, and the texts of these."""
    tree = ["cargo", "tree", "--locked", "--package", "cerebellum-tools", "--edges", "normal", "--prefix", "none"]
    lines = subprocess.run([*tree, "--format", "{p}"], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    names = {tuple(line.split()[:2]) for line in lines.stdout.splitlines() if line}
    packages, texts = [], {}
    for package in sorted(cargo("metadata")["packages"], key=lambda package: (package["name"], package["version"])):
        if package["source"] is None or (package["name"], "v" + package["version"]) not in names:
            continue
        found = Path(package["manifest_path"]).parent.glob("*")
        files = sorted(file for file in found if re.match("(?i)licen[cs]e|copying|notice|unlicense", file.name))
        numbers = [texts.setdefault(read(file), len(texts) + 1) for file in files if file.is_file()]
        where = ", ".join(map(str, numbers)) or "no text in the package, so LICENSE-MIT beside this file"
        head = f"{package['name']} {package['version']}: {package['license']}; {where}"
        packages.append(f"{head}\n  {package['repository'] or ''}\n")
    head = "The command cerebellum holds code of these packages. The numbers are those of the texts that follow.\n"
    bodies = [f"{'-' * 20} {number} {'-' * 20}\n\n{text}\n" for text, number in texts.items()]
    return "\n".join([head, *packages, *bodies])


def read(file):
    return file.read_text(encoding="utf-8", errors="replace").strip()


class Build(build_py):
    def run(self):
        super().run()
        package = Path(self.build_lib) / "cerebellum"
        with tempfile.TemporaryDirectory() as prefix:
            shutil.copy(library(Path(prefix)), package / NAME)
        licences = package / "licences"
        licences.mkdir(exist_ok=True)
        for file in LICENCES:
            # Beside this directory, unless it was taken out of the repository.
            if (REPOSITORY / file).exists():
                shutil.copy(REPOSITORY / file, licences)
        program = command()
        if program:
            target = Path(self.build_lib) / "cerebellum_command" / COMMAND
            shutil.copy(program, target)
            target.chmod(0o755)
            (licences / "THIRD-PARTY-COMMAND.txt").write_text(notices(), encoding="utf-8")


class Binary(Distribution):
    """What is only for this platform."""

    def has_ext_modules(self):
        return True


class Wheel(bdist_wheel):
    """A wheel for this platform and any Python 3: the library does not know of Python."""

    def get_tag(self):
        platform = super().get_tag()[2]
        return ("py3", "none", platform.replace("linux", newest_glibc(Path(self.bdist_dir)) or "linux", 1))


def newest_glibc(directory):
    """"manylinux_2_34" if the newest function of glibc that a file in the wheel asks for is of glibc 2.34. A name
    such as GLIBC_2.34 stands in the file for each version that it needs."""
    files = [file for file in directory.rglob("*") if file.name in (NAME, COMMAND) and file.is_file()]
    versions = [int(minor) for file in files for minor in re.findall(rb"GLIBC_2\.(\d+)", file.read_bytes())]
    return f"manylinux_2_{max(versions)}" if sys.platform == "linux" and versions else None


setup(distclass=Binary, cmdclass={"build_py": Build, "bdist_wheel": Wheel})
