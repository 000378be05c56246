"""Held-out splits of class folders: what their folders may be called, and fractions of every class."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bad_input import PER_CLASS, TINY, refuse, run, succeed, write_images

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.dataset import Dataset, list_dataset
from extract.sources.fractions import divide, places_of
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
PROGRAM_0_1 = Path(__file__).parent / "data" / "program_0_1"
SMALL = [*TINY, "--image-size", 16]
FRACTIONS = {"test_fraction": 0.2, "val_fraction": 0.1}
ASKED = ["--test-fraction", 0.2, "--val-fraction", 0.1]
CKPT = ["--ckpt", "phase1/checkpoint.pt", "--device", "cpu"]


@pytest.fixture
def photos(in_tmp_path: Path) -> Path:
    """Class folders directly below the root: 8, 6 and 4 images."""
    return write_images(Path(), PER_CLASS, ["photos"]) / "photos"


def names(dataset: Dataset, split: str) -> list[str]:
    return [name.decode() for name in dataset.splits[split].name]


def counts(path: str) -> dict[str, list[int]]:
    store = FeatureStore(Path(path))
    return {split: np.bincount(store.read(split).label, minlength=3).tolist() for split in store.splits}


def notes(result, about: str) -> list[str]:
    return [line for line in result.stderr.splitlines() if ": note: " in line and about in line]


# What folders are called


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Train", "valid", "TEST"), ("train", "Validation", "test"), ("TRAIN", "Val", "Test")],
)
def test_splits_are_found_under_other_names(train, val, test, quiet):
    root = write_images(Path("images"), PER_CLASS, [train, val, test])
    dataset = list_dataset(DatasetConfig(root="images"), quiet)
    assert {split: len(images) for split, images in dataset.splits.items()} == dict.fromkeys(
        ["train", "val", "test"], 18
    )
    for split, folder in (("train", train), ("val", val), ("test", test)):
        assert {name.split("/")[0] for name in names(dataset, split)} == {folder}, root


@pytest.mark.parametrize("pair", [("val", "valid"), ("train", "Train"), ("Test", "test")])
def test_two_folders_of_one_split_are_refused(pair):
    write_images(Path("images"), PER_CLASS, {"train", "test", *pair})
    first, second = sorted(pair)
    refuse("train", "--root", "images", *SMALL, says=[f"images: {first}/ and {second}/ both mean the "])


def test_without_test_images_those_for_validation_are_the_test_set():
    write_images(Path("images"), PER_CLASS, ["train", "val"])
    trained = succeed("train", "--root", "images", *SMALL, "--val-per-class", 1, "--out", "phase1")
    assert len(notes(trained, "images: has validation but no test images")) == 1
    assert "hold out images to validate on with --val-fraction or" in trained.stderr
    extracted = succeed("extract", *CKPT)
    assert not notes(extracted, "no test images")
    assert counts("feats.zarr") == {"train": [7, 5, 3], "val": [1, 1, 1], "test": [8, 6, 4]}
    succeed("evaluate", *CKPT, "--split", "val")


def test_a_checkpoint_of_version_0_1_does_not_use_a_folder_that_it_did_not_use(tmp_path):
    images = Path(shutil.copytree(PROGRAM_0_1 / "images", tmp_path / "images"))
    evaluate = ["evaluate", "--ckpt", PROGRAM_0_1 / "phase1/checkpoint.pt", "--root", images, "--json"]
    before = succeed(*evaluate, "--device", "cpu").stdout
    write_images(images, PER_CLASS, ["valid", "Train"])
    assert succeed(*evaluate, "--device", "cpu").stdout == before


# Fractions


def test_class_folders_without_splits_go_the_whole_way(photos):
    trained = succeed("train", "--root", "photos", *SMALL, *ASKED, "--out", "phase1")
    assert load_checkpoint(Path("phase1/checkpoint.pt")).class_names == list(PER_CLASS)
    succeed("extract", *CKPT)
    found = counts("feats.zarr")
    assert np.sum([*found.values()], axis=0).tolist() == list(PER_CLASS.values())
    assert all(n > 0 for of_split in found.values() for n in of_split)
    n_train, n_val, n_test = (sum(found[split]) for split in ("train", "val", "test"))
    (said,) = notes(trained, "--test-fraction 0.2 --val-fraction 0.1: ")
    assert f"{n_train} to train on, {n_val} for validation, {n_test} for testing" in said
    assert not notes(succeed("evaluate", *CKPT), "fraction")
    photos.rename("moved")
    refuse("evaluate", *CKPT, says=["photos: no such folder"])
    succeed("evaluate", *CKPT, "--root", "moved")
    succeed("extract", *CKPT, "--root", "moved", "--store", "again.zarr")
    assert counts("again.zarr") == found


def test_a_training_with_fractions_resumes(photos, monkeypatch, quiet):
    command = ["train", "--root", "photos", *SMALL, *ASKED]
    succeed(*command, "--out", "whole")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("extract.train.take_step", interrupted)
        assert run(*command, "--out", "phase1").exit_code == 130
    photos.rename("moved")
    refuse("train", "--resume", "--out", "phase1", "--test-fraction", 0.3, says=["test_fraction was 0.2"])
    succeed("train", "--resume", "--out", "phase1", "--root", "moved")
    resumed, whole = (load_checkpoint(Path(name) / "checkpoint.pt") for name in ("phase1", "whole"))
    assert resumed.fingerprint == whole.fingerprint
    for name, value in whole.state.items():
        assert value.equal(resumed.state[name]), name


def test_without_a_fraction_the_refusal_names_it(photos):
    says = ["photos: has no train/ folder (found ape, bee, cat)", "pass --test-fraction 0.2"]
    refuse("train", "--root", "photos", *SMALL, says=says)
    refuse("train", "--root", "photos", *SMALL, "--val-fraction", 0.1, says=says)
    says = ["has no test/ folder (found train)", "pass --test-fraction 0.2"]
    refuse("train", "--root", write_images(Path("one"), PER_CLASS, ["train"]), *SMALL, says=says)
    for split in ("dev", "val"):  # folders of splits are no classes
        write_images(Path(split), PER_CLASS, [split, "training"])
        refuse("train", "--root", split, *SMALL, *ASKED[:2], says=["has no train/ folder"])


def test_train_alone_is_divided(quiet):
    write_images(Path("images"), PER_CLASS, ["train"])
    dataset = list_dataset(DatasetConfig(root="images", test_fraction=0.25), quiet)
    assert list(dataset.splits) == ["train", "test"]
    everything = sorted(names(dataset, "train") + names(dataset, "test"))
    assert everything == sorted(p.relative_to("images").as_posix() for p in Path("images").rglob("*.png"))
    for split in dataset.splits.values():  # numbers and labels are those of the whole folder
        assert [everything[i].encode() for i in split.sample_index] == split.name.tolist()
        assert [list(PER_CLASS)[k] for k in split.label] == [n.decode().split("/")[1] for n in split.name]


def test_names_alone_decide(photos, quiet):
    many = {f"{k}/{i}.png".encode(): place for k in PER_CLASS for i in range(2000) for place in [None]}
    places = dict(zip(many, places_of(np.array([*many])), strict=True))
    values = np.array([*places.values()])
    assert 0 <= values.min() < 0.001 < 0.999 < values.max() < 1
    assert np.abs(np.histogram(values, 10, (0, 1))[0] / 600 - 1).max() < 0.2  # evenly
    in_other_form = places_of(np.array(["é/1.png".encode(), "e\u0301/1.png".encode()]))
    assert in_other_form[0] == in_other_form[1]
    assert places_of(np.array([b"ape/0.png"]))[0] == pytest.approx(0.31081, abs=1e-5)  # on every machine

    of_ape = np.array([place for name, place in places.items() if name.startswith(b"ape/")])
    for n in (40, 1999):  # one more image moves no other, and a larger fraction takes the same and more
        fewer, more = (divide(of_ape[:m], {"test": 0.2, "val": 0.1}) for m in (n, n + 1))
        for split in fewer:
            assert set(more[split]) - {n} == set(fewer[split])
        assert set(fewer["test"]) == set(np.flatnonzero(of_ape[:n] < 0.2))
        assert set(fewer["test"]) < set(divide(of_ape[:n], {"test": 0.3})["test"])


@pytest.mark.parametrize(
    "places", [[0.1, 0.11, 0.12], [0.97, 0.98, 0.99], [0.15, 0.9, 0.95], [0.25, 0.26, 0.27]]
)
def test_every_split_has_an_image_of_every_class(places):
    for rest in ([], [0.5] * 3, [0.01] * 3):
        parts = divide(np.array(places + rest), {"test": 0.2, "val": 0.1})
        assert all(len(index) for index in parts.values())
        assert sorted(np.concatenate([*parts.values()])) == list(range(3 + len(rest)))
        assert max(np.array(places + rest)[parts["test"]]) <= min(np.array(places + rest)[parts["val"]])


def test_the_long_tail_is_cut_after_the_split(quiet):
    write_images(Path(), {"a": 30, "b": 30, "c": 30}, ["photos"])
    described = DatasetConfig(root="photos", **FRACTIONS)
    whole, tailed = (list_dataset(replace(described, imbalance_factor=factor), quiet) for factor in (None, 5))
    assert names(tailed, "test") == names(whole, "test")
    assert names(tailed, "val") == names(whole, "val")
    smallest = int(whole.class_counts.min())
    assert tailed.class_counts[[0, 2]].tolist() == [smallest, smallest // 5]
    assert set(names(tailed, "train")) < set(names(whole, "train"))
    fingerprints = {
        list_dataset(replace(described, **other), quiet).fingerprint
        for other in ({}, {"test_fraction": 0.4}, {"val_fraction": 0.5}, {"val_fraction": None})
    }
    assert len(fingerprints) == 4


def test_bad_images_are_left_out_before_the_split_and_may_be_deleted(photos):
    for name in ("ape/0.png", "bee/x.png", "cat/3.png"):
        (photos / name).write_bytes(b"no image")
    succeed("train", "--root", "photos", *SMALL, *ASKED, "--skip-bad-images", "--out", "phase1")
    succeed("extract", *CKPT, "--store", "0.zarr")
    assert np.sum([*counts("0.zarr").values()], axis=0).tolist() == [7, 6, 3]
    for name in ("ape/0.png", "bee/x.png", "cat/3.png"):
        (photos / name).unlink()
    succeed("extract", *CKPT, "--store", "1.zarr")
    old, new = FeatureStore(Path("0.zarr")), FeatureStore(Path("1.zarr"))
    for split in ("train", "val", "test"):
        assert old.read(split).sample_index.tolist() == new.read(split).sample_index.tolist()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--test-fraction", 1], ["--test-fraction 1: must be between 0 and 1"]),
        (["--test-fraction", 0], ["--test-fraction 0: must be between 0 and 1"]),
        (["--test-fraction", "nan"], ["--test-fraction nan: must be between 0 and 1"]),
        (["--test-fraction", 0.5, "--val-fraction", 0.5], ["leave nothing for training"]),
        ([*ASKED, "--val-per-class", 1], ["--val-per-class 1", "both hold out validation images"]),
        ([*ASKED, "--imbalance-factor", 9], ["--imbalance-factor 9"]),
    ],
)
def test_numbers_that_cannot_be(photos, options, says):
    refuse("train", "--root", "photos", *SMALL, *options, says=says)


def test_a_class_with_too_few_images_is_named(photos):
    write_images(Path(), {"two": 2}, ["photos"])
    says = ["class two has 2 images, but needs one for training and one for test and one for val"]
    refuse("train", "--root", "photos", *SMALL, *ASKED, says=says)
    refuse("train", "--root", "photos", *SMALL, *ASKED, "--skip-bad-images", says=says)
    succeed("train", "--root", "photos", *SMALL, *ASKED[:2], "--out", "phase1")


def test_a_fraction_of_a_split_that_exists_is_refused(small_root):
    says = ["--test-fraction 0.2: ", "has a test split", "leave the option out"]
    refuse("train", "--root", small_root, *SMALL, *ASKED, says=says)
    write_images(Path("images"), PER_CLASS, ["train", "valid", "test"])
    refuse("train", "--root", "images", *SMALL, *ASKED[2:], says=["--val-fraction 0.1: ", "has a val split"])
    refuse("train", "--root", "images", *SMALL, "--val-per-class", 1, says=["images/valid: exists"])
    for dataset in ("digits", "cifar10"):
        root = [] if dataset == "digits" else ["--root", "."]
        refuse(
            "train", "--dataset", dataset, *root, *ASKED[2:], says=["--val-fraction 0.1: is for image files"]
        )


def test_val_stays_val_if_a_fraction_is_for_testing(quiet):
    write_images(Path("images"), PER_CLASS, ["train", "val"])
    dataset = list_dataset(DatasetConfig(root="images", test_fraction=0.2), quiet)
    assert {name.split("/")[0] for name in names(dataset, "val")} == {"val"}
    assert {name.split("/")[0] for name in names(dataset, "test")} == {"train"}
