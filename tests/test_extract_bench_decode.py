"""`make bench-decode` in small: what it measures, and what it compares that with."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_decode")


def test_it_measures_every_candidate(bench, tmp_path):
    found = tmp_path / "figures.json"
    options = ["--tiny", "--repeats", "1", "--folder", str(tmp_path), "--json", str(found)]
    result = CliRunner().invoke(bench.main, options)
    assert result.exit_code == 0, (result.output, result.exception)
    (row,) = json.loads(found.read_text())["decoding"]
    assert row["d"] == max(row["torchvision images/s"], row["Pillow images/s"])
    assert row["ratio"] == pytest.approx(row["extract"] / row["limit"])
    assert row["limit"] < min(row["d"], row["f"])
    assert list(tmp_path.iterdir()) == [found]  # nothing else is left


@pytest.mark.parametrize(("device", "ratio"), [("cpu", 1.0), ("cuda", 0.6)])
def test_the_limit_is_shared_cores_or_the_slower_of_two_machines(bench, device, ratio, capsys):
    taken = {
        "torchvision": [300.0] * 3,
        "Pillow": [200.0] * 3,
        "forward": [200.0] * 3,
        "in pieces": [300.0] * 3,
        "extract": [120.0] * 3,
    }
    row = bench.report(bench.TINY, pd.DataFrame(taken), torch.device(device))
    assert row["ratio"] == pytest.approx(ratio)
    assert row["ratio to it"] == pytest.approx({"cpu": 120 / 150, "cuda": 120 / 300}[device])
    assert ("MISSED" in capsys.readouterr().out) == (ratio < 0.9)


def test_its_files_are_as_large_as_photographs_and_all_differ(bench, tmp_path):
    n_bytes = importlib.import_module("jpeg_folder").write_class_folders(tmp_path, 20, 4)
    paths = sorted(tmp_path.rglob("*.jpg"))
    assert len(paths) == 20
    assert n_bytes == sum(path.stat().st_size for path in paths)
    assert 40_000 < n_bytes / 20 < 70_000
    assert len({path.read_bytes() for path in paths}) == 20
    assert {(path.parts[-3], path.parts[-2]) for path in paths} == {
        (split, f"class {k}") for split in ("train", "test") for k in range(4)
    }
    with Image.open(paths[0]) as image:
        assert image.size == (500, 375)
        assert np.asarray(image).std() > 30
