"""Lists without a header, a path and a class number in each line, as those of ImageNet-LT and Places-LT."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from bad_input import TINY, refuse, succeed, write_images

import tailcache
from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.dataset import list_dataset
from extract.sources.tables.published import PUBLISHED
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")
N_IMAGES = {"n01 ape": 9, "n02": 4, "n03": 3}  # a folder may have a space in its name
SMALL = [*TINY, "--image-size", 16]


@pytest.fixture(autouse=True)
def lists(in_tmp_path) -> dict[str, str]:
    """A list for each split: the last image of a class is for testing, that before it for validation."""
    write_images(Path("images"), N_IMAGES, ["train"])
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for k, (name, n) in enumerate(N_IMAGES.items()):
        for i in range(n):
            split = {n - 1: "test", n - 2: "val"}.get(i, "train")
            lines[split].append(f"train/{name}/{i}.png {k}\n")
    for split, of_split in lines.items():
        Path(f"LT_{split}.txt").write_text("".join(of_split))
    return {split: f"LT_{split}.txt" for split in lines}


def test_they_parse_count_and_split_as_they_stand(lists, quiet, caplog):
    dataset = list_dataset(DatasetConfig(root="images", **lists), quiet)
    assert dataset.class_names == ["0", "1", "2"]
    assert dataset.class_counts.tolist() == [7, 2, 1]
    for split, file in lists.items():
        images = dataset.splits[split]
        found = {f"{name.decode()} {k}" for name, k in zip(images.name, images.label, strict=True)}
        assert found == set(Path(file).read_text().splitlines())
    assert not caplog.records  # nothing was guessed
    Path("names.txt").write_text("ape\nbee\ncat\n")
    named = list_dataset(DatasetConfig(root="images", class_names="names.txt", **lists), quiet)
    assert named.class_names == ["ape", "bee", "cat"]
    np.testing.assert_array_equal(named.train.label, dataset.train.label)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("train/n02/0.png", "expected a path, a space and a class number, found train/n02/0.png"),
        ("train/n02/0.png one", "expected a path, a space and a class number"),
        ("1", "expected a path, a space and a class number, found 1"),
        ("train/n02/9.png 1", "images/train/n02/9.png is not there; paths are relative to"),
        ("../n02/0.png 1", "../n02/0.png does not stay below"),
        ("train/n02/0.png 2", "train/n02/0.png has two labels, 1 ("),
    ],
)
def test_a_bad_line_is_named(lists, line, says):
    with open("LT_train.txt", "a") as file:
        file.write(f"{line}\n")
    options = [word for split, file in lists.items() for word in (f"--{split}", file)]
    refuse("train", "--root", "images", *options, *SMALL, says=["LT_train.txt, line 11: ", says])


def test_a_list_has_no_columns(lists):
    options = ["--train", lists["train"], "--test", lists["test"], "--path-column", "path"]
    says = ["--path-column path: ", "LT_train.txt is a list without a header; leave it out"]
    refuse("train", "--root", "images", *options, *SMALL, says=says)


def test_a_list_called_like_a_published_one_is_compared_with_it(lists, quiet, caplog, monkeypatch):
    content = Path("LT_train.txt").read_bytes()
    Path("ImageNet_LT_train.txt").write_bytes(content)
    config = DatasetConfig(root="images", **lists | {"train": "ImageNet_LT_train.txt"})
    list_dataset(config, quiet)
    (record,) = caplog.records
    assert "ImageNet_LT_train.txt: is called like the published list but differs" in record.getMessage()
    assert "published a063f095fcd4" in record.getMessage()
    caplog.clear()
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    monkeypatch.setitem(PUBLISHED, "ImageNet_LT_train.txt", blob)
    list_dataset(config, quiet)
    Path("ImageNet_LT_train.txt").write_bytes(content.replace(b"\n", b"\r\n"))
    list_dataset(config, quiet)
    assert not caplog.records


def test_tables_from_python(lists):
    out = tailcache.train(
        "images",
        out="phase1",
        **{split: Path(file) for split, file in lists.items()},
        arch="resnet8",
        width=4,
        epochs=1,
        image_size=16,
        batch_size=8,
        device="cpu",
    )
    checkpoint = load_checkpoint(Path(out))
    assert checkpoint.class_counts == [7, 2, 1]
    assert checkpoint.dataset["train"] == str(Path("LT_train.txt").resolve())
    with pytest.raises(UserError, match=r"none.csv: expected a file, found nothing"):
        tailcache.train(out="other", train="none.csv")


def test_numbers_that_are_names_themselves_are_ordered_by_the_file(lists, quiet):
    Path("names.txt").write_text("2\n0\n1\n")
    plain = list_dataset(DatasetConfig(root="images", **lists), quiet)
    named = list_dataset(DatasetConfig(root="images", class_names="names.txt", **lists), quiet)
    assert named.class_names == ["2", "0", "1"]
    of = [
        {name: d.class_names[k] for name, k in zip(d.test.name, d.test.label, strict=True)}
        for d in (plain, named)
    ]
    assert of[0] == of[1]


def test_absolute_paths_below_a_root_that_moved_are_found(lists):
    before = Path("images").resolve()
    for file in lists.values():
        lines = Path(file).read_text().splitlines()
        Path(file).write_text("".join(f"{before}/{line}\n" for line in lines))
    options = [word for split, file in lists.items() for word in (f"--{split}", file)]
    succeed("train", "--root", "images", *options, *SMALL, "--out", "phase1")
    evaluate = ["evaluate", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu", "--json"]
    found = succeed(*evaluate).stdout
    before.rename("moved")
    assert succeed(*evaluate, "--root", "moved").stdout == found
    says = ["LT_train.txt, line 1: ", f"{before}/train/n01 ape/0.png is not below "]
    refuse("train", "--root", "moved", *options, *SMALL, "--out", "other", says=says)
