"""The test suite with every Python on this machine, and with the least versions that setup.cfg allows.

Usage: python .ci/versions.py test [--dry-run]   all of them, each in an environment of its own under .venvs/
       python .ci/versions.py ends               the oldest and the newest Python, a line each
       python .ci/versions.py least              the least versions, as constraints of pip

A Python counts if it is CPython, released, no older than setup.cfg says, and can make environments.
"""

import argparse
import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENVS = ".venvs"
ASK = """
import ensurepip, sys, sysconfig, venv
usable = sys.implementation.name == "cpython" and sys.version_info.releaselevel == "final"
if usable and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print(*sys.version_info[:3], sys.executable, sep="\\n")
"""
ENVIRONMENT = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
NAMED = re.compile(r"python3(\.\d+)?")
PACKAGES = ("torch", "numpy", "zarr", "h5py")  # told beside what was tried


class Python(NamedTuple):
    """A Python on this machine."""

    version: tuple[int, ...]
    path: str

    @property
    def name(self) -> str:
        """What its environment is called, 3.13 say."""
        return "{}.{}".format(*self.version)


class Trial(NamedTuple):
    """One run of the suite: its name, its Python, and what pip is to know besides."""

    name: str
    python: Python
    pip: "dict[str, str]"

    @property
    def command(self) -> "list[str]":
        """What `make test` is told."""
        return ["make", "test", f"PYTHON={self.python.path}", f"VENV={VENVS}/{self.name}"]


def metadata() -> configparser.ConfigParser:
    """setup.cfg."""
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg", encoding="utf-8")
    return read


def oldest_allowed() -> "tuple[int, ...]":
    """The version after >= in python_requires."""
    return tuple(map(int, re.findall(r"\d+", metadata()["options"]["python_requires"])))


def least_versions() -> "list[str]":
    """`name==version` for the `name>=version` of every requirement, of the tests' too."""
    options = metadata()
    lines = options["options"]["install_requires"].splitlines()
    for extra in options["options.extras_require"].values():
        lines += extra.splitlines()
    wanted = [line for line in map(str.strip, lines) if line and not line.startswith("tailcache")]
    found = [re.match(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", line) for line in wanted]
    if None in found:
        sys.exit(f"setup.cfg: no least version in {wanted[found.index(None)]!r}; expected name>=version")
    return sorted(f"{match[1]}=={match[2]}" for match in found)


def pythons() -> "list[Python]":
    """What is on PATH and among pyenv's versions, from the oldest; one of each minor version, the latest."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    named = [path for folder in folders for path in sorted(folder.glob("python3*"))]
    candidates = [path for path in named if NAMED.fullmatch(path.name)]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates += sorted(pyenv.glob("versions/3.*/bin/python"))
    best = {}
    for python in filter(None, map(answering, candidates)):
        held = best.get(python.name)
        if python.version >= oldest_allowed() and (held is None or python.version > held.version):
            best[python.name] = python
    return sorted(best.values())


def answering(path: Path) -> "Python | None":
    """The Python that a path leads to; None for one that does not answer or cannot make environments."""
    try:
        found = subprocess.run(
            [str(path), "-c", ASK], capture_output=True, text=True, timeout=60, env=clean_environment()
        )
        *version, executable = found.stdout.splitlines()
        return Python(tuple(map(int, version)), executable)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def clean_environment() -> "dict[str, str]":
    """This process's, without what would have one Python find another's packages."""
    return {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}


def trials() -> "list[Trial]":
    """The newest of everything with every Python, then the least versions with the oldest allowed."""
    newest = {"PIP_UPGRADE": "1", "PIP_UPGRADE_STRATEGY": "eager"}
    found = [Trial(python.name, python, newest) for python in pythons()]
    constraints = str(ROOT / VENVS / "least.txt")
    oldest = [trial.python for trial in found if trial.python.version[:2] == oldest_allowed()[:2]]
    return found + [Trial(f"{p.name}-least", p, {"PIP_CONSTRAINT": constraints}) for p in oldest]


def run(trial: Trial) -> bool:
    """Install anew what has changed, and run the suite; whether it passed."""
    venv = ROOT / VENVS / trial.name
    venv.mkdir(parents=True, exist_ok=True)
    (ROOT / VENVS / "least.txt").write_text("\n".join(least_versions()) + "\n")
    if (venv / ".installed").exists():
        (venv / ".installed").unlink()  # what is newest today may be another
    return subprocess.run(trial.command, cwd=ROOT, env=clean_environment() | trial.pip).returncode == 0


def versions_in(trial: Trial) -> str:
    """The packages that were tried, for whoever reads the last lines."""
    asked = f"from importlib.metadata import version\nfor name in {PACKAGES}: print(name, version(name))"
    python = ROOT / VENVS / trial.name / "bin" / "python"
    found = subprocess.run([str(python), "-c", asked], capture_output=True, text=True)
    return ", ".join(found.stdout.splitlines())


def test(dry_run: bool) -> int:
    """Run every trial, whether or not an earlier one failed; 1 if any did."""
    todo = trials()
    if not todo:
        sys.exit(f"no Python from {'.'.join(map(str, oldest_allowed()))} on that can make environments")
    if dry_run:
        for trial in todo:
            print(shlex.join([f"{name}={value}" for name, value in trial.pip.items()] + trial.command))
        return 0
    passed = {trial: run(trial) for trial in todo}
    for trial, good in passed.items():
        version = ".".join(map(str, trial.python.version))
        print(f"{'passed' if good else 'FAILED'}: {trial.name}, Python {version}, {versions_in(trial)}")
    if not todo[-1].name.endswith("-least"):
        print(
            "not tried: the least versions of setup.cfg, which are for Python {}.{}".format(*oldest_allowed())
        )
    return 0 if all(passed.values()) else 1


def main() -> int:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["test", "ends", "least"])
    parser.add_argument("--dry-run", action="store_true", help="print the commands of `test`, and run none")
    options = parser.parse_args()
    if options.what == "test":
        return test(options.dry_run)
    if options.what == "least":
        print("\n".join(least_versions()))
        return 0
    found = pythons()
    for python in found[:1] + found[1:][-1:]:
        print(python.name, python.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
