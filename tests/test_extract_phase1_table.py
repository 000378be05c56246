"""The tables of Phase I's recipes: trainings that differ by more than their seeds are not averaged."""

import importlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("phase1_table")


def write(
    folder: Path, seed: int = 0, subset_seed: int = 0, mixup: float | None = None, score: float = 70
) -> None:
    """A training with two sweeps, the better one of which has a score on test images."""
    config = {"out": str(folder), "seed": seed, "recipe": "short", "epochs": 60, "mixup": mixup}
    config["dataset"] = {"imbalance_factor": 100, "subset_seed": subset_seed}
    (folder / "phase1").mkdir(parents=True)
    (folder / "phase1" / "config.json").write_text(json.dumps(config))
    epochs = {"seconds": [1.0, 3.0, 8.0], "val_balanced_accuracy": [50.0, None, 58.0]}
    pd.DataFrame(epochs).to_csv(folder / "phase1" / "metrics.csv")
    alone = {"overall": 60, "many": 61, "medium": 62, "few": None}
    (folder / "phase1.json").write_text(json.dumps(alone))
    for method, val, test in (("crt", 71, 99), ("fsa", 72, score)):
        (folder / method).mkdir()
        means = {"val_balanced_accuracy_mean": [val, 1], "test_balanced_accuracy_mean": [test, 1]}
        means |= {f"test_{group}_mean": [test, 1] for group in ("many", "medium", "few")}
        frame = pd.DataFrame({"configuration": [f"{method}, best", f"{method}, other"]} | means)
        frame.to_csv(folder / method / "ranking.csv", index=False)


def test_a_row_has_the_head_that_val_chose(table, tmp_path):
    write(tmp_path / "a")
    row = table.figures(tmp_path / "a")
    assert (row["head"], row["chosen"], row["test_balanced_accuracy"]) == ("fsa", "fsa, best", 70)
    assert (row["Phase I val"], row["Phase I overall"], row["s an epoch"]) == (58, 60, 3)


def test_seeds_are_averaged_and_other_options_are_not(table, tmp_path, monkeypatch, capsys):
    write(tmp_path / "a")
    write(tmp_path / "b", seed=1, score=74)
    write(tmp_path / "c", mixup=1, score=80)
    write(tmp_path / "d", subset_seed=1, score=78)
    monkeypatch.setattr(sys, "argv", ["phase1_table.py", str(tmp_path)])
    table.main()
    rows, seeds, subsets = capsys.readouterr().out.split("\n\n")
    assert len(rows.splitlines()) == 5
    assert "72.0 ± 2.8" in seeds
    assert "80.0" in seeds
    assert "78" not in seeds
    assert len(seeds.splitlines()) == 4
    first, *others = (line.split() for line in subsets.splitlines()[2:])
    assert first[3:7] == ["2", "0", "0,", "1"]  # trainings, seeds, subset seeds
    assert "74.0 ± 5.7" in subsets  # of the first and the last
    assert len(others) == 1
