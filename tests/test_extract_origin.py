"""A store and a checkpoint that do not belong together are refused, whatever differs."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bad_input import FEW_CLASSES, QUICK, refuse, succeed
from made_store import SIZES, made_plan, made_rows, write_made

from extract.checkpoints.checkpoint import load_checkpoint
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SUFFIXES = (".zarr", ".h5")
WIDE = {split: axes | {"C": 16} for split, axes in SIZES.items()}  # channels of `small_ckpt`


def made_of(small_store: Path, path: Path, class_names: list[str], sizes=WIDE, **rows: np.ndarray) -> list:
    """Make a store that claims to be of `small_ckpt`; return the command that fine-tunes on it."""
    made = FeatureStore(small_store).provenance
    plan = replace(made_plan(sizes), class_names=class_names, provenance=made)
    write_made(path, plan, made_rows(sizes) | {name.replace("_", "/"): value for name, value in rows.items()})
    ckpt = made["checkpoint"]["path"]
    return ["finetune", "--store", path, "--ckpt", ckpt, "--out", "fsa", *QUICK, *FEW_CLASSES]


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(f"feats{request.param}")


@pytest.fixture
def fc(small_ckpt: Path) -> dict[str, np.ndarray]:
    """The checkpoint's FC layer."""
    state = load_checkpoint(small_ckpt).state
    return {f"classifier_{name}": state[f"classifier.{name}"].numpy() for name in ("weight", "bias")}


def test_a_made_store_with_the_checkpoints_classes_and_classifier_is_taken(small_store, path, fc):
    succeed(*made_of(small_store, path, ["ape", "bee", "cat"], **fc))


def test_another_order_of_classes(small_store, path, fc):
    command = made_of(small_store, path, ["ape", "cat", "bee"], **fc)
    says = ["the same classes in another order", "class 1 is 'cat' where the checkpoint's is 'bee'", "2 of 3"]
    refuse(*command, says=[f"{path}: has", *says, "extract again"])


def test_another_class(small_store, path, fc):
    command = made_of(small_store, path, ["ape", "bee", "cow"], **fc)
    refuse(*command, says=["other classes than", "class 2 is 'cow' where the checkpoint's is 'cat'"])


def test_more_classes(small_store, path, monkeypatch):
    monkeypatch.setattr("made_store.CLASSES", ["ape", "bee", "cat", "dog"])
    command = made_of(small_store, path, ["ape", "bee", "cat", "dog"])
    refuse(*command, says=[f"{path}: has 4 classes, but", "checkpoint.pt has 3", "extract again"])


def test_a_narrower_classifier(small_store, path):
    command = made_of(small_store, path, ["ape", "bee", "cat"], SIZES)
    refuse(*command, says=["classifier/weight is (3, 6) where the FC layer of", "is (3, 16)"])


def test_other_values_of_the_classifier(small_store, path, fc):
    bias = fc["classifier_bias"].copy()
    bias[1] = 0.5
    command = made_of(small_store, path, ["ape", "bee", "cat"], **fc | {"classifier_bias": bias})
    says = ["classifier/bias is 0.5 at (1,) where the FC layer of", "(1 of 3 values differ)"]
    refuse(*command, says=[*says, f"{fc['classifier_bias'][1]:.6g}"])


def test_another_checkpoint_is_told_by_both_digests(small_store, phase1):
    shutil.copytree(small_store, "feats.zarr")
    recorded = FeatureStore(small_store).provenance["checkpoint"]["sha256"]
    command = ["finetune", "--store", "feats.zarr", "--ckpt", phase1, *QUICK, *FEW_CLASSES]
    refuse(*command, says=["is not the checkpoint that feats.zarr", f"the store records {recorded[:8]}…"])
