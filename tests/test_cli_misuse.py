"""Misuse of the command line, too little memory, signals, and output that is not a terminal."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bad_input import FOLDER, QUICK, TINY, refuse, run, succeed, write_images
from faults import ended, forked
from PIL import Image

from cli import main
from store.writer import StoreWriter

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fly"], ["No such command 'fly'", "--help"]),
        (["extract"], ["--ckpt names no checkpoint", "`train` wrote", "--classifier fit"]),
        (["finetune"], ["Missing option '--store'", "finetune --help"]),
        (["analyze"], ["Missing argument", "analyze --help"]),
        (["train", "--dataset", "mnist"], ["--dataset", "'mnist' is not one of", "'imagefolder'"]),
    ],
    ids=["command", "extract", "finetune", "analyze", "dataset"],
)
def test_usage_error_is_one_line(arguments: list[str], says: list[str]) -> None:
    refuse(*arguments, says=says)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes",
            ["out of memory", "lower what takes memory"],
        ),
        ("CUDA out of memory. Tried to allocate 99 GiB", ["out of memory", "lower what takes memory"]),
    ],
    ids=["cpu", "cuda"],
)
def test_memory_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, small_ckpt: Path, message: str, says: list[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr("extract.evaluate.predict", fail)
    refuse("evaluate", "--ckpt", small_ckpt, "--device", "cpu", says=says)


def test_a_bug_is_not_taken_for_bad_input(monkeypatch: pytest.MonkeyPatch, small_ckpt: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("extract.evaluate.predict", fail)
    assert isinstance(run("evaluate", "--ckpt", small_ckpt, "--device", "cpu").exception, RuntimeError)


def test_terminated_in_mid_extraction(small_ckpt: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cluster's scheduler sends SIGTERM: what was written stays, and can be resumed."""
    said = tmp_path_factory.mktemp("said") / "stderr"

    def terminated() -> None:
        StoreWriter.finish = lambda self: os.kill(os.getpid(), signal.SIGTERM)
        command = ["extract", "--ckpt", str(small_ckpt), "--store", "feats.zarr", "--device", "cpu"]
        with said.open("w") as sys.stderr:
            try:
                main(command, prog_name="tailcache")
            except SystemExit as left:
                sys.stderr.flush()
                os._exit(left.code)

    assert ended(*forked(terminated)) == 130
    assert said.read_text().startswith("tailcache: interrupted; continue with: tailcache extract --ckpt ")
    assert said.read_text().endswith(" --store feats.zarr --device cpu --resume\n")
    assert [path.name for path in Path().iterdir()] == ["feats.zarr.unfinished"]
    succeed("extract", "--ckpt", small_ckpt, "--store", "feats.zarr", "--device", "cpu", "--resume")
    assert [path.name for path in Path().iterdir()] == ["feats.zarr"]


def test_nothing_but_text_where_there_is_no_terminal(small_ckpt: Path, tmp_path: Path) -> None:
    """Even if the environment requests colours; and without warnings about harmless oddities."""
    root = write_images(tmp_path / "images", {"猫": 8, "$b$": 6, "c": 2})
    Image.new("P", (12, 12)).save(root / "train" / "c" / "palette.png", transparency=b"\0" * 256)
    commands = (
        ["train", *FOLDER, *TINY, "--root", root, "--out", "phase1", "--no-flip"],
        ["extract", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu"],
        ["finetune", "--store", "feats.zarr", "--out", "fsa", "--head-ratio", 0.4, *QUICK],
        ["analyze", "fsa"],
    )
    code = (
        "import json, sys, cli\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try:\n        cli.main(command)\n"
        "    except SystemExit as ended:\n        if ended.code: raise\n"
    )
    environment = os.environ | {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", code, json.dumps([list(map(str, command)) for command in commands])]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    # a note if there is no font for 猫, and on a slow machine one that matplotlib lists fonts
    told = ("characters that no installed font has", "building the font cache")
    spoken = [line for line in done.stderr.splitlines() if not any(part in line for part in told)]
    assert (done.returncode, spoken) == (0, [])
    assert Path("report", "confusion.png").exists()
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["finetune", "sweep", "contest", "extract", "predict", "train"])
def test_nothing_is_written_into_a_store(command, feature_store, small_ckpt, small_root):
    shutil.copytree(feature_store, "s.zarr")
    on = ["--device", "cpu"]
    inside = {
        "finetune": ["--store", feature_store, "--out", "s.zarr/runs/a", *on],
        "sweep": ["--store", feature_store, "--out", "s.zarr/sweep", "--grid", "lr=1,2", *on],
        "contest": ["--store", feature_store, "--out", "s.zarr/train", *on],
        "extract": ["--ckpt", small_ckpt, "--store", "s.zarr/other.zarr", *on],
        "predict": ["--ckpt", small_ckpt, small_root, "--out", "s.zarr/found.csv", *on],
        "train": ["--dataset", "digits", "--out", "s.zarr/phase1", *on],
    }[command]
    refuse(command, *inside, says=["lies within", "s.zarr, a zarr store, which must hold nothing else"])
