"""A run reads each array of its store once: over S3, or for a large store, every other read takes minutes."""

from collections import Counter

import pytest
from bad_input import QUICK, succeed

from store.arrays.raw import StoredArray


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Rows read of every array, divided by its length."""
    counts: Counter = Counter()
    read = StoredArray.read

    def counted(self, start=0, stop=None):
        counts[self.name] += ((self.shape[0] if stop is None else stop) - start) / self.shape[0]
        return read(self, start, stop)

    monkeypatch.setattr(StoredArray, "read", counted)
    return counts


@pytest.mark.parametrize("method", ["fsa", "crt", "ncm", "weight-balancing"])
def test_a_run_reads_every_array_once(method, feature_store, tmp_path, reads):
    succeed("finetune", "--store", feature_store, "--out", tmp_path / "run", "--method", method, *QUICK)
    assert {name: n for name, n in reads.items() if n > 1} == {}
    assert reads["train/pooled"] == reads["test/pooled"] == reads["val/pooled"] == 1
    assert reads["train/feature_map"] == reads["train/cam"] == (method == "fsa")


def test_a_sweep_reads_every_array_once(feature_store, tmp_path, reads):
    varied = ("--grid", "method=fsa,ncm,tau-norm", "--seeds", 2, "--grid", "tau_s=0.5,0.7")
    succeed("sweep", "--store", feature_store, "--out", tmp_path / "sweep", "--iterations", 2, *varied)
    assert {name: n for name, n in reads.items() if n > 1} == {}
    assert reads["train/pooled"] == reads["train/feature_map"] == 1
