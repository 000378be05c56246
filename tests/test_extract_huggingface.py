"""Hugging Face's data sets of images: Parquet files that hold the images, and the names of classes."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_input import TINY, refuse, run, succeed
from PIL import Image

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.dataset import Dataset, list_dataset
from extract.images import embedded
from extract.images.embedded import ImageColumn
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SMALL = [*TINY, "--image-size", 16]
NAMES = ["zebra", "ape", "bee"]  # class 0 is zebra, whatever the alphabet says
SIZES = {"train": 24, "validation": 6, "test": 9}
N_SHARDS = {"train": 3, "validation": 1, "test": 2}
CKPT = ["--ckpt", "phase1/checkpoint.pt", "--device", "cpu"]


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 12), (grey, 255 - grey, 7)).save(file, "PNG")
    return file.getvalue()


def features(label: str = "label") -> dict[bytes, bytes]:
    """The metadata that the package `datasets` writes."""
    described = {"image": {"_type": "Image"}, label: {"names": NAMES, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": described}}).encode()}


def write(
    file: str | Path, contents: list[bytes | None], labels: list[int], paths=None, label="label"
) -> None:
    """A file as `Dataset.to_parquet` writes it, in row groups of five images."""
    image = pa.StructArray.from_arrays(
        [pa.array(contents, pa.binary()), pa.array(paths or [f"{i}.png" for i in range(len(labels))])],
        ["bytes", "path"],
    )
    table = pa.table({"image": image, label: pa.array(labels, pa.int64())})
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(features(label)), file, row_group_size=5)


@pytest.fixture
def shards(in_tmp_path) -> dict[str, list[tuple[bytes, str]]]:
    """`hf/data/train-00000-of-00003.parquet` …; the images of every split, with the names of classes."""
    made, grey = {}, 0
    for split, n in SIZES.items():
        labels = [i % 3 for i in range(n)]
        contents = [png(grey + i) for i in range(n)]
        grey += n
        made[split] = [(content, NAMES[k]) for content, k in zip(contents, labels, strict=True)]
        for shard, rows in enumerate(np.array_split(np.arange(n), N_SHARDS[split])):
            file = f"hf/data/{split}-{shard:05d}-of-{N_SHARDS[split]:05d}.parquet"
            write(file, [contents[i] for i in rows], [labels[i] for i in rows])
    return made


def listed(quiet, **options: object) -> Dataset:
    return list_dataset(DatasetConfig(**options), quiet)


def content(dataset: Dataset) -> dict[str, list[tuple[bytes, str]]]:
    """Bytes and name of the class of every image, sorted."""
    return {
        name: sorted(
            (image.read_bytes(), dataset.class_names[k])
            for image, k in zip(split.images, split.label, strict=True)
        )
        for name, split in dataset.splits.items()
    }


@pytest.mark.parametrize(
    "options",
    [
        {"train": "hf/data"},
        {
            split: f"hf/data/{split if split != 'val' else 'validation'}-*.parquet"
            for split in ("train", "val", "test")
        },
        {"train": "hf/data", "val": "hf/data", "test": "hf/data"},
        {"train": "hf/data", "root": "hf"},
    ],
    ids=["folder", "patterns", "a folder for each", "a root above"],
)
def test_every_image_has_its_class(options, shards, quiet):
    found = content(listed(quiet, **options))
    assert found == {
        "train": sorted(shards["train"]),
        "val": sorted(shards["validation"]),
        "test": sorted(shards["test"]),
    }


def test_they_go_the_whole_way(shards, quiet):
    trained = succeed("train", "--train", "hf/data", *SMALL, "--out", "phase1")
    assert "images are taken from the column image, labels from label" in trained.stderr
    checkpoint = load_checkpoint(Path("phase1/checkpoint.pt"))
    assert (checkpoint.class_names, checkpoint.class_counts) == (NAMES, [8, 8, 8])
    succeed("extract", *CKPT)
    store = FeatureStore(Path("feats.zarr"))
    assert {split: len(store.read(split).label) for split in store.splits} == {
        "train": 24,
        "val": 6,
        "test": 9,
    }
    evaluated = succeed("evaluate", *CKPT, "--json").stdout
    for split, rows in shards.items():  # the same as files in class folders
        for i, (image, name) in enumerate(rows):
            path = Path("folders", split, name, f"{i:03d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
    Path("names.txt").write_text("\n".join(NAMES))
    as_files = listed(quiet, root="folders", class_names="names.txt")
    assert content(as_files) == content(listed(quiet, train="hf/data"))
    Path("hf").rename("moved")
    assert succeed("evaluate", *CKPT, "--root", "moved/data", "--json").stdout == evaluated
    assert succeed("train", "--train", "moved/data", "--check-data").stdout.count("no fault found") == 1
    assert not list(Path("moved").rglob("*.png"))  # nothing is extracted


def test_large_images_are_read_by_workers(shards, monkeypatch):
    monkeypatch.setattr("extract.images.workers.available_cores", lambda: 2)
    monkeypatch.setattr(embedded, "most_kept", lambda: 1)  # one row group at a time
    monkeypatch.setattr(embedded, "_KEPT", embedded._Kept())
    options = ["--train", "hf/data", "--arch", "resnet8", "--width", 4, "--image-size", 72, "--epochs", 1]
    said = succeed("train", *options, "--batch-size", 8, "--device", "cpu", "--workers", 2, "--out", "phase1")
    assert "GiB of images in Parquet files, of which each process keeps 0.0 GiB" in said.stderr
    succeed("extract", *CKPT, "--workers", 2, "--store", "two.zarr")
    succeed("extract", *CKPT, "--workers", 0, "--store", "none.zarr")
    for split in ("train", "val", "test"):
        two, none = (FeatureStore(Path(f"{name}.zarr")).read(split) for name in ("two", "none"))
        np.testing.assert_array_equal(two.pooled, none.pooled)


def test_row_groups_are_read_once_if_they_fit_and_few_are_kept_if_not(shards, quiet, monkeypatch):
    loaded = []

    def load(column: ImageColumn, group: int, load=ImageColumn.load):
        loaded.append((column.file.name, group))
        return load(column, group)

    monkeypatch.setattr(ImageColumn, "load", load)
    images = listed(quiet, train="hf/data").train.images
    monkeypatch.setattr(embedded, "_KEPT", embedded._Kept())
    order = np.random.default_rng(0).permutation(len(images))
    whole = [images[i].read_bytes() for i in order]
    assert len(loaded) == len(set(loaded)) == 3 * 2  # 8 images in row groups of 5 and 3
    monkeypatch.setattr(embedded, "_KEPT", embedded._Kept())
    monkeypatch.setattr(embedded, "most_kept", lambda: 1)
    assert [images[i].read_bytes() for i in order] == whole
    assert len(embedded._KEPT._groups) == 1
    assert embedded._KEPT._n_bytes == next(iter(embedded._KEPT._groups.values())).nbytes


def test_names_tell_rows_apart_and_stay_below_the_root(in_tmp_path, quiet):
    paths = ["a/b.png", "a/b.png", "../../etc/x.png", "/abs/y.png", None, "z\0.png"]
    write("x/train.parquet", [png(i) for i in range(6)], [0, 1, 2] * 2, paths)
    dataset = listed(quiet, train="x/train.parquet", test_fraction=0.5)
    names = sorted(n.decode() for split in dataset.splits.values() for n in split.name)
    below = ["0/a/b.png", "1/a/b.png", "2/etc/x.png", "3/abs/y.png", "4", "5/z.png"]
    assert names == [f"train.parquet/{name}" for name in below]


def test_images_without_bytes_are_files(in_tmp_path, quiet):
    for i in range(6):
        Path(f"x/{i}.png").parent.mkdir(exist_ok=True)
        Path(f"x/{i}.png").write_bytes(png(i))
    write("x/t.parquet", [None] * 6, [0, 0, 0, 1, 1, 1])
    dataset = listed(quiet, train="x/t.parquet", test_fraction=0.3)
    assert {n for split in dataset.splits.values() for n in split.name.tolist()} == {
        b"%d.png" % i for i in range(6)
    }
    assert dataset.class_names == ["zebra", "ape"]


def test_the_one_column_of_classes_is_found_and_of_two_one_is_named(shards, quiet):
    write("y/train-0.parquet", [png(i) for i in range(6)], [0, 1, 2] * 2, label="fine_label")
    assert listed(quiet, train="y", test_fraction=0.3).class_names == NAMES
    table = pq.read_table("y/train-0.parquet")
    coarse = table.append_column("coarse", pa.array([0, 0, 1] * 2))
    meta = json.loads(table.schema.metadata[b"huggingface"])
    meta["info"]["features"]["coarse"] = {"names": ["mammal", "insect"], "_type": "ClassLabel"}
    pq.write_table(coarse.replace_schema_metadata({"huggingface": json.dumps(meta)}), "y/train-0.parquet")
    says = ["fine_label and coarse could be the column of their classes", "--label-column"]
    refuse("train", "--train", "y", "--test-fraction", 0.3, *SMALL, says=says)
    named = {"train": "y", "test_fraction": 0.3, "label_column": "coarse"}
    assert listed(quiet, **named).class_names == ["mammal", "insect"]


@pytest.mark.parametrize("names", ["no JSON", [1, 2, 3], "abc", [], None])
def test_names_of_classes_that_are_none_are_passed_over(names, shards, quiet):
    for file in Path("hf/data").iterdir():
        described = {"image": [{"_type": "Image"}], "label": {"names": names, "_type": "ClassLabel"}}
        metadata = json.dumps({"info": {"features": described}}) if names != "no JSON" else names
        table = pq.read_table(file).replace_schema_metadata({"huggingface": metadata})
        pq.write_table(table, file)
    assert listed(quiet, train="hf/data").class_names == ["0", "1", "2"]


def test_columns_of_bytes_hold_images_and_lists_nothing(in_tmp_path, quiet):
    images = [png(i) for i in range(6)]
    frame = pd.DataFrame(
        {"image": images, "label": [0, 1] * 3, "boxes": [[1, 2]] * 6, "size": [{"h": 3}] * 6}
    )
    frame.to_parquet("plain.parquet")
    dataset = listed(quiet, train="plain.parquet", test_fraction=0.3)
    found = {image.read_bytes() for split in dataset.splits.values() for image in split.images}
    assert found == set(images)
    options = ["--train", "plain.parquet", "--test-fraction", 0.3, *SMALL]
    refuse("train", *options, "--label-column", "boxes", says=["no such column; it has image, label"])
    Path("x").mkdir()
    Path("x/0.png").write_bytes(png(0))
    frame.assign(image=[b"x/0.png", *[f"x/{i}.png".encode() for i in range(1, 6)]]).to_parquet(
        "plain.parquet"
    )
    refuse("train", *options, says=["x/1.png is not there; 4 more are missing"])  # they are paths


def test_a_file_that_is_replaced_is_read_again(shards, quiet):
    file = Path("hf/data/test-00000-of-00002.parquet")
    before = listed(quiet, train="hf/data").test.images[0].read_bytes()
    write("other.parquet", [png(250)] * 5, [0, 1, 2, 0, 1])
    os.replace("other.parquet", file)
    assert listed(quiet, train="hf/data").test.images[0].read_bytes() == png(250) != before


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("half empty", "2 of 8 rows hold no image (column image); remove them"),
        ("unlabelled", "row 1: label -1 is not in "),
        ("truncated", "is not a whole Parquet file"),
        ("other names", "class 0 is called ape, but zebra in "),
        ("no split", "its name begins with no split, unlike others"),
        ("not an image", "not a readable image (unknown format)"),
    ],
)
def test_files_that_cannot_be_used(how, says, shards):
    file = Path("hf/data/train-00001-of-00003.parquet")
    images = [png(i) for i in range(8)]
    labels = [0, 1, 2, 0, 1, 2, 0, 1]
    if how == "half empty":
        write(file, [None, None, *images[2:]], labels)
    elif how == "unlabelled":
        write(file, images, [-1] * 8)
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-30])
    elif how == "other names":
        table = pq.read_table(file)
        meta = (
            table.schema.metadata[b"huggingface"]
            .replace(b"zebra", b"ape")
            .replace(b'"ape", "ape"', b'"ape", "x"')
        )
        pq.write_table(table.replace_schema_metadata({b"huggingface": meta}), file)
    elif how == "no split":
        file.rename(file.with_name("more.parquet"))
    else:
        write(file, [b"text", *images[1:]], labels)
    refuse("train", "--train", "hf/data", *SMALL, says=[says])


def test_places_that_hold_no_parquet_files(shards):
    Path("empty").mkdir()
    refuse("train", "--train", "empty", *SMALL, says=["--train empty: is a folder without Parquet files"])
    refuse("train", "--train", "hf/*.csv", *SMALL, says=["--train hf/*.csv: no file matches this pattern"])
    os.remove("hf/data/validation-00000-of-00001.parquet")
    refuse(
        *["train", "--train", "hf/data", "--val", "hf/data", *SMALL],
        says=["--val hf/data: no file's name begins with val"],
    )
    options = ["--train", "hf/data/train-*.parquet", "--test", "hf/data/test-*.parquet", "--root", "empty"]
    refuse("train", *options, *SMALL, says=["train-00000-of-00003.parquet: is not below ", "--root"])


def test_a_bad_image_is_left_out_or_counted(shards):
    file = "hf/data/train-00001-of-00003.parquet"
    write(file, [b"text", b"", *[png(200 + i) for i in range(6)]], [0, 1, 2, 0, 1, 2, 0, 1])
    checked = run("train", "--train", "hf/data", "--check-data")
    assert checked.exit_code == 1
    assert f"  {Path(file).name}/1/1.png" in checked.stdout.splitlines()
    trained = succeed("train", "--train", "hf/data", *SMALL, "--skip-bad-images", "--out", "phase1")
    assert f"left out because they are unreadable: {Path(file).name}/0/0.png, " in trained.stderr
    assert load_checkpoint(Path("phase1/checkpoint.pt")).class_counts == [7, 8, 7]
    succeed("extract", *CKPT)
