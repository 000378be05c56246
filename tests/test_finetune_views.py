"""Stores with several views per image: draws pick a view, everything else counts images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from extract.config import ExtractConfig
from extract.dump import extract
from finetune.config import FinetuneConfig
from finetune.methods.registry import METHODS
from finetune.train import finetune
from finetune.training.inputs import plan_inputs
from finetune.training.statistics import TrainStatistics
from store.reader import FeatureStore

VIEWS = 3


@pytest.fixture(scope="module")
def viewed(phase1, tmp_path_factory) -> Path:
    from rich.progress import Progress

    path = tmp_path_factory.mktemp("views") / "feats.zarr"
    config = ExtractConfig(str(phase1), str(path), dtype="float32", device="cpu", views=VIEWS)
    extract(config, Progress(disable=True))
    return path


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.sampling])
def test_draws_pick_every_view_alike(viewed, feature_store, method):
    store, single = FeatureStore(viewed), FeatureStore(feature_store)
    config = FinetuneConfig("", method=method).resolved(len(store.class_names))
    inputs, one_view = plan_inputs(config, store), plan_inputs(config, single)
    plan = METHODS[method].sampling.draw(inputs, 0, 500)
    rows = [
        plan.row,
        *(getattr(plan.mix, name) for name in ("donor_row", "partner") if hasattr(plan.mix, name)),
    ]
    view = store.read("train").view[np.concatenate(rows, axis=1)]
    np.testing.assert_allclose(np.bincount(view.ravel()) / view.size, 1 / VIEWS, atol=0.01)
    prior = METHODS[method].sampling.prior
    np.testing.assert_allclose(prior(inputs), prior(one_view))  # as of images
    np.testing.assert_array_equal(inputs.head_tail.tail, one_view.head_tail.tail)


def test_counts_are_of_images(viewed, feature_store):
    counts = [TrainStatistics(FeatureStore(path)).class_counts.tolist() for path in (viewed, feature_store)]
    assert counts[0] == counts[1]
    assert len(FeatureStore(viewed).read("train").label) == VIEWS * sum(counts[0])


def test_a_run_tells_images_and_streams_views_as_it_holds_them(viewed, tmp_path, quiet):
    config = FinetuneConfig(
        str(viewed), str(tmp_path / "run"), iterations=40, device="cpu", overwrite=True, method="fsa"
    )
    run = finetune(config, quiet)
    assert run.per_class["n_train"].tolist() == TrainStatistics(FeatureStore(viewed)).class_counts.tolist()
    held = torch.load(run.path / "head.pt", weights_only=True)
    finetune(replace(config, residency="stream"), quiet)
    assert torch.equal(held["weight"], torch.load(run.path / "head.pt", weights_only=True)["weight"])
