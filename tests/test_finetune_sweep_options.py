"""Options of sweeps: grids, ranges and ranking, and errors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_input import refuse, succeed

from analysis.sweeps import rank_configurations
from finetune.config import FinetuneConfig
from finetune.sweep.config import Range, SweepConfig, parse_grid, parse_range
from finetune.sweep.sweep import shared_out

SHORT = ("--iterations", 30, "--device", "cpu", "--window", 8)


@pytest.mark.usefixtures("in_tmp_path")
def test_finetune_says_which_options_change_nothing(feature_store) -> None:
    command = ["finetune", "--store", feature_store, *SHORT]
    result = succeed(*command, "--tau", 5, "--method", "lws", "--max-norm", 1, "--lr", 0.1)
    notes = [line for line in result.stderr.splitlines() if "changes nothing for lws" in line]
    assert [line.split()[2] for line in notes] == ["--max-norm", "--tau"]
    assert (
        "changes nothing"
        not in succeed(*command, "--out", "b", "--loss", "balanced-softmax", "--tau", 2).stderr
    )


def test_ranking_is_by_the_split_named_and_diverged_heads_come_last():
    frame = pd.DataFrame(
        {
            "configuration": ["a", "a", "b", "b", "c", "c"],
            "diverged_at": [None, None, None, None, 7, None],
            "val_overall": [50.0, 52, 60, 40, np.nan, 99],
            "test_overall": [10.0, 10, 90, 90, np.nan, 99],
            "seconds": 1.0,
        }
    )
    assert rank_configurations(frame, "val", "overall")["configuration"].tolist() == ["a", "b", "c"]
    assert rank_configurations(frame, "test", "overall")["configuration"].tolist() == ["b", "a", "c"]
    assert rank_configurations(frame, "val", "overall")["diverged"].tolist() == [0, 0, 1]


def test_random_configurations_come_from_the_seed():
    base = FinetuneConfig("s", method="fsa")
    config = SweepConfig(base, grid=("loss=ce,focal",), range=("lr=1e-4:1e-1:log",), random=200, seeds=1)
    drawn = config.configurations()
    assert drawn == config.configurations()
    assert drawn != replace(config, base=replace(base, seed=1)).configurations()
    rates = np.log10([one.lr for one in drawn])
    assert -4 <= rates.min() < -3.9 < -1.1 < rates.max() <= -1
    assert abs(rates.mean() + 2.5) < 0.2
    assert {one.loss for one in drawn} == {"ce", "focal"}
    assert SweepConfig(base, range=config.range, random=3, seeds=2).configurations()[1].seed == 1


def test_values_are_of_the_options_types():
    assert parse_grid("tau-s=0.5, 0.7") == ("tau_s", [0.5, 0.7])
    assert parse_grid("method=fsa,crt") == ("method", ["fsa", "crt"])
    assert parse_grid("confusing_classes=2,none") == ("confusing_classes", [2, None])
    assert parse_grid("lr=none,0.1,0.1") == ("lr", [None, 0.1])
    assert parse_range("iterations=10:100") == ("iterations", Range(10, 100, False, True))
    assert Range(10, 100, False, True).at(0.5) == 55
    assert Range(0.01, 1, True, False).at(0.5) == pytest.approx(0.1)


def test_batches_are_shared_out_whatever_is_done():
    base = FinetuneConfig("s", iterations=5, method="fsa").resolved(10)
    configs = [replace(base, lr=lr, tau_s=tau) for tau in (0.2, 0.4) for lr in (0.1, 0.2, 0.3)]
    assert [len(batch) for batch in shared_out(configs, 1)] == [3, 3]
    assert [len(batch) for batch in shared_out(configs, 4)] == [1, 2, 1, 2]
    assert [one for batch in shared_out(configs, 16) for one in batch] == configs


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--grid lr", ["--grid lr: expected option=value,value"]),
        ("--grid lr=fast", ["lr=fast: expected a number"]),
        ("--grid iterations=1.5", ["iterations=1.5: expected a whole number"]),
        ("--grid method=best", ["method=best: expected one of fsa, fsa+balanced-softmax, no-aug"]),
        ("--grid speed=1", ["--grid speed=1: no option speed; expected one of alpha"]),
        ("--grid seed=1,2", ["seed cannot be varied within a sweep; use --seeds"]),
        ("--grid rank_by=overall", ["rank_by cannot be varied within a sweep; give --rank-by"]),
        ("--grid device=cpu", ["device cannot be varied within a sweep"]),
        ("--grid lr=0.1 --grid lr=0.2", ["an option is given twice"]),
        ("--range lr=0.1:0.2", ["needs --random, the number"]),
        ("--range lr=0.1 --random 3", ["--range lr=0.1: expected option=low:high"]),
        ("--range lr=0.2:0.1 --random 3", ["low must be below high"]),
        ("--range lr=0:1:log --random 3", ["above 0 for log"]),
        ("--range loss=0:1 --random 3", ["for a numeric option"]),
        ("--range lr=nan:1 --random 3", ["low must be below high"]),
        ("--grid tau_s=0.5,1.5", ["--tau-s 1.5: must lie between 0 and 1"]),
        ("--random 0", ["--random 0: must be 1 or more"]),
        ("--seeds 0", ["--seeds 0: must be 1 or more"]),
        ("--resume --overwrite", ["pass only one of them"]),
    ],
)
@pytest.mark.usefixtures("in_tmp_path")
def test_sweep_option_is_refused(feature_store, options: str, says: list[str]) -> None:
    refuse("sweep", "--store", feature_store, *SHORT, *options.split(), says=says)


@pytest.mark.usefixtures("in_tmp_path")
def test_nothing_is_ranked_by_the_test_set_unasked(small_store: Path) -> None:
    """The small store lacks a validation split."""
    command = ["sweep", "--store", small_store, *SHORT, "--grid", "method=plain,crt", "--seeds", 1]
    refuse(*command, says=["sweep: the store has no val split", "--val-per-class", "--select-on test"])
    result = succeed(*command, "--select-on", "test")
    assert "THE TEST SET" in result.stdout
    assert "val overall" not in result.stdout


@pytest.mark.usefixtures("in_tmp_path")
def test_the_command_prints_the_ranking(course_store) -> None:
    command = [
        "sweep",
        "--store",
        course_store,
        *SHORT,
        "--method",
        "fsa",
        "--grid",
        "lr=0.001,0.1",
        "--seeds",
        2,
    ]
    lines = succeed(*command).stdout.splitlines()
    assert lines[0].split()[:4] == ["configuration", "heads", "val", "balanced"]
    assert lines[1].split()[:4] == ["1", "fsa,", "lr=0.1", "2"]
    assert "ranked on the validation split" in lines[3]
    content = json.loads(succeed(*command, "--json", "--overwrite").stdout)
    assert [row["rank"] for row in content] == [1, 2]
