"""Sources and the data sets made of them: digits, CIFAR through torchvision, class folders."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from extract.config import DatasetConfig
from extract.dataset import load_dataset
from extract.sources.listing import Listing
from extract.sources.registry import SOURCES


def write_folder(root: Path, files: dict[str, int]) -> Path:
    """Write 8×8 grey images, a value for each path."""
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (value, value, value)).save(path)
    return root


def names(split, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in split.images]


def listed(name: str, root: Path = Path()) -> Listing:
    """What a source lists with default options."""
    return SOURCES[name].list(root, DatasetConfig())


def test_digits_are_split_once_and_for_all():
    source = listed("digits")
    train, test = source.splits["train"], source.splits["test"]
    assert list(source.splits) == ["train", "test"]
    assert source.class_names == [str(d) for d in range(10)]
    assert (len(train), len(test)) == (1497, 300)
    assert np.bincount(test.label).tolist() == [30] * 10
    assert sorted([*train.sample_index, *test.sample_index]) == list(range(1797))


def test_digits_are_rgb_images_of_scikit_learn_s():
    data = load_digits()
    lowest, highest = 255, 0
    for split in listed("digits").splits.values():
        assert split.images.shape == (len(split), 3, 32, 32)
        assert split.images.dtype == torch.uint8
        assert (split.images == split.images[:, :1]).all()
        lowest, highest = min(lowest, split.images.min()), max(highest, split.images.max())
        np.testing.assert_array_equal(split.label, data.target[split.sample_index])
        for row in range(0, len(split), 50):
            grey = Image.fromarray((data.images[split.sample_index[row]] * 255 / 16).astype(np.float32))
            scaled = np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(split.images[row, 0], scaled, atol=0.51)
    assert (lowest, highest) == (0, 255)


# CIFAR

TEN_LABELS = [3, 0, 7, 4, 1, 8, 5, 2, 9, 6]


def planes(n: int) -> np.ndarray:
    """(n, 3072) rows as CIFAR stores them: 1,024 red, 1,024 green, 1,024 blue, row by row."""
    data = np.zeros((n, 3, 32, 32), np.uint8)
    data[:, 0], data[:, 1], data[:, 2] = 10, 20, 30
    data[:, :, 2, 5] = np.arange(n)[:, None]  # row 2, column 5 holds the image's number
    return data.reshape(n, 3072)


def write_archive(dataset: type, root: Path, parts: dict[str, dict], meta: dict, monkeypatch) -> None:
    """Write files in torchvision's layout, and make it expect these with their checksums."""
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    for name, content in {**parts, dataset.meta["filename"]: meta}.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    for which in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, which, [[name, None] for name, _ in getattr(dataset, which)])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": None})


@pytest.fixture
def cifar10_root(tmp_path, monkeypatch) -> Path:
    labels = [
        TEN_LABELS[:4],
        TEN_LABELS[4:8],
        TEN_LABELS[8:] + TEN_LABELS[:2],
        TEN_LABELS[2:6],
        TEN_LABELS[6:],
    ]
    parts = {f"data_batch_{i}": {"data": planes(4), "labels": part} for i, part in enumerate(labels, 1)}
    parts["test_batch"] = {"data": planes(3), "labels": [0, 9, 4]}
    meta = {"label_names": [f"class {c}" for c in range(10)]}
    write_archive(torchvision.datasets.CIFAR10, tmp_path, parts, meta, monkeypatch)
    return tmp_path


def test_cifar10_is_read_from_torchvision_s_files(cifar10_root):
    source = listed("cifar10", cifar10_root)
    train, test = source.splits["train"], source.splits["test"]
    assert source.class_names == [f"class {c}" for c in range(10)]
    assert train.label.tolist() == TEN_LABELS * 2
    assert test.label.tolist() == [0, 9, 4]
    assert train.label.dtype == np.int64
    assert train.sample_index.tolist() == list(range(20))
    assert train.images.shape == (20, 3, 32, 32)
    assert train.images.dtype == torch.uint8
    assert train.images[0, :, 0, 0].tolist() == [10, 20, 30]  # red, green, blue
    assert train.images[:, 0, 2, 5].tolist() == [0, 1, 2, 3] * 5
    assert train.images[3, 0, 5, 2] == 10


def test_cifar100_has_its_fine_labels(tmp_path, monkeypatch):
    parts = {
        "train": {"data": planes(3), "fine_labels": [99, 5, 50], "coarse_labels": [0, 1, 2]},
        "test": {"data": planes(2), "fine_labels": [1, 0], "coarse_labels": [3, 4]},
    }
    fine = [f"fine {c}" for c in range(100)]
    meta = {"fine_label_names": fine, "coarse_label_names": [f"coarse {c}" for c in range(20)]}
    write_archive(torchvision.datasets.CIFAR100, tmp_path, parts, meta, monkeypatch)
    source = listed("cifar100", tmp_path)
    assert source.class_names == fine
    assert source.splits["train"].label.tolist() == [99, 5, 50]
    assert source.splits["test"].label.tolist() == [1, 0]
    assert source.splits["test"].images[1, 2, 2, 5] == 1


# Class folders


def test_folders_are_listed_sorted_and_nothing_else_is(tmp_path):
    root = write_folder(
        tmp_path,
        {
            "train/zebra/b.png": 1,
            "train/zebra/a.jpg": 2,
            "train/ant/x.PNG": 3,
            "train/ant/y.JPEG": 4,
            "test/ant/1.png": 5,
            "test/zebra/2.webp": 6,
            "test/zebra/.hidden.png": 7,
        },
    )
    (root / "train/zebra/notes.txt").write_text("no image")
    (root / "train/zebra/folder.png").mkdir()
    (root / "train/.cache").mkdir()
    (root / "train/README.md").write_text("no class")
    source = listed("imagefolder", root)
    assert source.class_names == ["ant", "zebra"]
    assert list(source.splits) == ["train", "test"]
    train, test = source.splits["train"], source.splits["test"]
    assert names(train, root / "train") == ["ant/x.PNG", "ant/y.JPEG", "zebra/a.jpg", "zebra/b.png"]
    assert train.label.tolist() == [0, 0, 1, 1]
    assert train.sample_index.tolist() == [0, 1, 2, 3]
    assert names(test, root / "test") == ["ant/1.png", "zebra/2.webp"]
    assert not train.in_memory


def test_val_is_taken_where_there_is_one_and_may_lack_classes(tmp_path):
    files = [f"{split}/{c}/0.png" for split in ("train", "test") for c in "abc"]
    root = write_folder(tmp_path, dict.fromkeys([*files, "val/c/0.png", "val/a/0.png"], 9))
    source = listed("imagefolder", root)
    assert list(source.splits) == ["train", "val", "test"]
    assert source.splits["val"].label.tolist() == [0, 2]  # by train's classes, not val's own


# Data sets


@pytest.fixture
def root(tmp_path) -> Path:
    sizes = {"train": (6, 5), "test": (2, 2)}
    files = [f"{s}/{c}/{i}.png" for s, n in sizes.items() for c in (0, 1) for i in range(n[c])]
    return write_folder(tmp_path, {name: 10 * i for i, name in enumerate(files)})


def test_a_description_stands_for_the_same_splits_every_time(root, quiet):
    described = DatasetConfig("imagefolder", str(root), imbalance_factor=2, val_per_class=1)
    first, second = (load_dataset(described, 8, quiet) for _ in range(2))
    assert first.class_counts.tolist() == [5, 2]
    assert list(first.splits) == ["train", "val", "test"]
    assert first.fingerprint == second.fingerprint
    for name, split in first.splits.items():
        assert torch.equal(split.images, second.splits[name].images)
        np.testing.assert_array_equal(split.sample_index, second.splits[name].sample_index)
    found = {"root": str(root.resolve()), "tail_order": "class index"}
    assert dataclasses.replace(described, **found) == first.config


def test_small_images_are_decoded_and_large_ones_stay_files(root, quiet):
    described = DatasetConfig("imagefolder", str(root))
    small, large = (load_dataset(described, size, quiet) for size in (64, 65))
    assert small.train.images.shape == (11, 3, 64, 64)
    assert not large.train.in_memory
    assert small.fingerprint == large.fingerprint
    for row, path in enumerate(large.train.images):
        assert (small.train.images[row] == Image.open(path).getpixel((0, 0))[0]).all()
        assert path.parent.name == str(small.train.label[row])


def test_the_fingerprint_tells_other_images_and_other_splits(root, quiet):
    described = DatasetConfig("imagefolder", str(root), imbalance_factor=2)
    fingerprints = {load_dataset(described, 8, quiet).fingerprint}
    for changes in ({"imbalance_factor": None}, {"val_per_class": 1}):
        fingerprints.add(load_dataset(dataclasses.replace(described, **changes), 8, quiet).fingerprint)
    (root / "test/1/0.png").rename(root / "test/1/5.png")
    fingerprints.add(load_dataset(described, 8, quiet).fingerprint)
    (root / "train/1").rename(root / "train/2")
    (root / "test/1").rename(root / "test/2")
    fingerprints.add(load_dataset(described, 8, quiet).fingerprint)
    assert len(fingerprints) == 5


def test_the_fingerprint_tells_other_labels_and_names_of_the_same_pixels(cifar10_root, quiet):
    described = DatasetConfig("cifar10", str(cifar10_root))
    folder = cifar10_root / torchvision.datasets.CIFAR10.base_folder
    fingerprints = {load_dataset(described, 32, quiet).fingerprint}
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    fingerprints.add(load_dataset(described, 32, quiet).fingerprint)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": planes(3), "labels": [0, 9, 5]}))
    fingerprints.add(load_dataset(described, 32, quiet).fingerprint)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": planes(3) + 1, "labels": [0, 9, 5]}))
    fingerprints.add(load_dataset(described, 32, quiet).fingerprint)
    assert len(fingerprints) == 4


def test_the_fingerprint_does_not_depend_on_where_the_images_lie(root, quiet):
    before = load_dataset(DatasetConfig("imagefolder", str(root)), 8, quiet)
    moved = root.rename(root.with_name("elsewhere"))
    assert load_dataset(DatasetConfig("imagefolder", str(moved)), 8, quiet).fingerprint == before.fingerprint


def test_the_test_split_stays_whole_and_validation_leaves_training(quiet):
    described = DatasetConfig("digits", imbalance_factor=20, val_per_class=5)
    dataset = load_dataset(described, 32, quiet)
    everything = listed("digits").splits
    assert torch.equal(dataset.test.images, everything["test"].images)
    assert np.bincount(dataset.val.label).tolist() == [5] * 10
    assert not set(dataset.train.sample_index) & set(dataset.val.sample_index)
    assert not set(dataset.test.sample_index) & {*dataset.train.sample_index, *dataset.val.sample_index}
    for split in dataset.splits.values():  # labels and pixels still belong together
        np.testing.assert_array_equal(split.label, load_digits().target[split.sample_index])
