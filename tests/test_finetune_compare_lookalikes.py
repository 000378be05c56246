"""Runs that look alike but are of different images: never seeds of one configuration."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_input import FEW_CLASSES, FOLDER, QUICK, TINY, refuse, succeed, write_images
from PIL import Image

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def make_run(name: str, root: Path, seed: int) -> None:
    """Run every phase on an image folder, into `name`."""
    succeed("train", *FOLDER, *TINY, "--root", root, "--out", f"{name}/phase1", "--seed", seed)
    store = f"{name}/feats.zarr"
    succeed("extract", "--ckpt", f"{name}/phase1/checkpoint.pt", "--store", store, "--device", "cpu")
    out = ["--out", f"{name}/run", "--seed", seed]
    succeed("finetune", "--store", store, "--method", "fsa", *out, *QUICK, *FEW_CLASSES)


def copy_of(run: Path, name: str, seed: int, **changes: Any) -> str:
    """A copy of a run as another seed, with its data set's description changed; None removes a key."""
    shutil.copytree(run, name)
    config = json.loads(Path(name, "config.json").read_text())
    dataset = config["provenance"]["store"]["dataset"]
    config["provenance"]["store"]["dataset"] = {
        k: v for k, v in (dataset | changes).items() if k not in changes or v is not None
    }
    Path(name, "config.json").write_text(json.dumps(config | {"seed": seed}))
    return name


@pytest.fixture(scope="module")
def first_run(tmp_path_factory) -> Path:
    """A run of Phase II on a folder of images with a validation split. Do not modify."""
    folder = tmp_path_factory.mktemp("first")
    write_images(folder / "images", splits=("train", "val", "test"))
    make_run(str(folder / "first"), folder / "images", seed=0)
    return folder / "first/run"


def other_pixels_under_other_names(root: Path) -> None:
    """Detected by a fingerprint of names and by one of content."""
    for path in root.glob("*/*/*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path.with_name(f"other{path.name}"))
        path.unlink()


def no_validation_split(root: Path) -> None:
    shutil.rmtree(root / "val")


@pytest.mark.parametrize("change", [other_pixels_under_other_names, no_validation_split])
def test_equal_names_and_counts_do_not_make_one_data_set(first_run, change):
    """A mean over two data sets would be of neither."""
    root = write_images(Path("images"), splits=("train", "val", "test"))
    change(root)
    make_run("second", root, seed=1)
    run, data = Path("second/run").resolve(), root.resolve()
    says = [
        f"{run}: is of the data set {data} (fingerprint ",
        f"{first_run} is of the data set ",
        "separately",
    ]
    line = refuse("analyze", first_run, "second/run", says=says)
    for path in (first_run, run):
        made = json.loads((path / "config.json").read_text())["provenance"]["store"]["dataset"]
        assert made["root"] in line
        assert f"(fingerprint {made['fingerprint'][:12]}…)" in line
    assert "mean" not in refuse("analyze", "second/run", first_run, says=["separately"])


@pytest.mark.parametrize("swapped", ["images of two splits", "labels of two images"])
def test_two_tables_of_one_shape_are_two_data_sets(swapped):
    """They list as many images of each class and split, below the same root."""
    root = write_images(Path("images"), splits=("train", "test"))
    rows = [
        [path.relative_to(root).as_posix(), path.parent.name, path.parts[1]]
        for path in sorted(root.rglob("*.png"))
    ]
    for name in ("one", "two"):
        lines = ["path,label,split", *(",".join(row) for row in rows)]
        Path(root, f"{name}.csv").write_text("\n".join(lines) + "\n")
        place = 1 if swapped == "labels of two images" else 2
        of_bee = "train/bee/0.png" if place == 1 else "test/ape/0.png"
        pair = [row for row in rows if row[0] in ("train/ape/0.png", of_bee)]
        pair[0][place], pair[1][place] = pair[1][place], pair[0][place]
    options = [*TINY, "--image-size", 16]
    for seed, name in enumerate(("one", "two")):
        succeed("train", "--train", root / f"{name}.csv", *options, "--out", f"{name}/phase1")
        store = ["--store", f"{name}/feats.zarr"]
        succeed("extract", "--ckpt", f"{name}/phase1/checkpoint.pt", *store, "--device", "cpu")
        succeed(
            "finetune",
            *store,
            "--method",
            "fsa",
            "--out",
            f"{name}/run",
            "--seed",
            seed,
            *QUICK,
            *FEW_CLASSES,
        )
    says = [f"is of the data set {root.resolve() / name}.csv (fingerprint " for name in ("one", "two")]
    refuse("analyze", "one/run", "two/run", says=[*says, "separately"])


def test_files_of_the_same_names_that_hold_other_images_are_another_data_set(first_run):
    root = write_images(Path("images"), splits=("train", "val", "test"))
    path = root / "train/ape/3.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    make_run("second", root, seed=1)
    run, data = Path("second/run").resolve(), root.resolve()
    says = [
        f"{run}: is of the data set {data}, and {first_run} of the data set ",
        "hold other images",
        "separately",
    ]
    refuse("analyze", first_run, "second/run", says=says)


def test_data_sets_without_a_folder_are_named_by_what_they_are(digits_run):
    copy_of(digits_run, "other", 1, fingerprint="0" * 64)
    refuse("analyze", digits_run, "other", says=["the data set digits (fingerprint 000000000000…)"])


def test_the_same_images_in_another_place_are_one_data_set(digits_run):
    copy_of(digits_run, "moved", 1, root="/mnt/elsewhere")
    result = succeed("analyze", digits_run, "moved")
    assert result.stderr == ""


@pytest.mark.parametrize(("option", "value"), [("flip", True), ("upright", False), ("white", {"16": 4095})])
def test_images_prepared_otherwise_are_another_configuration(digits_run, option, value):
    """The same images, mirrored in training or not: two configurations of Phase I, not two seeds of one."""
    shutil.copytree(digits_run, "other")
    config = json.loads(Path("other/config.json").read_text())
    assert config["provenance"]["store"]["transform"].get(option) != value
    config["provenance"]["store"]["transform"][option] = value
    config["provenance"]["store"]["checkpoint"]["sha256"] = "0" * 64
    Path("other/config.json").write_text(json.dumps(config | {"seed": 1}))
    table = succeed("analyze", digits_run, "other").stdout
    assert f"fsa, phase1_{option}={value}" in table
    assert "±" not in table.partition("mean ±")[0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_runs_that_do_not_say_of_which_images_are_taken_with_a_note(digits_run, order):
    """A run without recorded images does not connect two that have them."""
    runs = [
        copy_of(digits_run, "one", 0),
        copy_of(digits_run, "silent", 1, fingerprint=None),
        copy_of(digits_run, "two", 2, fingerprint="0" * 64),
    ]
    result = succeed("analyze", "one", "silent")
    (line,) = result.stderr.splitlines()
    assert f"note: {Path('silent').resolve()}: its store does not record its images" in line
    assert "fsa" in result.stdout
    assert succeed("analyze", "silent").stderr == ""  # nothing to compare it with
    shutil.rmtree("report")
    refuse("analyze", *(runs[i] for i in order), says=["is of the data set digits", "them separately"])


@pytest.mark.parametrize(("option", "value"), [("test_fraction", 0.3), ("val_fraction", 0.1)])
def test_images_held_out_by_another_fraction_are_another_configuration(digits_run, option, value):
    """Known from the description alone, where a run does not record its images."""
    copy_of(digits_run, "one", 0, fingerprint=None)
    copy_of(digits_run, "other", 1, fingerprint=None, **{option: value})
    assert f"fsa, {option}={value}" in succeed("analyze", "one", "other").stdout
