"""Sweeps over mixed values: an option that is a number or a word, methods that lack an option."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_input import refuse, succeed

from analysis.figures.sweep import options_figure
from finetune.compare.finished_sweep import read_sweep
from finetune.sampling.head_tail import split_head_tail
from store.reader import FeatureStore

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
@pytest.mark.figures
def test_an_option_of_numbers_and_words(feature_store, grid, bounds):
    sweep(feature_store, *(word for part in grid for word in ("--grid", part)))
    of_parquet = pd.read_parquet("sweep/results.parquet")["max_norm"]
    assert of_parquet.isna().tolist() == [x is None for x in bounds]
    assert of_parquet.dropna().tolist() == [str(x) for x in bounds if x is not None]
    assert [config.max_norm for config in read_sweep(Path("sweep")).configs] == bounds
    succeed("analyze", "sweep")
    ranking, ended = (pd.read_csv(f"{path}/ranking.csv") for path in ("report", "sweep"))
    assert ranking["configuration"].tolist() == ended["configuration"].tolist()


def test_head_and_tail_of_a_sweep_are_the_same_classes(feature_store):
    """Whatever each head's own are; a run counts the same classes from its predictions."""
    grid = ["--grid", "head_ratio=0.4,0.7", "--grid", "method=fsa,ncm"]
    command = ["sweep", "--store", feature_store, "--out", "sweep", *SHORT, *grid, "--head-ratio", 0.5]
    result = succeed(*command)
    assert "head: the largest classes with 50 % of the training images" in result.stdout
    assert "--head-ratio" not in result.stderr
    counts = np.bincount(FeatureStore(feature_store).read("train").label)
    parts = split_head_tail(counts, 0.5).parts()
    for row in pd.read_csv("sweep/results.csv").to_dict("records"):
        options = ["--method", row["method"], "--head-ratio", row["head_ratio"], *SHORT[:-2], "--overwrite"]
        succeed("finetune", "--store", feature_store, "--out", "run", *options)
        of_class = pd.read_csv("run/per_class.csv").set_index("class_id")["accuracy"]
        for part, ids in parts.items():
            assert row[f"test_{part}"] == pytest.approx(of_class[ids].mean())
    assert "with 50 % of the training images" in succeed("analyze", "sweep").stdout
    forget_split()
    for told in (succeed("analyze", "sweep"), succeed(*command, "--resume")):
        assert "with each configuration's own --head-ratio" in told.stdout
    refuse("sweep", "--store", feature_store, *grid, "--head-ratio", 1.5, says=["--head-ratio 1.5: must lie"])


def forget_split() -> None:
    """Make the sweep one of a version in which each head reported its own head and tail."""
    marker = json.loads(Path("sweep/sweep.json").read_text())
    del marker["one_split"]
    Path("sweep/sweep.json").write_text(json.dumps(marker))


def test_sweeps_of_other_head_classes_tell_none(feature_store):
    for out, ratio in (("a", 0.4), ("b", 0.7)):
        options = [*SHORT, "--method", "plain", "--head-ratio", ratio, "--grid", f"lr={ratio}"]
        succeed("sweep", "--store", feature_store, "--out", out, *options)
    told = succeed("analyze", "a", "b")
    assert "head and tail differ between these sweeps (--head-ratio 0.4 and 0.7)" in told.stderr
    assert "the largest classes" not in told.stdout
    assert not [name for name in pd.read_csv("report/ranking.csv") if "head_" in name or "tail_" in name]
    assert "test_head" in pd.read_csv("a/results.csv")


def test_a_computed_head_is_no_seed(feature_store):
    for out, seed in (("a", 0), ("b", 9)):
        options = [*SHORT[:-2], "--seeds", 2, "--seed", seed, "--grid", "method=tau-norm,plain"]
        succeed("sweep", "--store", feature_store, "--out", out, *options)
    succeed("analyze", "a", "b")
    ranking = pd.read_csv("report/ranking.csv").set_index("configuration")
    assert ranking["n"].to_dict() == {"tau-norm": 1, "plain": 4}
    assert ranking["test_overall_std"].isna().to_dict() == {"tau-norm": True, "plain": False}


def test_version_0_1_made_a_computed_head_of_every_seed(feature_store):
    sweep(feature_store, "--grid", "method=tau-norm,ncm")
    results = pd.read_csv("sweep/results.csv")
    more = [results.assign(seed=seed, head=results["head"].str[:-1] + str(seed)) for seed in (1, 2)]
    pd.concat([results, *more]).to_csv("sweep/results.csv", index=False)
    told = succeed("analyze", "sweep")
    assert pd.read_csv("report/ranking.csv")["n"].tolist() == [1, 1]
    for method in ("tau-norm", "ncm"):
        assert f"{method} does not depend on the seed, so its heads of several seeds count" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "drawn"),
    [
        (["--grid", "method=plain,crt,ncm", "--grid", "lr=0.01,0.1"], ["method", "lr"]),
        (["--grid", "method=fsa", "--grid", "tail_samples=4,8"], ["tail_samples"]),
        (["--method", "weight-balancing", "--grid", "max_norm=1,relative"], ["max_norm"]),
    ],
)
def test_what_was_varied_is_drawn(feature_store, monkeypatch, arguments, drawn):
    """But not what differs between methods anyway, or follows from it."""
    made = []
    monkeypatch.setattr(
        "finetune.compare.analyze_sweeps.options_figure",
        lambda *args: made.append(args[1]) or options_figure(*args),
    )
    sweep(feature_store, *arguments)
    succeed("analyze", "sweep")
    assert made == [drawn]


def test_what_sweeps_differ_in_is_drawn(feature_store, monkeypatch):
    made = []
    monkeypatch.setattr(
        "finetune.compare.analyze_sweeps.options_figure",
        lambda *args: made.append(args[1]) or options_figure(*args),
    )
    for out, lr in (("a", 0.1), ("b", 0.01)):
        options = [*SHORT, "--method", "plain", "--lr", lr, "--grid", "momentum=0,0.9"]
        succeed("sweep", "--store", feature_store, "--out", out, *options)
    succeed("analyze", "a", "b")
    assert made == [["momentum", "lr"]]
