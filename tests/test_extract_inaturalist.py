"""iNaturalist's annotations, of 2017 (names of categories inside) and of 2018 (names in a file beside)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_input import TINY, refuse, succeed
from PIL import Image

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.dataset import Dataset, list_dataset

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SMALL = [*TINY, "--image-size", 16]
NAMES = ["Danaus plexippus", "Abies alba", "Bufo bufo"]  # not in the order of the alphabet
PER_CLASS = {"train": [5, 4, 3], "val": [2, 2, 2]}


def made(split: str, names: bool) -> dict[str, Any]:
    """A file of annotations as published, with ids of images that are no positions, and its images."""
    images, annotations = [], []
    for category, n in enumerate(PER_CLASS[split]):
        for i in range(n):
            name = f"train_val/Animalia/{category}/{split}{i}.jpg"
            path = Path("inat", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(len(images)).integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(path)
            image_id = 7000 + 13 * len(images)
            images.append(
                {
                    "id": image_id,
                    "file_name": name,
                    "width": 12,
                    "height": 12,
                    "license": 0,
                    "rights_holder": "x",
                }
            )
            annotations.append({"id": image_id, "image_id": image_id, "category_id": category})
    rng = np.random.default_rng(0)
    content = {
        "info": {"year": 2017, "version": 1},
        "images": [images[i] for i in rng.permutation(len(images))],
        "licenses": [],
        "annotations": [annotations[i] for i in rng.permutation(len(images))],
    }
    if names:
        content["categories"] = [
            {"id": k, "name": name, "supercategory": "Animalia"} for k, name in reversed([*enumerate(NAMES)])
        ]
    return content


@pytest.fixture
def files(in_tmp_path: Path) -> dict[str, Any]:
    contents = {split: made(split, names=True) for split in PER_CLASS}
    for split, content in contents.items():
        Path("inat", f"{split}2017.json").write_text(json.dumps(content))
    return contents


TRAIN = ["train", "--train", "inat/train2017.json", "--val", "inat/val2017.json", *SMALL]


def listed(quiet, year: int, **options: object) -> Dataset:
    files = {split: f"inat/{split}{year}.json" for split in PER_CLASS}
    return list_dataset(DatasetConfig(**files | options), quiet)


def classes_by_path(dataset: Dataset, split: str) -> dict[str, str]:
    images = dataset.splits[split]
    return {n.decode(): dataset.class_names[k] for n, k in zip(images.name, images.label, strict=True)}


def test_that_of_2017_goes_the_whole_way(files):
    trained = succeed(*TRAIN, "--out", "phase1")
    assert (
        "inat/train2017.json: has validation but no test images, so the former are the test set"
        in trained.stderr
    )
    assert "column" not in trained.stderr
    checkpoint = load_checkpoint(Path("phase1/checkpoint.pt"))
    assert checkpoint.class_names == NAMES
    assert checkpoint.class_counts == PER_CLASS["train"]
    Path("inat").rename("moved")
    extracted = succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--root", "moved", "--device", "cpu")
    assert "feats.zarr/test: pooled features (N, C) (6, " in extracted.stdout


def test_every_image_has_the_category_of_its_annotation(files, quiet):
    dataset = listed(quiet, 2017)
    for split, content in ({"train": files["train"], "test": files["val"]}).items():
        file_name = {image["id"]: image["file_name"] for image in content["images"]}
        expected = {file_name[a["image_id"]]: NAMES[a["category_id"]] for a in content["annotations"]}
        assert classes_by_path(dataset, split) == expected


def test_names_of_2018_are_in_a_file_beside(files, quiet, caplog):
    for split in PER_CLASS:
        content = files[split]
        del content["categories"]
        Path("inat", f"{split}2018.json").write_text(json.dumps(content))
    assert listed(quiet, 2018).class_names == ["0", "1", "2"]
    extra = {"id": 3, "name": "Vulpes vulpes"}
    beside = [{"id": k, "name": name, "genus": "x"} for k, name in enumerate(NAMES)]
    Path("categories.json").write_text(json.dumps([extra, *beside[::-1]]))
    dataset = listed(quiet, 2018, class_names="categories.json")
    assert dataset.class_names == NAMES
    assert (
        "1 of 4 classes have no training images and are left out (the first is Vulpes vulpes)" in caplog.text
    )
    assert dataset.fingerprint == listed(quiet, 2017).fingerprint
    for split in PER_CLASS:  # names that are numbers, as before the end of the competition
        content = files[split] | {"categories": [{"id": k, "name": str(2 - k)} for k in range(3)]}
        Path("inat", f"{split}2018.json").write_text(json.dumps(content))
    assert listed(quiet, 2018).class_names == ["2", "1", "0"]


def changed(files: dict[str, Any], how: str) -> None:
    train = files["train"]
    images, annotations, categories = (train[name] for name in ("images", "annotations", "categories"))
    first = annotations[0]
    if how == "gap":
        for annotation in annotations:
            annotation["category_id"] += annotation["category_id"] == 2
        categories[0]["id"] = 3
    elif how == "unknown category":
        first["category_id"] = 9
    elif how == "no image":
        images.remove(next(image for image in images if image["id"] == first["image_id"]))
    elif how == "no annotation":
        annotations[:2] = []
    elif how == "two categories":
        annotations.append(first | {"category_id": (first["category_id"] + 1) % 3})
    elif how == "two ids":
        images[1]["id"] = images[0]["id"]
    elif how == "two names":
        categories[1]["id"] = categories[0]["id"]
    elif how == "one name":
        categories[1]["name"] = categories[0]["name"]
    elif how == "text":
        first["category_id"] = "1"
    elif how == "no list":
        del train["annotations"]
    elif how == "away":
        images[0]["file_name"] = "../train_val/x.jpg"
    elif how == "other names":
        files["val"]["categories"][0]["name"] = "Vulpes vulpes"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("gap", "has classes 0 to 3, but no class 2; number them without gaps, or pass --class-names"),
        ("unknown category", "annotation 1: there is no category 9; add it to categories"),
        ("no image", "annotation 1: there is no image 7"),
        ("no annotation", "jpg) has no annotation, and 1 more have none; remove images without a category"),
        ("two categories", "annotation 13: train_val/Animalia/"),
        ("two ids", "image 2: id 7"),
        ("two names", "category 2 has two names, Abies alba and Bufo bufo"),
        ("one name", "classes 1 and 2 are both called Bufo bufo"),
        ("text", "entry 1 of annotations has category_id '1', expected a whole number"),
        ("no list", "has no list of annotations; expected iNaturalist's form"),
        ("away", "../train_val/x.jpg does not stay below"),
        ("other names", "val2017.json: class 2 is called Vulpes vulpes, but Bufo bufo in"),
    ],
)
def test_annotations_that_cannot_be_used(how, says, files):
    changed(files, how)
    for split, content in files.items():
        Path("inat", f"{split}2017.json").write_text(json.dumps(content))
    line = refuse(*TRAIN, says=[says])
    assert ("has two labels" in line) == (how == "two categories")


def test_gaps_are_closed_in_the_order_of_ids_if_the_user_says_so(files, quiet):
    changed(files, "gap")
    for split in PER_CLASS:
        if split == "val":
            for annotation in files["val"]["annotations"]:
                annotation["category_id"] += annotation["category_id"] == 2
            files["val"]["categories"] = files["train"]["categories"]
        Path("inat", f"{split}2017.json").write_text(json.dumps(files[split]))
    dataset = listed(quiet, 2017, class_names="inat/train2017.json")
    assert dataset.class_names == NAMES
    assert dataset.class_counts.tolist() == PER_CLASS["train"]


@pytest.mark.parametrize(
    "content", ['{"images": [], "annotations": []}', '{"images": [', "[1, 2]", "{" * 100_000, '{"images": 3}']
)
def test_files_that_are_no_annotations(content, files):
    Path("inat/train2017.json").write_text(content)
    refuse(*TRAIN, says=["inat/train2017.json: "])
    refuse(
        "train",
        "--train",
        "inat/val2017.json",
        "--class-names",
        "inat/train2017.json",
        says=["train2017.json"],
    )


def test_an_annotation_that_is_repeated_counts_once(files, quiet, caplog):
    files["train"]["annotations"].append(files["train"]["annotations"][3])
    Path("inat/train2017.json").write_text(json.dumps(files["train"]))
    assert listed(quiet, 2017).class_counts.tolist() == PER_CLASS["train"]
    assert "train2017.json, annotation 13: repeats an earlier row, and counts once" in caplog.text


def test_it_has_no_columns(files):
    refuse(*TRAIN, "--label-column", "label", says=["train2017.json is a file of annotations; leave it out"])
