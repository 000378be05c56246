"""How often a window asks a GPU for something: counted, on a CPU."""

import importlib
from pathlib import Path

import pytest

from store.reader import FeatureStore

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("method", ["fsa", "fsa+balanced-softmax", "h2t", "mixup", "tailcalib"])
def test_draws_and_batches_are_asked_for_as_a_whole(method, feature_store, monkeypatch):
    """A thousand iterations take as many operations as a few; batches take a handful, fewer than steps."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    launches = importlib.import_module("launches")
    drawn, drawn_ahead, batches, steps = launches.of_window(FeatureStore(feature_store), method).values()
    assert drawn == drawn_ahead
    assert batches <= 20
    assert steps >= launches.WINDOW
