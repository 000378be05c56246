"""Tables of images: every format, which columns are meant, classes, splits, and what is said of bad ones."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_input import TINY, refuse, run, succeed, write_images

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.dataset import list_dataset
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SMALL = [*TINY, "--image-size", 16]
N_IMAGES = {"ape": 5, "bee": 4, "cat": 3}
CKPT = ["--ckpt", "phase1/checkpoint.pt", "--device", "cpu"]


@pytest.fixture
def frame(in_tmp_path: Path) -> pd.DataFrame:
    """Images in `photos/x/<class>/`; the last of every class is for testing, one of apes for validation."""
    write_images(Path("photos"), N_IMAGES, ["x"])
    rows = [
        (f"x/{name}/{i}.png", name, "test" if i == n - 1 else "train")
        for name, n in N_IMAGES.items()
        for i in range(n)
    ]
    rows[0] = (*rows[0][:2], "val")
    return pd.DataFrame(rows, columns=["path", "label", "split"]).sample(frac=1, random_state=0)


@pytest.fixture
def table(frame) -> Path:
    frame.to_csv("photos/t.csv", index=False)
    return Path("photos/t.csv")


def listed(quiet, **options: object):
    return list_dataset(DatasetConfig(**options), quiet)


def content(dataset) -> dict[str, list[tuple[str, str]]]:
    """Name and class of every image, by split."""
    return {
        split: sorted(
            (name.decode(), dataset.class_names[k]) for name, k in zip(images.name, images.label, strict=True)
        )
        for split, images in dataset.splits.items()
    }


def expected(frame: pd.DataFrame) -> dict[str, list[tuple[str, str]]]:
    ordered = frame.sort_values("path")
    return {
        split: list(of_split[["path", "label"]].itertuples(index=False, name=None))
        for split in ("train", "val", "test")
        for of_split in [ordered[ordered["split"] == split]]
    }


def said(result) -> list[str]:
    return [line for line in result.stderr.splitlines() if ": note: " in line and "mirror" not in line]


def test_a_table_goes_the_whole_way(table, monkeypatch):
    trained = succeed("train", "--train", table, *SMALL, "--out", "phase1")
    assert len([line for line in said(trained) if "paths are taken from the column path" in line]) == 1
    checkpoint = load_checkpoint(Path("phase1/checkpoint.pt"))
    assert (checkpoint.class_names, checkpoint.class_counts) == (list(N_IMAGES), [3, 3, 2])
    assert checkpoint.dataset["dataset"] == "table"
    extracted = succeed("extract", *CKPT)
    assert not said(extracted)
    store = FeatureStore(Path("feats.zarr"))
    assert {split: len(store.read(split).label) for split in store.splits} == {
        "train": 8,
        "val": 1,
        "test": 3,
    }
    evaluated = succeed("evaluate", *CKPT, "--json").stdout
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")  # the description works in any folder
    moved = ["--ckpt", "../phase1/checkpoint.pt", "--device", "cpu", "--json"]
    assert succeed("evaluate", *moved).stdout == evaluated
    Path("../photos").rename("../moved")  # the table moves with its images
    refuse("evaluate", *moved, says=["photos/t.csv: expected a file, found nothing"])
    assert succeed("evaluate", *moved, "--root", "../moved").stdout == evaluated
    Path("../moved/t.csv").write_text(
        Path("../moved/t.csv").read_text().replace("x/ape/1.png,ape", "x/ape/1.png,bee")
    )
    refuse("evaluate", *moved, "--root", "../moved", says=["was trained on other images"])


def test_training_on_a_table_resumes(table, monkeypatch):
    command = ["train", "--train", table, *SMALL]
    succeed(*command, "--out", "whole")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("extract.train.take_step", interrupted)
        assert run(*command, "--out", "phase1").exit_code == 130
    Path("photos").rename("moved")
    succeed("train", "--resume", "--out", "phase1", "--root", "moved")
    resumed, whole = (load_checkpoint(Path(name) / "checkpoint.pt").state for name in ("phase1", "whole"))
    assert all(value.equal(resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    "kind",
    [
        "commas",
        "semicolons",
        "tabs",
        "windows",
        "quoted",
        "spaces",
        "parquet",
        "absolute",
        "dots",
        "reversed",
    ],
)
def test_every_format_lists_the_same(kind, table, frame, quiet):
    other = Path("photos/other.csv")
    text = table.read_text()
    if kind == "parquet":
        other = other.with_suffix(".data")  # known by its content
        frame.to_parquet(other)
    elif kind in ("absolute", "dots"):
        before = f"{Path('photos').resolve()}/" if kind == "absolute" else ".//"
        frame.assign(path=before + frame["path"]).to_csv(other, index=False)
    elif kind == "reversed":
        frame[::-1].to_csv(other, index=False)
    elif kind == "windows":
        other.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    elif kind == "quoted":
        frame.to_csv(other, index=False, quoting=1)
    else:
        other.write_text(
            text.replace(",", {"commas": ",", "semicolons": ";", "tabs": "\t", "spaces": ", "}[kind])
        )
    dataset = listed(quiet, train=str(other))
    assert content(dataset) == expected(frame)
    assert dataset.fingerprint == listed(quiet, train=str(table)).fingerprint
    for split in dataset.splits.values():
        assert all(Path(path).is_file() for path in split.images)
        assert sorted(split.sample_index) == list(range(len(split)))


def test_a_file_for_each_split(frame, quiet, caplog):
    for split, rows in frame.groupby("split"):
        rows[["path", "label"]].to_csv(f"photos/{split}.csv", index=False)
    files = {split: f"photos/{split}.csv" for split in ("train", "val", "test")}
    assert content(listed(quiet, **files)) == expected(frame)
    assert len(caplog.records) == 1  # one note, though three files have these columns
    for split in files:
        shutil.move(files[split], f"{split}.csv")
    apart = {split: f"{split}.csv" for split in files}
    assert content(listed(quiet, root="photos", **apart)) == expected(frame)
    Path("other").mkdir()
    shutil.move("val.csv", "other/val.csv")
    options = ["--train", "train.csv", "--val", "other/val.csv", "--test", "test.csv"]
    refuse(
        "train", *options, *SMALL, says=["--val other/val.csv: is in another folder than --train", "--root"]
    )
    del files["val"]
    assert list(content(listed(quiet, root="photos", train="train.csv", test="test.csv"))) == [
        "train",
        "test",
    ]


def test_without_test_images_a_fraction_or_those_for_validation(frame, quiet, caplog):
    frame = frame[frame["split"] != "test"]
    frame.to_csv("photos/t.csv", index=False)
    assert content(listed(quiet, train="photos/t.csv"))["test"] == [("x/ape/0.png", "ape")]
    assert "has validation but no test images" in caplog.text
    divided = content(listed(quiet, train="photos/t.csv", test_fraction=0.3))
    assert [len(divided[split]) for split in ("val", "train")] == [1, 8 - len(divided["test"])]
    assert {label for _, label in divided["test"]} == set(N_IMAGES)
    frame[["path", "label"]].to_csv("photos/t.csv", index=False)
    says = ["photos/t.csv: has no test images", "--test ", "--test-fraction 0.2"]
    refuse("train", "--train", "photos/t.csv", *SMALL, says=says)
    whole = content(listed(quiet, train="photos/t.csv", test_fraction=0.3))
    Path("photos/x").rename("classes")
    folders = content(listed(quiet, root="classes", test_fraction=0.3))
    assert {split: len(of) for split, of in whole.items()}.keys() == folders.keys()


def test_columns_are_guessed_if_obvious_and_else_named(frame, quiet, caplog):
    odd = frame.rename(columns={"path": "File Name", "label": "Species", "split": "fold"})
    odd.insert(0, "id", range(len(odd)))
    odd.to_csv("photos/t.csv", index=False)
    assert content(listed(quiet, train="photos/t.csv")) == expected(frame)
    (record,) = caplog.records
    assert (
        "paths are taken from the column File Name, labels from Species, splits from fold"
        in record.getMessage()
    )
    odd.assign(label=0, path="?").to_csv("photos/t.csv", index=False)
    refuse("train", "--train", "photos/t.csv", *SMALL, says=["File Name and path could be", "--path-column"])
    named = {"path_column": "File Name", "label_column": "Species"}
    caplog.clear()
    assert content(listed(quiet, train="photos/t.csv", **named)) == expected(frame)
    assert "splits from fold; --split-column can name others" in caplog.text
    numbered = frame.assign(fold=np.arange(len(frame)) % 5)  # of a cross-validation, not a split
    numbered.to_csv("photos/t.csv", index=False)
    assert content(listed(quiet, train="photos/t.csv")) == expected(frame)


def test_numbers_are_classes_in_their_order(quiet):
    write_images(Path("photos"), {str(k): 2 for k in range(12)}, ["x"])
    rows = [(f"x/{k}/{i}.png", k, ("train", "test")[i]) for k in range(12) for i in range(2)]
    frame = pd.DataFrame(rows, columns=["path", "label", "split"])
    frame.to_csv("photos/t.csv", index=False)
    dataset = listed(quiet, train="photos/t.csv")
    assert dataset.class_names == [str(k) for k in range(12)]  # not 0, 1, 10, 11, 2
    frame.to_parquet("photos/t.parquet")
    assert listed(quiet, train="photos/t.parquet").fingerprint == dataset.fingerprint
    Path("names.txt").write_text("".join(f"class {k}\n" for k in range(14)))
    named = listed(quiet, train="photos/t.csv", class_names="names.txt")
    assert named.class_names == [f"class {k}" for k in range(12)]
    assert named.train.label.tolist() == dataset.train.label.tolist()

    gap = frame[frame["label"] != 3]
    gap.to_csv("photos/t.csv", index=False)
    says = [
        "t.csv, line 22: class 11, but no training image is of class 3; number classes from 0",
        "--class-names",
    ]
    refuse("train", "--train", "photos/t.csv", *SMALL, says=says)
    named = listed(quiet, train="photos/t.csv", class_names="names.txt")
    assert named.class_names == [f"class {k}" for k in range(12) if k != 3]
    assert [named.class_names[k] for k in named.test.label] == [f"class {k}" for k in gap["label"][::2]]
    Path("names.txt").write_text("a\nb\n")
    says = ["t.csv, line 6: label 2 is not in ", "names.txt, which has names for 0 to 1; add it"]
    refuse("train", "--train", "photos/t.csv", "--class-names", "names.txt", *SMALL, says=says)


def test_a_file_of_names_orders_classes(table, frame, quiet, caplog):
    Path("names.txt").write_text("cat\r\ndog\r\nape\r\nbee")
    dataset = listed(quiet, train=str(table), class_names="names.txt")
    assert dataset.class_names == ["cat", "ape", "bee"]
    found = {split: sorted(rows) for split, rows in content(dataset).items()}
    assert found == {split: sorted(rows) for split, rows in expected(frame).items()}
    assert "1 of 4 classes have no training images and are left out (the first is dog)" in caplog.text
    for text, says in {
        "cat\nape": "names.txt, which has 2 other names",
        "cat\n\nape\nbee": "names.txt, line 2: is empty",
        "cat\nape\ncat\nbee": "names.txt, line 3: cat stands in line 1 already",
    }.items():
        Path("names.txt").write_text(text)
        refuse("train", "--train", table, "--class-names", "names.txt", *SMALL, says=[says])


def test_a_row_that_is_repeated_counts_once(table, frame, quiet, caplog):
    frame.sort_values("path").to_csv(table, index=False)
    table.write_text(table.read_text() + "./x/ape/0.png,ape,val\nx/cat/1.png,cat,train\n")
    assert content(listed(quiet, train=str(table))) == expected(frame)
    assert "t.csv, line 14: repeats an earlier row; 2 such rows count once" in caplog.text


def test_bad_images_of_a_table_are_left_out_and_may_be_deleted(table):
    for name in ("x/ape/1.png", "x/cat/2.png"):
        Path("photos", name).write_bytes(b"no image")
    refuse("train", "--train", table, *SMALL, says=["x/ape/1.png: not a readable image", "--skip-bad-images"])
    refuse(
        "train",
        "--train",
        table,
        *SMALL,
        "--skip-bad-images",
        "--val-per-class",
        1,
        says=["val split: exists"],
    )
    succeed("train", "--train", table, *SMALL, "--skip-bad-images", "--out", "phase1")
    succeed("extract", *CKPT, "--store", "0.zarr")
    for name in ("x/ape/1.png", "x/cat/2.png"):
        Path("photos", name).unlink()
    succeed("extract", *CKPT, "--store", "1.zarr")
    for split in ("train", "val", "test"):
        old, new = (FeatureStore(Path(f"{i}.zarr")).read(split) for i in (0, 1))
        assert old.sample_index.tolist() == new.sample_index.tolist()
    Path("photos/x/bee/0.png").unlink()
    refuse("evaluate", *CKPT, says=["x/bee/0.png is not there"])
