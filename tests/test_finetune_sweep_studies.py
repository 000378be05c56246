"""`sweep --study`: the paper's ablations by name."""

import json
from pathlib import Path

import pandas as pd
import pytest
from bad_input import refuse, succeed

from finetune.config import FinetuneConfig
from finetune.sweep.config import SweepConfig, parse_grid
from finetune.sweep.studies import STUDIES

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SHORT = ["--iterations", 2, "--device", "cpu", "--seeds", 1]


@pytest.mark.parametrize("study", [name for name in STUDIES if name != "depth"])  # of a larger network
def test_a_study_is_its_grids(feature_store, study):
    """Every value is possible with the defaults, and makes a head of its own or the same one as another."""
    given = ["sweep", "--store", feature_store, *SHORT]
    succeed(*given, "--out", "s", "--study", study)
    by_hand = [part for grid in STUDIES[study] for part in ("--grid", grid)]
    succeed(*given, "--out", "g", *by_hand)
    found, expected = (pd.read_csv(f"{out}/ranking.csv").drop(columns="seconds") for out in "sg")
    pd.testing.assert_frame_equal(found, expected)
    assert len(found) > 2
    base = FinetuneConfig(str(feature_store), method="fsa")
    made = SweepConfig(base, study=study, seeds=1).configurations()
    n_values = [len(parse_grid(grid)[1]) for grid in STUDIES[study]]
    assert len(made) == pd.Series(n_values).prod()


def test_a_study_may_be_crossed_with_a_grid(feature_store):
    given = ["sweep", "--store", feature_store, *SHORT, "--study", "no-aug"]
    succeed(*given, "--grid", "loss=ce,balanced-softmax", "--out", "s")
    assert len(pd.read_csv("s/ranking.csv")) == 6
    refuse(*given, "--grid", "method=crt", "--out", "t", says=["--grid, --study, --range", "given twice"])
    refuse(*given[:-1], "fig-8", "--out", "t", says=["fig-8", "h_r"])


def test_a_sweep_of_a_version_without_studies_resumes(feature_store):
    given = ["sweep", "--store", feature_store, *SHORT, "--grid", "lr=0.001,0.01", "--out", "s"]
    succeed(*given)
    content = json.loads(Path("s/sweep.json").read_text())
    assert content["options"].pop("study") is None
    Path("s/sweep.json").write_text(json.dumps(content))
    before = Path("s/results.csv").read_bytes()
    succeed(*given, "--resume")
    assert Path("s/results.csv").read_bytes() == before
    refuse(*given, "--study", "gamma", "--resume", says=["cannot resume: study was None"])


def test_all_heads_of_h_r_are_measured_by_one_split(feature_store):
    """Head and tail accuracy by the sweep's own --head-ratio, whatever each head was trained with."""
    succeed("sweep", "--store", feature_store, *SHORT, "--study", "h_r", "--out", "s")
    assert json.loads(Path("s/sweep.json").read_text())["one_split"]
    results = pd.read_csv("s/results.csv")
    assert results["head_ratio"].nunique() == 8
    succeed("analyze", "s", "--out", "report")
    assert Path("report/options.png").stat().st_size > 0
