"""The images that choose among recipes: none of them was seen in training, and few in validation."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from extract.config import DatasetConfig
from extract.dataset import list_dataset

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
EACH = 20  # images of a class


@pytest.fixture
def unseen(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("unseen_images")


@pytest.fixture
def data(tmp_path) -> Path:
    for split in ("train", "test"):
        for name in "abc":
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(EACH):
                Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("seed", [0, 3])
def test_unseen_images_are_those_of_no_split(unseen, data, quiet, seed):
    config = DatasetConfig("imagefolder", str(data), imbalance_factor=5, subset_seed=seed, val_per_class=2)
    found, dataset = unseen.unseen(config), list_dataset(config, quiet)
    train, val = (set(map(Path, split.images)) for split in (dataset.train, dataset.val))
    assert not found.keys() & train
    assert {path.parent.parent.name for path in found} == {"train"}
    assert all(path.parent.name == name for path, name in found.items())
    first = {path for path, name in found.items() if name == "a"}
    assert first == {path for path in val if path.parent.name == "a"}  # all others are trained on
    rest = found.keys() - first
    assert not rest & val
    assert len(rest) == 2 * EACH - sum(path.parent.name != "a" for path in train | val)


def test_a_link_to_the_data_gives_the_same_images(unseen, data, tmp_path):
    config = DatasetConfig("imagefolder", str(data), imbalance_factor=5, val_per_class=2)
    (tmp_path / "link").symlink_to(data)
    (data / "train" / "b" / "notes.txt").write_text("no image")
    for root in (tmp_path / "link", f"{data}/../{data.name}"):
        there = unseen.unseen(config.moved(str(root)))
        assert {path.resolve() for path in there} == unseen.unseen(config).keys()


def test_the_standard_error_is_that_of_a_mean_over_classes(unseen):
    """Against the spread of accuracies drawn with these probabilities."""
    classes = dict.fromkeys(map(Path, map(str, range(100))), "a")
    classes |= dict.fromkeys(map(Path, map(str, range(100, 500))), "b")
    accuracies = pd.Series({"a": 80.0, "b": 40.0})
    draws = np.random.default_rng(0).binomial([100, 400], [0.8, 0.4], (20000, 2)) / [100, 400]
    expected = 100 * draws.mean(axis=1).std()
    assert unseen.standard_error(accuracies, classes) == pytest.approx(expected, rel=0.02)
