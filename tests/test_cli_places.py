"""Paths with `~`, files that another program holds open, and progress bars that disappear when done."""

import errno
import io
import os
import re
import shutil
from pathlib import Path

import click
import h5py
import pytest
from bad_input import FOLDER, TINY, refuse, run, succeed
from faults import ended, forked
from made_store import make_store
from rich.console import Console
from test_store_locks import Gate

from cli import main
from finetune.commands import console
from finetune.commands.options import PLACE

pytestmark = pytest.mark.usefixtures("in_tmp_path")
NO_PLACES = {
    "device",
    "fuse_after",
    "arch",
    "arch_option",
    "path_column",
    "label_column",
    "split_column",
    "group_column",
    "group_regex",
    "mean",
    "std",
    "shot_rule",
    "grid",
    "methods",
    "part",
    "layers",
    "layer_dtype",
    "range",
}  # texts that are not paths


def texts(command: click.Command) -> list[click.Parameter]:
    kinds = (click.STRING, PLACE)
    return [p for p in command.params if p.type in kinds and p.name not in NO_PLACES]


def test_a_tilde_is_the_users_folder_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """For future options too: a text is a path, or is listed here as something else."""
    monkeypatch.setenv("HOME", "/home/me")
    commands = {**main.commands, **main.commands["store"].commands}
    commands.pop("store")
    found = 0
    for name, command in commands.items():
        for parameter in texts(command):
            context = click.Context(command)
            several = parameter.nargs == -1 or parameter.multiple
            value = ("~/x",) if several else "~/x"
            expected = ("/home/me/x",) if several else "/home/me/x"
            assert parameter.type_cast_value(context, value) == expected, f"{name} {parameter.name}"
            found += 1
    assert found > 15


@pytest.mark.parametrize("place", ["~/deep/run", "./~/run", "s3://bucket/~/x.zarr"])
def test_what_is_no_home_stays(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path("home").resolve()))
    expected = {"~/deep/run": str(Path("home/deep/run").resolve())}.get(place, place)
    assert PLACE.convert(place, None, None) == expected


def test_training_into_a_tilde_makes_no_folder_of_that_name(
    small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path("home").resolve()))
    shutil.copytree(small_root, "home/images")
    command = ["train", *FOLDER, *TINY, "--root=~/images", "--out=~/run"]
    succeed(*command)
    assert Path("home/run/checkpoint.pt").exists()
    assert [path.name for path in Path().iterdir()] == ["home"]
    refuse("evaluate", "--ckpt=~/none.pt", says=[Path("home/none.pt").resolve()])


@pytest.mark.parametrize("command", ["info", "verify", "convert", "finetune", "extract"])
def test_an_hdf5_store_that_is_open_elsewhere_is_told_as_such(
    command: str, small_ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    make_store(Path("s.h5"))
    gate = Gate()

    def hold() -> None:
        with h5py.File("s.h5", "a"):
            gate.wait()

    child = forked(hold)
    gate.reached()
    options = {
        "convert": ["s.h5", "t.zarr"],
        "finetune": ["--store", "s.h5"],
        "extract": ["--ckpt", small_ckpt, "--store", "s.h5", "--overwrite"],
    }
    group = ["store"] * (command in ("info", "verify", "convert"))
    says = ["s.h5: another program has this HDF5 file open for writing; close it there"]
    refuse(*group, command, *options.get(command, ["s.h5"]), says=says)
    gate.open()
    assert ended(*child) == 0
    assert run("store", "info", "s.h5").exit_code == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_an_hdf5_store_on_a_file_system_without_locks(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has it open, so the message does not say to close it."""
    make_store(Path("s.h5"))
    said = f"unable to lock file, errno = {number}, error message = '{os.strerror(number)}'"

    def refuse_to_lock(*_: object, **__: object) -> None:
        raise OSError(number, f"Unable to synchronously open file ({said})")

    monkeypatch.setattr(h5py, "File", refuse_to_lock)
    why = f"s.h5: its file system has no locks, which HDF5 asks for ({os.strerror(number)})"
    refuse("store", "info", "s.h5", says=[why, "set HDF5_USE_FILE_LOCKING=FALSE"])


def test_bars_are_gone_when_nothing_is_left_of_them() -> None:
    shown = Console(file=io.StringIO(), force_terminal=True, width=100)
    bars = console._Bars("{task.description}", console=shown)
    done, going, none = (bars.add_task(name, total=n) for name, n in (("done", 3), ("going", 3), ("none", 0)))
    bars.advance(done, 3)
    bars.advance(going, 2)
    bars.advance(none, 0)
    shown.print(bars.get_renderable())
    assert shown.file.getvalue().split() == ["going"]
    assert isinstance(console.progress_bar(), console._Bars)


def test_a_screen_of_80_columns_shows_bar_time_left_and_how_it_stands() -> None:
    shown = Console(file=io.StringIO(), width=80)
    bars = console.progress_bar()
    task = bars.add_task("training", total=30_000, status="")
    status = "epoch 20 of 300  loss 2.038  mixed train accuracy 26.6  101.5 s: 98.3 in steps, 0.1 waiting"
    bars.update(task, advance=2_000, status=status)
    shown.print(bars.get_renderable())
    first, *others = shown.file.getvalue().splitlines()
    assert re.match(r"training ━.* +2000/30000 -:--:--", first)
    assert " ".join(" ".join(others).split()) == " ".join(status.split())
