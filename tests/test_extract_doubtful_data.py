"""Data that can be listed and are probably meant otherwise: what they are taken for is said in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_input import refuse, succeed, write_images
from made_foreign import USERS
from rich.progress import Progress

from extract.config import DatasetConfig
from extract.dataset import Dataset, list_dataset
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")
ROWS = [(f"{name}/{i}.png", name) for name in ("ape", "bee", "cat") for i in range(4)]


@pytest.fixture
def photos(in_tmp_path: None) -> Path:
    """Three classes without splits."""
    return write_images(Path(), {"ape": 4, "bee": 4, "cat": 4}, ["photos"]) / "photos"


def listed(quiet: Progress, caplog: pytest.LogCaptureFixture, **options) -> tuple[Dataset, str]:
    """A data set, and the notes about it."""
    caplog.clear()
    return list_dataset(DatasetConfig(**options), quiet), "\n".join(caplog.messages)


def table(rows: list[tuple[str, str]], header: str = "path,label", name: str = "photos/t.csv") -> str:
    Path(name).write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    return name


def relabelled(new: dict[str, str]) -> list[tuple[str, str]]:
    return [(path, new.get(path, new.get(label, label))) for path, label in ROWS]


ALIKE = ["Cat", "c\u00adat", "cat\u200b", "\uff43at"]


@pytest.mark.parametrize("other", ALIKE)
def test_labels_that_look_alike_are_told(other, photos, quiet, caplog):
    new = {"cat/0.png": other, "cat/1.png": other}
    data, said = listed(quiet, caplog, train=table(relabelled(new)), test_fraction=0.3)
    assert len(data.class_names) == 4
    pair = " and ".join(map(repr, sorted([other, "cat"])))
    assert f"the classes {pair} differ only in case, spaces or invisible characters; each is" in said


def test_class_folders_that_look_alike_too(photos, quiet, caplog):
    shutil.copytree("photos/ape", "photos/APE")
    shutil.copytree("photos/bee", "photos/Bee")
    _, said = listed(quiet, caplog, root="photos", test_fraction=0.3)
    assert "the classes 'APE' and 'ape' differ only in case" in said
    assert "(2 such pairs in all); each is" in said
    shutil.rmtree("photos/APE")
    shutil.rmtree("photos/Bee")
    assert "differ only" not in listed(quiet, caplog, root="photos", test_fraction=0.3)[1]


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ({"cat": "nan"}, "line 10: label nan is how empty values are written"),
        ({"cat": "<NA>", "ape": "0", "bee": "1"}, "line 10: label <NA> is how empty values are written"),
        ({"cat": "3.0"}, "line 10: label 3.0 is a number where others are names, such as ape"),
        ({"ape": "0", "bee": "1"}, "line 2: label 0 is a number where others are names, such as cat"),
        (
            {"ape": "-1", "bee": "0", "cat": "1"},
            "line 2: label -1 is a number where others are numbers from 0",
        ),
        ({"ape": "07", "bee": "7"}, "line 6: labels 07 and 7 are one number, but two names of classes"),
        ({}, ""),
        ({"ape": "0", "bee": "1", "cat": "2"}, ""),
        ({"ape": "001", "bee": "002", "cat": "010"}, ""),
    ],
)
def test_labels_that_may_be_no_names_are_told(new, says, photos, quiet, caplog):
    _, said = listed(quiet, caplog, train=table(relabelled(new)), test_fraction=0.3)
    assert says in said
    assert (": label" in said) == bool(says)


def test_groups_of_empty_values_are_told(photos, quiet, caplog):
    rows = [(path, label, "nan" if label == "cat" else path[:5]) for path, label in ROWS]
    options = {"train": table(rows, "path,label,patient"), "group_column": "patient", "test_fraction": 0.3}
    _, said = listed(quiet, caplog, **options)
    assert "line 10: group nan is how empty values are written, and is taken as one group of 4 images" in said
    rows[8:] = [(path, label, path[:5]) for path, label, _ in rows[8:]]
    table(rows, "path,label,patient")
    assert "empty values" not in listed(quiet, caplog, **options)[1]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_without_a_header_does_not_lose_its_first_row(separator, photos):
    Path("photos/t.csv").write_text("\n".join(separator.join(row) for row in ROWS))
    says = ["photos/t.csv: its first line is a row, with ape/0.png, and no header; write the names of the"]
    options = ["--train", "photos/t.csv", "--test-fraction", 0.3]
    refuse("train", *options, says=says)
    refuse("train", *options, "--path-column", "ape/0.png", "--label-column", "ape", says=says)


NEAR = {
    "ape\\0.png": r", but with / for \ it is;",
    "ape/0": ", but '0.png' is;",
    "ape/0.jpg": ", but '0.png' is;",
    "ape/0.PNG": ", but '0.png' is;",
    '"ape/0.png "': ", but '0.png' is;",
    "ape/n\u0303.png": ", but '\u00f1.png' is;",
    "ape/9.png": "is not there; paths",
    "ant/0.png": "is not there; paths",
}


@pytest.mark.parametrize("path", NEAR)
def test_an_image_that_is_not_there_is_told_with_the_one_that_may_be_meant(path, photos, quiet):
    shutil.copy("photos/ape/0.png", "photos/ape/\u00f1.png")
    train = table([*ROWS[1:], (path, "ape")])
    with pytest.raises(UserError) as raised:
        list_dataset(DatasetConfig(train=train, test_fraction=0.3), quiet)
    assert "t.csv, line 13: " in str(raised.value)
    assert NEAR[path] in str(raised.value)


def test_splits_within_classes_are_told(photos, quiet, caplog):
    for name in ("bee", "cat"):
        for split in ("train", "Test"):
            Path("photos", name, split).mkdir()
            shutil.move(f"photos/{name}/{int(split == 'train')}.png", f"photos/{name}/{split}/0.png")
    data, said = listed(quiet, caplog, root="photos", test_fraction=0.3)
    assert sum(map(len, data.splits.values())) == 12
    assert (
        "photos/bee/: has Test/ and train/ (2 classes have such folders), whose images are all taken as"
        in said
    )
    shutil.rmtree("photos/bee/Test")
    shutil.rmtree("photos/cat/Test")
    assert "are all taken as" not in listed(quiet, caplog, root="photos", test_fraction=0.3)[1]


def test_one_folder_as_two_splits_is_told(quiet, caplog):
    write_images(Path("photos"))
    Path("photos/val").symlink_to("test")
    data, said = listed(quiet, caplog, root="photos")
    assert len(data.val) == len(data.test)
    assert "photos: val/ and test/ are one folder, so both splits have the same images" in said


def test_numbered_folders_take_names_by_number_however_many_there_are(quiet):
    names = [f"name {letter}" for letter in "abcdefghijklm"]
    write_images(Path("photos"), {str(k): 1 for k in range(13)})
    Path("names").write_text("\n".join(names))
    data = list_dataset(DatasetConfig(root="photos", class_names="names"), quiet)
    assert data.class_names == names
    for split in data.splits.values():
        numbers = [int(name.decode().split("/")[1]) for name in split.name]
        assert numbers == split.label.tolist()
        assert sorted(numbers) == list(range(13))


def test_several_parts_of_a_pattern_are_told(photos, quiet, caplog):
    options = {"root": "photos", "test_fraction": 0.5}
    _, said = listed(quiet, caplog, group_regex=r"([^/]*/\d)(.*)", **options)
    assert "of its 2 parts in parentheses, the first names the group of an image (" in said
    assert "in parentheses" not in listed(quiet, caplog, group_regex=r"[^/]*/\d", **options)[1]


def write_parts(folder: str, numbers: list[int], n: int) -> None:
    Path(folder).mkdir()
    for number in numbers:
        images = [path.read_bytes() for path in sorted(Path("photos").rglob("*.png"))]
        rows = {"image": [{"bytes": b, "path": None} for b in images], "label": np.repeat([0, 1, 2], 4)}
        pq.write_table(pa.table(rows), f"{folder}/train-{number:05d}-of-{n:05d}.parquet")


def test_missing_parts_of_a_table_are_told(photos, quiet, caplog):
    write_parts("some", [0, 3], 4)
    write_parts("all", [0, 1], 2)
    says = (
        "train-*-of-00004: 2 of 4 files are not there (the first is number 1), so the images in them are left"
    )
    for named, said_too in (("some", True), ("some/*.parquet", True), ("all", False), ("all/*", False)):
        _, said = listed(quiet, caplog, train=named, test_fraction=0.3)
        assert (says in said) == said_too == ("files are not there" in said)
    one = "some/train-00000-of-00004.parquet"  # which may be all that is wanted
    assert "files are not there" not in listed(quiet, caplog, train=one, test_fraction=0.3)[1]


@pytest.mark.parametrize("labels", ["names", "numbers"])
def test_an_order_of_classes_that_was_read_outlives_its_file(labels, photos, quiet):
    numbers = {"cat": "0", "ape": "1", "bee": "2"}
    train = table(relabelled(numbers if labels == "numbers" else {}))
    Path("names").write_text("cat\nape\nbee\n")
    config = DatasetConfig(train=train, class_names="names", test_fraction=0.3)
    data = list_dataset(config, quiet)
    assert data.class_names == ["cat", "ape", "bee"]
    Path("names").unlink()
    again = list_dataset(data.config, quiet, listed_before=True)
    assert (again.class_names, again.fingerprint) == (data.class_names, data.fingerprint)
    with pytest.raises(UserError, match="--class-names names: expected a file, found nothing"):
        list_dataset(config, quiet)


@pytest.mark.parametrize("size", [16, 80])
@pytest.mark.parametrize("command", ["train", "extract"])
def test_held_out_images_that_are_trained_on_are_told(command, size):
    """Images in memory, and files that are read when they are needed."""
    write_images(Path("photos"), splits=("train", "val", "test"))
    options = {
        "train": ["--arch", "resnet8", "--width", 4, "--epochs", 1, "--batch-size", 8, "--out"],
        "extract": ["--arch", USERS, "--classifier", "fit", "--weight-decay", 0.1, "--store"],
    }[command]
    images = ["--root", "photos", "--image-size", size, "--workers", 0, "--device", "cpu"]
    assert "same content" not in succeed(command, *images, *options, "a.zarr").stderr
    for copy in ("test/ape/a.png", "test/bee/b.png"):
        shutil.copy("photos/train/ape/1.png", f"photos/{copy}")
    shutil.copy("photos/test/ape/0.png", "photos/val/ape/c.png")
    said = succeed(command, *images, *options, "b.zarr").stderr
    assert "2 of 20 test images have the same content as training images, so accuracies on test are" in said
    assert said.count("same content") == 1


def write_named(names: list[str]) -> str:
    """Parquet of images with the names of classes by number, some of each class in either split."""
    rows = {
        "image": [{"bytes": Path(f"photos/ape/{k % 4}.png").read_bytes(), "path": None} for k in range(8)],
        "label": [k % len(names) for k in range(8)],
        "split": ["train"] * 4 + ["test"] * 4,
    }
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    Path("named").mkdir(exist_ok=True)
    pq.write_table(pa.table(rows).replace_schema_metadata(about), "named/all.parquet")
    return "named"


def test_a_file_of_names_orders_the_names_that_a_table_has_itself(photos, quiet, caplog):
    train = write_named(["cat", "ape", "b\u00e9e"])
    Path("names").write_text("cow\nbe\u0301e\ncat\nape\n")
    data, _ = listed(quiet, caplog, train=train, class_names="names")
    assert data.class_names == ["be\u0301e", "cat", "ape"]
    number = {"cat": 0, "ape": 1, "be\u0301e": 2}
    for split in data.splits.values():
        rows = [int(name.decode().split("/")[1]) for name in split.name]
        assert [number[data.class_names[k]] for k in split.label] == [row % 3 for row in rows]
    Path("names").unlink()
    again = list_dataset(data.config, quiet, listed_before=True)
    assert (again.class_names, again.fingerprint) == (data.class_names, data.fingerprint)


def test_other_names_stand_in_their_place_with_a_note_and_a_mixture_is_refused(photos, quiet, caplog):
    train = write_named(["cat", "ape", "bee"])
    Path("names").write_text("Katze\nAffe\nBiene\n")
    data, said = listed(quiet, caplog, train=train, class_names="names")
    assert data.class_names == ["Katze", "Affe", "Biene"]
    assert "(class 0 is Katze, there cat)" in said
    Path("names").write_text("Katze\nape\nbee\n")
    says = ["names: lacks cat, a class of ", "all.parquet, but has others of its names; write all of them"]
    refuse("train", "--train", train, "--class-names", "names", says=says)
