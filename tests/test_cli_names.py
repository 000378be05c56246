"""Names of folders and files on a screen: one line each, with nothing that a terminal obeys."""

import shutil
from pathlib import Path

import pytest
from bad_input import FOLDER, TINY, refuse, succeed
from PIL import Image
from test_cli_odd_names import NFC, NFD, write_classes

from extract.proof.sample import Difference
from finetune.commands.console import fail, print_table, table
from store.names import composed, shown

pytestmark = [pytest.mark.figures, pytest.mark.usefixtures("in_tmp_path")]
RAW = "\x1b[31m\nred"  # an escape sequence, and a line break
SAID = r"\x1b[31m\nred"


def test_names_in_notes_and_refusals_are_on_one_line_and_move_no_terminal(caplog):
    root = write_classes(Path("images"), ["ape", RAW, "zebra"])
    shutil.rmtree(root / "test" / RAW)
    bad = root / "train" / "ape" / f"{RAW}.png"
    bad.write_bytes(b"damaged")
    command = ["train", *FOLDER, *TINY, "--image-size", 8, "--root", root, "--out", "phase1"]
    says = [rf"/train/ape/{SAID}.png': not a readable image"]
    refuse(*command, says=says)
    result = succeed(*command, "--skip-bad-images")
    assert f"note: left out because they are unreadable: 'train/ape/{SAID}.png'\n" in result.stderr
    assert f"note: 1 of 3 classes have no test images ('{SAID}'): " in result.stderr
    assert {c for c in result.output if not c.isprintable()} == {"\n"}
    image = root / "train" / RAW / f"{RAW}0.png"
    Image.new("RGB", (8, 8), "red").save(image)
    extract = ["extract", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu"]
    says = [f"/train/{SAID}/{SAID}0.png': holds another image than when the network was trained"]
    refuse(*extract, says=says)
    shutil.rmtree(root / "train" / RAW)
    (root / "train" / RAW).mkdir()
    (root / "train" / RAW / "bad.png").write_bytes(b"damaged")
    refuse(*command, "--skip-bad-images", "--overwrite", says=[f"/train/{SAID}': no readable image is left"])
    assert not [r for r in caplog.records if not r.getMessage().isprintable()]


def test_what_is_found_and_where_moves_no_terminal():
    """Results too: they name folders, and a differing row names its image."""
    root, here = write_classes(Path("images"), ["ape", RAW, "bee"]), f"{RAW}[bold]"
    out = {name: f"{here}/{name}" for name in ("phase1", "s.zarr", "t.h5", "run", "sweep", "report")}
    ckpt = ["--ckpt", f"{out['phase1']}/checkpoint.pt"]
    training = ["train", *FOLDER, *TINY, "--image-size", 8, "--root", root, "--out", out["phase1"]]
    of_store, ncm = ["--store", out["s.zarr"], "--device", "cpu"], ["--method", "ncm"]
    said = [
        succeed(*training),
        succeed("extract", *ckpt, *of_store, "--dtype", "float32"),
        succeed("evaluate", *ckpt, "--device", "cpu"),
        succeed("store", "info", out["s.zarr"]),
        succeed("store", "verify", out["s.zarr"], "--sample", 1, *ckpt),
        succeed("store", "convert", out["s.zarr"], out["t.h5"]),
        succeed("finetune", *of_store, *ncm, "--out", out["run"]),
        succeed("sweep", *of_store, *ncm, "--select-on", "test", "--out", out["sweep"]),
        succeed("analyze", out["run"], "--out", out["report"]),
    ]
    for result in said:
        assert {c for c in result.output if not c.isprintable()} == {"\n"}, result.output
    for name, result in zip(("phase1", "s.zarr"), said, strict=False):
        assert f"{SAID}[bold]/{name}" in result.stdout
    assert f"{SAID}[bold]/report" in said[-1].stdout
    command = said[-2].stdout.splitlines()[-1].strip()
    assert command.startswith("tailcache finetune --store $'")
    difference = str(Difference("train", 3, f"train/{RAW}/0.png", 0, "has no row"))
    assert difference == f"train: row 3, 'train/{SAID}/0.png': has no row"


def test_brackets_in_a_table_are_brackets(capsys):
    print_table(table(["a[b]"], [["[red]x[/red] [/]"]]))
    assert capsys.readouterr().out.split() == ["a[b]", "[red]x[/red]", "[/]"]


def test_what_is_printed_moves_no_terminal_whoever_says_it(capsys):
    """Names also come in messages of libraries and of the system."""
    with pytest.raises(SystemExit):
        fail(f"{RAW} é\udcff: damaged\nat 1")
    assert capsys.readouterr().err == "tailcache: \\x1b[31m red é\\udcff: damaged at 1\n"


def test_names_on_a_screen():
    assert [shown(name) for name in ("a b", "日本", "x\r", "\u200b")] == [
        "a b",
        "日本",
        r"'x\r'",
        r"'\u200b'",
    ]
    assert composed(NFD) == NFC
