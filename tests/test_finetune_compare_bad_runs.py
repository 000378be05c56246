"""Runs that `analyze` refuses, and runs of one data set that are not seeds of one configuration."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
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
        (no_files, ["not a finished fine-tuning run", "config.json is missing", "written by `finetune`"]),
        (a_phase1_folder, ["not a finished fine-tuning run", "summary.json is missing", "`finetune`"]),
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


def edit(column: str, value: object, file: str = "predictions.csv") -> Callable[[Path], None]:
    """Damage that changes the value of one cell."""

    def damage(path: Path) -> None:
        frame = pd.read_csv(path / file)
        frame[column] = frame[column].astype(object)
        frame.loc[1, column] = value
        frame.to_csv(path / file, index=False)

    return damage


def cut_predictions(path: Path) -> None:
    pd.read_csv(path / "predictions.csv").head(100).to_csv(path / "predictions.csv", index=False)


def forget(*keys: str | int) -> Callable[[Path], None]:
    """Damage that removes one key, at any depth, from config.json."""

    def damage(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        part = config
        for key in keys[:-1]:
            part = part[key]
        del part[keys[-1]]
        (path / "config.json").write_text(json.dumps(config))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        *(
            edit(column, value)
            for column in ("label", "phase1", "prediction")
            for value in (-1, 99, 1.5, "x", None)
        ),
        *(edit("n_train", value, "per_class.csv") for value in (-3, 1.5, "x", None)),
        *(edit("iteration", value, "metrics.csv") for value in (0, "x", None)),
        edit("val_overall", "x", "metrics.csv"),
        cut_predictions,
        forget("method"),
        forget("tau_s"),
        forget("facts", "head_classes"),
        forget("provenance", "store", "checkpoint", "sha256"),
        forget("provenance", "store", "dataset", "imbalance_factor"),
        forget("provenance", "store", "network", "arch"),
        forget("provenance", "store", "training"),
        forget("provenance", "store", "config", "precision"),
    ],
)
def test_run_that_was_edited_is_refused(digits_run: Path, damage: Callable[[Path], None]) -> None:
    """None of these may get into a table."""
    shutil.copytree(digits_run, "fsa")
    damage(Path("fsa"))
    refuse("analyze", "fsa", says=[Path("fsa").resolve(), "is damaged", "run `finetune` again"])


def test_head_and_tail_are_the_first_runs(feature_store: Path, digits_run: Path) -> None:
    """Columns of a table are over the same classes, whatever each run's own head was."""
    out = ["--out", "half", "--head-ratio", 0.5]
    succeed("finetune", "--store", feature_store, "--method", "fsa", *out, *QUICK)
    comparison = json.loads(succeed("analyze", "half", digits_run, "--json").stdout)
    table = pd.read_csv("report/runs.csv").set_index("run")
    assert table["phase1_head"].nunique() == 1
    n_head = len(json.loads(Path("half/config.json").read_text())["facts"]["head_classes"])
    assert comparison["n_classes"]["head"] == n_head


def test_names_of_runs_that_are_not_utf8(digits_run: Path) -> None:
    shutil.copytree(digits_run, os.fsdecode(b"caf\xe9"))
    refuse("analyze", os.fsdecode(b"caf\xe9"), says=["caf\\xe9", "not UTF-8; rename it"])


def test_runs_of_different_data_sets(digits_run: Path, small_store: Path) -> None:
    succeed("finetune", "--store", small_store, "--method", "fsa", "--out", "small", *QUICK, *FEW_CLASSES)
    says = [Path("small").resolve(), "other classes", "or test images", digits_run, "one data set"]
    refuse("analyze", digits_run, "small", "--out", "report", says=says)


def test_runs_of_different_long_tails(digits_run: Path) -> None:
    """The same test images, but other training counts: Many and Few would be different classes."""
    shutil.copytree(digits_run, "other")
    frame = pd.read_csv("other/per_class.csv")
    frame.assign(n_train=frame["n_train"] + 1).to_csv("other/per_class.csv", index=False)
    refuse("analyze", digits_run, "other", says=["training counts", "one long tail at a time"])


def test_a_run_is_not_counted_twice(digits_run: Path) -> None:
    """A copy would count as a second seed, and halve the deviation."""
    shutil.copytree(digits_run, "copy")
    refuse("analyze", digits_run, "copy", says=[Path("copy").resolve(), "is the same run as", digits_run])
    succeed("analyze", digits_run, digits_run, "--out", "report")


@pytest.mark.parametrize("out", ["fsa", "feats.zarr"])
def test_analyze_writes_into_no_run_and_no_store(digits_run: Path, feature_store: Path, out: str) -> None:
    shutil.copytree(digits_run, "fsa")
    shutil.copytree(feature_store, "feats.zarr")
    refuse("analyze", "fsa", "--out", out, says=[f"{out}: is the folder of a", "use another --out"])


@pytest.mark.parametrize("out", ["/", "//", "root"])
def test_a_report_does_not_lie_in_the_root_of_the_file_system(digits_run: Path, out: str) -> None:
    Path("root").symlink_to("/")
    refuse("analyze", digits_run, "--out", out, says=[f"{Path(out)}: is the root of the file system; use a"])


@pytest.mark.parametrize("name", ["summary.csv", "confusion.png", "analysis.json"])
def test_analyze_replaces_no_files_of_others(digits_run: Path, name: str) -> None:
    Path("report").mkdir()
    Path("report", name).write_text("three years of work")
    says = [f"report/{name}: exists and was not written by `analyze`", "use another --out"]
    refuse("analyze", digits_run, "--out", "report", says=says)
    Path("report", name).rename("report/thesis.txt")
    for _ in range(2):  # it replaces its own files
        succeed("analyze", digits_run, "--out", "report")
    assert Path("report/thesis.txt").read_text() == "three years of work"


def test_phase_1_trained_otherwise_is_another_configuration(digits_run: Path) -> None:
    shutil.copytree(digits_run, "other")
    config = json.loads(Path("other/config.json").read_text())
    config["provenance"]["store"]["checkpoint"]["sha256"] = "0" * 64
    config["provenance"]["store"]["training"]["epochs"] = 30
    Path("other/config.json").write_text(json.dumps(config))
    table = succeed("analyze", digits_run, "other", "--out", "report").stdout
    for name in ("Phase I, phase1_epochs=2", "Phase I, phase1_epochs=30", "fsa, phase1_epochs=30"):
        assert name in table


def test_a_run_on_converted_features_is_another_configuration(digits_run: Path) -> None:
    shutil.copytree(digits_run, "other")
    config = json.loads(Path("other/config.json").read_text())
    config["provenance"]["store"]["converted"] = [{"dtype": "float16"}, {"dtype": "int8"}]
    Path("other/config.json").write_text(json.dumps(config))
    table = succeed("analyze", digits_run, "other", "--out", "report").stdout
    assert "fsa, extract_dtype=float32" in table
    assert "fsa, extract_dtype=int8" in table
    forget("provenance", "store", "converted", 0, "dtype")(Path("other"))
    refuse("analyze", "other", says=["is damaged", "converted lacks dtype"])


def test_class_names_that_look_like_something_else(tmp_path: Path) -> None:
    """With a class called 007 or None, runs are still of one data set."""
    root = write_images(tmp_path / "images", {"007": 8, "None": 6, "nan": 4})
    succeed("train", *FOLDER, *TINY, "--root", root, "--out", "phase1")
    succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--store", "feats.zarr", "--device", "cpu")
    for seed in (0, 1):
        succeed(
            "finetune",
            "--store",
            "feats.zarr",
            "--method",
            "fsa",
            "--out",
            f"run{seed}",
            "--seed",
            seed,
            *QUICK,
            *FEW_CLASSES,
        )
    succeed("analyze", "run0", "run1", "--out", "report")
    names = [line.split(",")[1] for line in Path("report/per_class.csv").read_text().splitlines()[1:]]
    assert names == ["007", "None", "nan"]
