"""How often a window asks a GPU for something: counted, on a CPU."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from finetune.config import FinetuneConfig
from finetune.loading import drawn_ahead
from finetune.methods.registry import find_sampling
from finetune.training.inputs import plan_inputs
from store.reader import FeatureStore

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
METHODS = ["fsa", "fsa+balanced-softmax", "h2t", "mixup", "tailcalib"]


@pytest.fixture
def launches(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("launches")


@pytest.mark.parametrize("method", METHODS)
def test_a_draw_of_any_length_takes_as_many_operations(method, feature_store, launches):
    store = FeatureStore(feature_store)
    config = FinetuneConfig(str(feature_store), method=method).resolved(len(store.class_names))
    draw, inputs = find_sampling(config).draw, plan_inputs(config, store).on(torch.device("cpu"))
    counts = []
    for stop in (1, 3, 200):
        with launches.Launches() as counted:
            draw(inputs, 0, stop)
        counts.append(counted.n)
    assert counts[0] == counts[1] == counts[2] > 100


@pytest.mark.parametrize("method", METHODS)
def test_batches_take_a_handful_and_draws_are_shared_by_windows(method, feature_store, launches):
    found = launches.of_window(FeatureStore(feature_store), method)
    assert found["of iterations"] == drawn_ahead.ITERATIONS
    assert found["draws of a window"] == round(found["a draw"] / (drawn_ahead.ITERATIONS / launches.WINDOW))
    assert found["batches"] <= 20
    assert found["steps"] % launches.WINDOW == 0  # nothing in a recording that is not of a step
    assert found["steps"] // launches.WINDOW <= 20
