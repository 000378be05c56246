"""Runs that analyze refuses, and misuse of the command line itself."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_input import FEW_CLASSES, FOLDER, QUICK, TINY, refuse, succeed, write_images

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def no_run(path: Path) -> None:
    shutil.rmtree(path)


def no_files(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def a_phase1_folder(path: Path) -> None:
    (path / "summary.json").unlink()
    (path / "predictions.csv").unlink()


def damaged_summary(path: Path) -> None:
    (path / "summary.json").write_text((path / "summary.json").read_text()[:40])


def binary_summary(path: Path) -> None:
    (path / "summary.json").write_bytes(b"\xff\xfe\x00binary")


def empty_metrics(path: Path) -> None:
    (path / "metrics.csv").write_text("")


def foreign_config(path: Path) -> None:
    (path / "config.json").write_text('{"learning_rate": 1}')


def foreign_predictions(path: Path) -> None:
    (path / "predictions.csv").write_text("image,guess\na.png,3\n")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_run, ["no such run folder", "`finetune --out", "makes one"]),
        (no_files, ["not a finished fine-tuning run", "lacks config.json", "written by `finetune`"]),
        (a_phase1_folder, ["not a finished fine-tuning run", "lacks summary.json", "`finetune`"]),
        (damaged_summary, ["a file of this run is damaged", "run `finetune` again"]),
        (binary_summary, ["a file of this run is damaged", "run `finetune` again"]),
        (empty_metrics, ["a file of this run is damaged", "run `finetune` again"]),
        (foreign_config, ["a file of this run is damaged", "run `finetune` again"]),
        (foreign_predictions, ["a file of this run is damaged", "run `finetune` again"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_run_is_refused(digits_run: Path, damage: Callable[[Path], None], says: list[str]) -> None:
    shutil.copytree(digits_run, "fsa")
    damage(Path("fsa"))
    refuse("analyze", digits_run, "fsa", "--out", "report", says=[Path("fsa").resolve(), *says])


def test_runs_of_different_data_sets(digits_run: Path, small_store: Path) -> None:
    succeed("finetune", "--store", small_store, "--out", "small", *QUICK, *FEW_CLASSES)
    says = [Path("small").resolve(), "other classes or test images", digits_run, "one data set at a time"]
    refuse("analyze", digits_run, "small", "--out", "report", says=says)


def test_class_names_that_look_like_something_else(tmp_path: Path) -> None:
    """A class may be called 007 or None; its runs are still of one data set."""
    root = write_images(tmp_path / "images", {"007": 8, "None": 6, "nan": 4})
    succeed("train", *FOLDER, *TINY, "--root", root, "--out", "phase1")
    succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--store", "feats.zarr", "--device", "cpu")
    for seed in (0, 1):
        succeed(
            "finetune", "--store", "feats.zarr", "--out", f"run{seed}", "--seed", seed, *QUICK, *FEW_CLASSES
        )
    succeed("analyze", "run0", "run1", "--out", "report")
    names = [line.split(",")[1] for line in Path("report/per_class.csv").read_text().splitlines()[1:]]
    assert names == ["007", "None", "nan"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fly"], ["No such command 'fly'", "--help"]),
        (["extract"], ["Missing option '--ckpt'", "extract --help"]),
        (["finetune"], ["Missing option '--store'", "finetune --help"]),
        (["analyze"], ["Missing argument", "analyze --help"]),
        (["train", "--dataset", "mnist"], ["--dataset", "'mnist' is not one of", "'imagefolder'"]),
    ],
    ids=["command", "extract", "finetune", "analyze", "dataset"],
)
def test_usage_error_is_one_line(arguments: list[str], says: list[str]) -> None:
    refuse(*arguments, says=says)
