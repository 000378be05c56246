"""Sweeps over unlike things: an option that is a number or a word, methods of which some lack an option."""

from pathlib import Path

import pandas as pd
import pytest
from bad_input import succeed

from finetune.finished_sweep import read_sweep

SHORT = ["--iterations", 4, "--window", 4, "--device", "cpu", "--seeds", 1]
pytestmark = pytest.mark.usefixtures("in_tmp_path")


def sweep(store: Path, *arguments: object) -> None:
    succeed("sweep", "--store", store, "--out", "sweep", *SHORT, *arguments)


@pytest.mark.parametrize(
    ("grid", "bounds"),
    [
        (["method=weight-balancing", "max_norm=1,relative"], [1.0, "relative"]),
        (["method=plain,weight-balancing", "max_norm=none,0.5"], [None, 0.5, "relative", 0.5]),
    ],
)
def test_an_option_of_numbers_and_words(feature_store, grid, bounds):
    sweep(feature_store, *(word for part in grid for word in ("--grid", part)))
    of_parquet = pd.read_parquet("sweep/results.parquet")["max_norm"]
    assert of_parquet.isna().tolist() == [x is None for x in bounds]
    assert of_parquet.dropna().tolist() == [str(x) for x in bounds if x is not None]
    assert [config.max_norm for config in read_sweep(Path("sweep")).configs] == bounds
    succeed("analyze", "sweep")
    ranking, ended = (pd.read_csv(f"{path}/ranking.csv") for path in ("report", "sweep"))
    assert ranking["configuration"].tolist() == ended["configuration"].tolist()
