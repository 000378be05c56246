"""A wheel of the checkout, installed in an environment of its own elsewhere, does what the README says."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest
from bad_input import write_images
from test_api_docs import BLOCKS, PER_CLASS
from test_house import ROOT, SOURCES

from store import __version__

NOT_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
SHORTER = {  # the demo has no options for it
    "SEEDS = (0, 1, 2)": "SEEDS = (0,)",
    "epochs=20": "epochs=1",
    "width=16": "width=4",
    "method=m": "method=m, iterations=64",
}
MADE = {"build", "dist"}  # by earlier builds: what is in them is put into a wheel
LIBRARIES = ("site-packages", "dist-packages")
FOUND = """
import json, sys
from importlib.metadata import distribution
ours = ("cli", "tailcache", "store", "extract", "finetune", "analysis")
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in ours]
installed = distribution("tailcache")
print(json.dumps([installed.version, str(installed.locate_file("")), files]))
"""


class Installed(NamedTuple):
    """An environment with the wheel in it: its folder, and where its packages lie."""

    folder: Path
    packages: Path

    def run(self, *command: str | Path, cwd: Path) -> str:
        """What a program of the environment prints; it must end well."""
        kept = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
        program = [str(self.folder / "bin" / command[0]), *map(str, command[1:])]
        done = subprocess.run(program, cwd=cwd, env=kept | ONE_THREAD, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of links to what the checkout holds, so that nothing is left there."""
    checkout, built = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for path in ROOT.iterdir():
        if not (path.name.startswith(".") or path.name in MADE or path.suffix == ".egg-info"):
            (checkout / path.name).symlink_to(path)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, checkout)
    (found,) = built.iterdir()
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment that sees the libraries of this one, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(folder, symlinks=True)
    pip("--python", folder, "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if Path(path).name in LIBRARIES]
    (packages / "libraries.pth").write_text("\n".join(libraries) + "\n")
    return Installed(folder, packages)


def test_a_wheel_holds_every_module_and_nothing_else(wheel):
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {str(path.relative_to(ROOT)) for path in SOURCES}


def test_the_examples_of_the_api_page_run_from_a_wheel(installed, tmp_path):
    write_images(tmp_path / "photos", PER_CLASS, splits=("train", "val", "test"))
    (tmp_path / "examples.py").write_text("\n".join([*BLOCKS, FOUND]))
    version, place, files = json.loads(installed.run("python", "examples.py", cwd=tmp_path).splitlines()[-1])
    assert (version, Path(place)) == (__version__, installed.packages)
    assert {"tailcache.py", "store/__init__.py", "finetune/sweep/sweep.py"} <= {
        str(Path(file).relative_to(installed.packages)) for file in files
    }


def test_the_demo_runs_from_a_wheel_in_a_folder_that_holds_a_store_of_the_users(installed, tmp_path):
    demo = installed.packages / "finetune" / "demo.py"
    code = demo.read_text()
    for full, short in SHORTER.items():
        assert code.count(full) == 1
        code = code.replace(full, short)
    demo.write_text(code)
    (tmp_path / "store.py").write_text("raise RuntimeError('run by mistake')")
    assert installed.run("tailcache", "--version", cwd=tmp_path) == f"tailcache, version {__version__}\n"
    told = installed.run("tailcache", "demo", "--device", "cpu", cwd=tmp_path)
    assert told.startswith("seed 0: train, extract, fsa, no-aug\ntest accuracy, %")
    for line in told.splitlines()[-8:]:
        assert (tmp_path / line.strip()).stat().st_size, line
