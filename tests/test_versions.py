"""Which Pythons and versions the suite is run with: made-up Pythons on a made-up PATH, nothing installed."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PATHS = {  # what answers where, and with which version
    "bin/python3.11": (3, 11, 4),
    "bin/python3.12": None,  # a pyenv shim of a version that is not switched on, say
    "bin/python3.14": (3, 14, 0),
    "bin/python3-config": (3, 15, 0),
    "pyenv/versions/3.9.1/bin/python": (3, 9, 1),
    "pyenv/versions/3.11.9/bin/python": (3, 11, 9),
    "pyenv/versions/3.13.0/bin/python": (3, 13, 0),
}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs, `bin`, and one of pyenv's."""
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    program(tmp_path / "bin" / "make", f'echo "$@" >> {tmp_path}/asked')
    return tmp_path


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def add(machine: Path, *names: str) -> None:
    for name in names:
        lines = [*map(str, PATHS[name] or ()), str(machine / name)]
        program(machine / name, "\n".join(f"echo '{line}'" for line in lines) if PATHS[name] else "exit 127")


def ask(machine: Path, *command: str | Path) -> list[str]:
    given = {"PATH": str(machine / "bin"), "PYENV_ROOT": str(machine / "pyenv")}
    found = subprocess.run(list(map(str, command)), env=given, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def ask_versions(machine: Path, *arguments: str) -> list[str]:
    return ask(machine, sys.executable, ROOT / ".ci" / "versions.py", *arguments)


def test_every_python_is_tried_once_and_the_least_versions_with_the_oldest(machine):
    add(machine, *PATHS)
    lines = ask_versions(machine, "test", "--dry-run")
    pyenv = machine / "pyenv" / "versions"
    paths = {
        "3.11": pyenv / "3.11.9/bin/python",
        "3.13": pyenv / "3.13.0/bin/python",
        "3.14": machine / "bin/python3.14",
    }
    assert [line[line.index("make") :] for line in lines] == [
        *(f"make test PYTHON={path} VENV=.venvs/{name}" for name, path in paths.items()),
        f"make test PYTHON={paths['3.11']} VENV=.venvs/3.11-least",
    ]
    assert ["PIP_UPGRADE=1" in line for line in lines] == [True, True, True, False]
    assert lines[-1].startswith(f"PIP_CONSTRAINT={ROOT}/.venvs/least.txt make")


def test_without_the_python_that_least_versions_are_of_they_are_not_tried(machine):
    add(machine, "bin/python3.14")
    lines = ask_versions(machine, "test", "--dry-run")
    assert len(lines) == 1
    assert lines[0].endswith("VENV=.venvs/3.14")


def test_least_versions_are_those_of_setup_cfg(machine):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].split("\n")
    lines += [line for extra in setup["options.extras_require"].values() for line in extra.split("\n")]
    required = {r.name: r.specifier for r in map(Requirement, filter(None, lines)) if r.name != "tailcache"}
    least = dict(line.split("==") for line in ask_versions(machine, "least"))
    assert least.keys() == required.keys()
    assert {"torch", "zarr", "hypothesis", "ruff", "moto"} <= least.keys()
    for name, version in least.items():
        assert f">={version}" in str(required[name]).split(",")


@pytest.mark.parametrize("several", [True, False])
def test_ci_lints_then_tests_with_the_oldest_and_the_newest(machine, several):
    program(machine / "bin" / "python3", f'[ "$1" = -c ] && exit 1\nexec {sys.executable} "$@"')
    add(machine, *(PATHS if several else ["bin/python3.11"]))
    ask(machine, ROOT / ".ci" / "run")
    oldest = machine / ("pyenv/versions/3.11.9/bin/python" if several else "bin/python3.11")
    expected = [f"lint PYTHON={oldest}", f"test PYTHON={oldest}"]
    newest = [f"test PYTHON={machine}/bin/python3.14 VENV=.venvs/3.14"] if several else []
    assert (machine / "asked").read_text().splitlines() == expected + newest


def test_ci_script_may_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
