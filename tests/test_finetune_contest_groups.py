"""A contest on images that come in groups: these choose, not the images one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import TINY, succeed, write_images

from analysis.bootstrap import resampled_accuracies
from finetune.contest.choosing import Choosing, choosing_on
from finetune.contest.comparable import check_comparable
from finetune.contest.config import ContestConfig
from finetune.contest.contest import contest
from finetune.heads.threads import Threads
from finetune.training.trainer import LoadedStore
from store.arrays.image_names import image_names
from store.reader import FeatureStore
from store.storage.location import locate

pytestmark = pytest.mark.usefixtures("in_tmp_path")

FRAMES, TRACKS = 3, {"ant": 24, "bee": 12, "cat": 8}
N_CLASSES = 10  # of `feature_store`


@pytest.fixture
def tracks(tmp_path) -> Path:
    """A store of tracks of three frames, which are held out as a whole; those of cats share a frame."""
    root = write_images(tmp_path / "images", {name: FRAMES * n for name, n in TRACKS.items()}, ("train",))
    for path in root.rglob("*.png"):
        track, frame = divmod(int(path.stem), FRAMES)
        path.rename(path.with_name(f"{track}_{frame}.png"))
    for path in (root / "train" / "cat").glob("*_2.png"):  # copies, which join all tracks of cats
        path.write_bytes((root / "train" / "cat" / "0_0.png").read_bytes())
    held_out = ["--test-fraction", 0.3, "--val-fraction", 0.3, "--group-regex", "(.*)_"]
    options = ["--dataset", "imagefolder", "--root", root / "train", "--image-size", 16, "--no-flip"]
    succeed("train", *options, *held_out, *TINY, "--out", "p1")
    succeed("extract", "--ckpt", "p1/checkpoint.pt", "--store", "feats.zarr", "--device", "cpu")
    return tmp_path / "feats.zarr"


def loaded(store: Path) -> LoadedStore:
    opened = FeatureStore(locate(str(store)))
    return LoadedStore.open(opened, "decoupling", torch.device("cpu"), Threads(1))


def group_names(store: FeatureStore, split: str) -> np.ndarray:
    """The class and track of each image, numbered; all cats are one."""
    names = [name.rpartition("_")[0] for name in image_names(store, split)]
    return np.unique(["cat" if "cat" in name else name for name in names], return_inverse=True)[1]


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = len(np.unique(np.stack([one, other]), axis=1).T)
    return pairs == len(np.unique(one)) == len(np.unique(other))


@pytest.mark.usefixtures("few_entries")
def test_whole_groups_are_resampled(tracks, quiet, monkeypatch, caplog):
    """Of both splits, as the names of the images say; and few groups are told of, not many images."""
    asked = []

    def noted(label, right, by, **given):
        asked.append((label, given["together"]))
        return resampled_accuracies(label, right, by, **given)

    monkeypatch.setattr("finetune.contest.standings.resampled_accuracies", noted)
    contest(ContestConfig((str(tracks),), "c", iterations=20, device="cpu"), quiet)
    of_store = loaded(tracks)
    for split, (label, together) in zip(("val", "test"), asked[-2:], strict=True):
        group = group_names(of_store.store, split)
        assert np.array_equal(label, of_store.held_out[split].label)
        assert len(np.unique(group)) == 1 + (label < 2).sum() / FRAMES
        assert same_partition(together, group)
    told = "val has images of a class that say as much as 1.0 groups of one size, so that intervals are rough"
    assert told in caplog.text


def test_a_store_without_its_groups_is_told_of(tracks, quiet, caplog, monkeypatch):
    monkeypatch.setattr("finetune.cross_validation.allowed.image_groups", lambda store, split: None)
    of_store, config = loaded(tracks), ContestConfig((str(tracks),), "c")
    check_comparable([of_store], [choosing_on(config, of_store, quiet)], config)
    assert f"{tracks}: its images come in groups, which an older version did not record" in caplog.text


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ([1] * 9, None),
        ([1] * 4, "val has 4 images of a class"),
        ([1], "val has 1 image of a class"),
        ([2] * 5, None),
        ([3, 3, 3], "say as much as 3.0 groups of one size"),
        ([9, 1, 1, 1, 1, 1], "say as much as 2.3 groups of one size"),  # 14² / (81 + 5)
    ],
)
def test_few_or_unequal_groups_are_told_of(feature_store, caplog, sizes, says):
    of_store, n_others = loaded(feature_store), 10 * (N_CLASSES - 1)
    label = np.concatenate([np.zeros(sum(sizes), int), np.repeat(np.arange(1, N_CLASSES), 10)])
    together = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), 100 + np.arange(n_others)])
    config = ContestConfig((str(feature_store),), "c")
    check_comparable([of_store], [Choosing("val", label, b"", together)], config)
    told = [record.message for record in caplog.records if "rough" in record.message]
    assert len(told) == (says is not None)
    assert says is None or says in told[0]


def test_held_out_rows_of_folds_are_joined_by_group(pairs_store, quiet):
    config = ContestConfig((str(pairs_store),), "c", select_on="cv", folds=2)
    chosen_on = choosing_on(config, loaded(pairs_store), quiet)
    names = np.array(image_names(FeatureStore(locate(str(pairs_store))), "train"))[chosen_on.folds.held]
    groups = np.unique([name.rpartition("-")[0] for name in names], return_inverse=True)[1]
    assert len(np.unique(groups)) < len(names)
    assert same_partition(chosen_on.together, groups)
    np.testing.assert_array_equal(chosen_on.together, chosen_on.folds.together[chosen_on.folds.held])
