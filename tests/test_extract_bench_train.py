"""`make bench-train` in small: what it measures, and what it compares that with."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_train")


def test_training_is_measured_beside_every_candidate(bench, tmp_path):
    found = tmp_path / "figures.json"
    options = ["--tiny", "--repeats", "1", "--folder", str(tmp_path), "--json", str(found)]
    result = CliRunner().invoke(bench.main, options)
    assert result.exit_code == 0, (result.output, result.exception)
    small, large = json.loads(found.read_text())["training"]
    assert small["d"] == float("inf")
    assert small["limit"] == pytest.approx(small["t"])
    assert large["limit"] == pytest.approx(1 / (1 / large["d"] + 1 / large["t"]))
    for row in (small, large):
        assert row["ratio"] == pytest.approx(row["train"] / row["limit"])
    assert list(tmp_path.iterdir()) == [found]  # nothing else is left


@pytest.mark.parametrize(("device", "ratio"), [("cpu", 1.0), ("cuda", 0.6)])
def test_the_limit_of_training_is_shared_cores_or_the_slower_machine(bench, device, ratio, capsys):
    taken = {"d": [300.0] * 3, "t": [200.0] * 3, "train": [120.0] * 3}
    row = bench.report(bench.TINY[0], pd.DataFrame(taken), torch.device(device))
    assert row["ratio"] == pytest.approx(ratio)
    assert ("MISSED" in capsys.readouterr().out) == (ratio < 0.9)
