"""A resumed run needs the store that it was started with: all its splits, not only training images."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import refuse, succeed
from test_extract_sample import rewrite
from test_finetune_resume import interrupt

from finetune.config import FinetuneConfig
from finetune.train import finetune
from finetune.training.resume import unfinished_path
from store.errors import UserError
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def other_features(rows, split: str) -> None:
    rows[f"{split}/pooled"] = rows[f"{split}/pooled"] * np.float32(1.5)


def other_labels(rows, split: str) -> None:
    rows[f"{split}/label"][-1] -= 1
    rows[f"{split}/label"].sort()


def other_images(rows, split: str) -> None:
    rows[f"{split}/sample_index"] = rows[f"{split}/sample_index"] + 1


CHANGES = [(other_features, "val"), (other_features, "test"), (other_labels, "test"), (other_images, "val")]


@pytest.fixture(scope="module")
def stores(feature_store, tmp_path_factory) -> Path:
    """A store, and the same with another validation or test split. Do not modify."""
    folder = tmp_path_factory.mktemp("stores")
    rewrite(feature_store, folder / "s.zarr", lambda rows: None)
    for change, split in CHANGES:
        path = folder / f"{change.__name__}_{split}.h5"
        rewrite(feature_store, path, lambda rows, of=(change, split): of[0](rows, of[1]))
    succeed("store", "convert", folder / "s.zarr", folder / "s.h5", "--chunk-kib", 1)
    return folder


@pytest.fixture
def config(stores, phase1) -> FinetuneConfig:
    """A run; its checkpoint is given, because the stores were moved."""
    options = {"iterations": 60, "eval_every": 20, "window": 8, "device": "cpu", "ckpt": str(phase1)}
    return FinetuneConfig(str(stores / "s.zarr"), "run", **options, method="fsa")


@pytest.mark.parametrize(("change", "split"), CHANGES)
def test_a_run_goes_on_with_no_other_split(stores, config, quiet, monkeypatch, change, split):
    interrupt(config, 45)
    other = stores / f"{change.__name__}_{split}.h5"
    says = rf"run.unfinished.pt: belongs to another store than .*{other.name} \(its {split} split differs\)"
    with pytest.raises(UserError, match=says):
        finetune(replace(config, resume=True, store=str(other)), quiet)


def test_a_run_goes_on_with_the_same_store_in_another_container(stores, config, quiet, monkeypatch):
    whole = finetune(replace(config, out="whole"), quiet)
    interrupt(config, 45)
    finetune(replace(config, resume=True, store=str(stores / "s.h5")), quiet)
    assert Path("run/head.pt").read_bytes() == (whole.path / "head.pt").read_bytes()


def of_version_0_1(path: Path) -> str:
    """What version 0.1 recorded: the training split and the FC layer."""
    store = FeatureStore(path)
    made = sha256(json.dumps(store.provenance["checkpoint"], sort_keys=True).encode())
    names = [f"train/{name}" for name in ("label", "sample_index", "view", "pooled")]
    for name in (*names, "classifier/weight", "classifier/bias"):
        made.update(store.arrays[name].read().tobytes())
    made.update(store.map_dtype.encode())
    return made.hexdigest()


def test_a_run_that_version_0_1_began_goes_on_with_a_note(stores, config, quiet, monkeypatch, caplog):
    interrupt(config, 45)
    state = torch.load(unfinished_path("run"), weights_only=True)
    torch.save(state | {"store": "0" * 64}, unfinished_path("run"))
    with pytest.raises(UserError, match=r"another store than .* \(its training split or network differs\)"):
        finetune(replace(config, resume=True), quiet)
    torch.save(state | {"store": of_version_0_1(stores / "s.zarr")}, unfinished_path("run"))
    finetune(replace(config, resume=True), quiet)
    assert "which recorded only the training split" in caplog.text


def test_a_sweep_ranks_no_heads_of_two_stores(stores, phase1):
    sweep = ["sweep", "--out", "sweep", "--iterations", 2, "--grid", "method=crt,ncm", "--device", "cpu"]
    succeed(*sweep, "--store", stores / "s.zarr")
    for change, split in CHANGES:
        other = stores / f"{change.__name__}_{split}.h5"
        says = [
            f"sweep: a sweep of another store than {other} (its {split} split differs)",
            "another --out",
        ]
        refuse(*sweep, "--resume", "--store", other, says=says)
    succeed(*sweep, "--resume", "--store", stores / "s.h5")


def test_a_sweep_of_version_0_1_is_bound_from_its_resume_on(stores):
    sweep = ["sweep", "--out", "sweep", "--iterations", 2, "--grid", "method=crt,ncm", "--device", "cpu"]
    succeed(*sweep, "--store", stores / "s.zarr")
    marker = Path("sweep/sweep.json")
    content = json.loads(marker.read_text())
    marker.write_text(json.dumps(content | {"store": of_version_0_1(stores / "s.zarr")}))
    refuse(*sweep, "--store", stores / "s.zarr", says=["holds this sweep", "4 of its 4 heads done"])
    result = succeed(*sweep, "--resume", "--store", stores / "s.zarr")
    assert "which recorded only the training split" in result.stderr
    assert json.loads(marker.read_text()) == content
    assert "version 0.1" not in succeed(*sweep, "--resume", "--store", stores / "s.zarr").stderr
