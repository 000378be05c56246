"""Training uses the data that the options ask for: the source, the long tail, and no idle options."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import FOLDER, TINY, refuse, run, succeed, write_images

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.sources.registry import NOT_TAKEN, SOURCES
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
LONG_TAIL = {"ape": 5, "bee": 20, "cat": 9, "dog": 20}  # the largest are not the first


def notes_of(result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("tailcache: note: ")]


def change_description(path: Path, **changes: object) -> None:
    """Rewrite a checkpoint's description of the data; a field that is None is removed."""
    content = torch.load(path, weights_only=True)
    for of in (content["dataset"], content["config"]["dataset"]):
        of.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del of[name]
    torch.save(content, path)


def interrupt(command: list[object], patch: pytest.MonkeyPatch) -> None:
    """Leave a training interrupted in its first epoch."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with patch.context() as of_this:
        of_this.setattr("extract.train.take_step", interrupted)
        assert run(*command).exit_code == 130


# The source


def test_a_root_means_class_folders_and_no_root_digits(small_root):
    assert DatasetConfig(root="photos").resolved().dataset == "imagefolder"
    assert DatasetConfig().resolved().dataset == "digits"
    assert DatasetConfig("cifar10", "data").resolved().dataset == "cifar10"
    succeed("train", "--root", small_root, "--image-size", 16, *TINY, "--out", "phase1")
    checkpoint = load_checkpoint(Path("phase1/checkpoint.pt"))
    assert checkpoint.class_names == ["ape", "bee", "cat"]
    assert checkpoint.dataset["dataset"] == "imagefolder"
    assert json.loads(Path("phase1/config.json").read_text())["dataset"]["dataset"] == "imagefolder"


def test_a_plan_of_a_root_is_one_of_class_folders(small_root):
    options = ["--image-size", 16, *TINY[:4], "--device", "cpu", "--seconds", 0.01, "--json"]
    found = succeed("store", "plan", "--root", small_root, *options)
    assert json.loads(found.stdout)["n_classes"] == 3


def test_every_option_of_a_source_has_a_refusal_of_the_others():
    assert {name for source in SOURCES.values() for name in source.options} == NOT_TAKEN.keys()


@pytest.mark.parametrize("command", ["train", "store plan"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--dataset digits --root .", ["--root .: digits is embedded", "leave out --root"]),
        (
            "--download",
            ["--download: there is nothing to download for digits", "name --dataset cifar10 or cifar100"],
        ),
        ("--root . --download", ["--download: there is nothing to download for imagefolder"]),
        ("--skip-bad-images", ["--skip-bad-images: is for image files", "digits has none"]),
        ("--dataset cifar10 --root . --skip-bad-images", ["--skip-bad-images", "cifar10 has none"]),
    ],
)
def test_an_option_that_the_source_does_not_take(command, options, says):
    refuse(*command.split(), *options.split(), says=says)


@pytest.mark.parametrize("command", ["extract", "evaluate", "store plan"])
def test_digits_have_not_moved(command, phase1):
    says = [f"--root .: {phase1} was trained on digits", "leave it out"]
    refuse(*command.split(), "--ckpt", phase1, "--root", ".", says=says)


def test_options_without_a_use_that_version_0_1_took_are_read(monkeypatch):
    """Digits with a root, a download and a search for bad images."""
    interrupt(["train", *TINY, "--imbalance-factor", 70, "--out", "phase1"], monkeypatch)
    path = Path("phase1/checkpoint.pt")
    change_description(path, root="/tmp", download=True, skip_bad_images=True, tail_order=None)
    refuse("train", "--out", "phase1", "--resume", "--root", ".", says=["--root .: digits is embedded"])
    succeed("train", "--out", "phase1", "--resume")
    change_description(path, root="/tmp", download=True, skip_bad_images=True, tail_order=None)
    succeed("evaluate", "--ckpt", path, "--device", "cpu")


# The long tail of data that are long-tailed already


def test_a_long_tail_is_cut_in_the_order_of_frequency(tmp_path):
    root = write_images(tmp_path / "images", LONG_TAIL)
    command = ["train", *FOLDER, *TINY, "--root", root, "--imbalance-factor", 4, "--val-per-class", 1]
    result = succeed(*command, "--out", "phase1")
    counts = dict(
        zip(sorted(LONG_TAIL), load_checkpoint(Path("phase1/checkpoint.pt")).class_counts, strict=True)
    )
    assert counts == {"bee": 5, "dog": 3, "cat": 1, "ape": 1}
    (note,) = [line for line in notes_of(result) if "--imbalance-factor" in line]
    for fact in ("keeps 10 of 54 training images, and 4 for validation", "5 images down", "largest has 20"):
        assert fact in note
    found = succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu")
    assert not notes_of(found)
    assert np.bincount(FeatureStore(Path("feats.zarr")).read("train").label).tolist() == [1, 5, 1, 3]


def test_a_long_tail_that_version_0_1_cut_is_cut_the_same(tmp_path, monkeypatch):
    """By class index, in resumed training and in every later phase."""
    root = write_images(tmp_path / "images", LONG_TAIL)
    command = ["train", *FOLDER, *TINY, "--root", root, "--imbalance-factor", 4, "--epochs", 2]

    with monkeypatch.context() as patch:
        patch.setattr("extract.dataset.tail_order", lambda per_class: "class index")
        succeed(*command, "--out", "whole")
        interrupt([*command, "--out", "phase1"], patch)
    change_description(Path("phase1/checkpoint.pt"), tail_order=None)
    result = succeed("train", "--out", "phase1", "--resume")
    assert not [line for line in notes_of(result) if "--imbalance-factor" in line]
    resumed, whole = (load_checkpoint(Path(name) / "checkpoint.pt") for name in ("phase1", "whole"))
    assert resumed.class_counts == [5, 3, 1, 1]
    assert resumed.fingerprint == whole.fingerprint
    assert all(torch.equal(value, whole.state[name]) for name, value in resumed.state.items())
    change_description(Path("whole/checkpoint.pt"), tail_order=None)
    succeed("evaluate", "--ckpt", "whole/checkpoint.pt", "--split", "train", "--device", "cpu")


def test_a_balanced_source_is_cut_in_the_order_of_its_classes(small_root):
    """8, 6 and 4 images: at most twice, so the published protocol applies without a note."""
    result = succeed(
        "train", *FOLDER, *TINY, "--root", small_root, "--imbalance-factor", 2, "--out", "phase1"
    )
    assert load_checkpoint(Path("phase1/checkpoint.pt")).class_counts == [4, 2, 2]
    assert not [line for line in notes_of(result) if "--imbalance-factor" in line]


# Classes without held-out images


def test_classes_without_held_out_images_are_named_once(tmp_path):
    root = write_images(tmp_path / "images", {f"c{i}": 3 for i in range(8)}, splits=("train", "val", "test"))
    for i in range(1, 8):
        for image in (root / "test" / f"c{i}").iterdir():
            image.unlink()
        (root / "test" / f"c{i}").rmdir()
    for image in (root / "val/c0").iterdir():
        image.unlink()
    (root / "val/c0").rmdir()
    found = notes_of(succeed("train", *FOLDER, *TINY, "--root", root, "--out", "phase1"))
    assert [line for line in found if "no test images" in line] == [
        "tailcache: note: 7 of 8 classes have no test images (c1, c2, c3, c4, c5, …): accuracies on test say "
        "nothing about them"
    ]
    assert len([line for line in found if "1 of 8 classes have no val images (c0)" in line]) == 1
    assert not notes_of(succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu"))
