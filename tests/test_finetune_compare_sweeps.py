"""`analyze` of sweeps: the same ranking as at their end, and the command that repeats the best."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import refuse, succeed

from analysis.figures.sweep import options_figure

SHORT = ["--iterations", 20, "--window", 8, "--device", "cpu"]
OLD = Path(__file__).parent / "data" / "program_0_1"
pytestmark = pytest.mark.usefixtures("in_tmp_path")


def sweep(store: Path, out: str, *arguments: object) -> str:
    """Run a small sweep; returns its output."""
    command = ["sweep", "--store", store, "--out", out, *SHORT, "--seeds", 2, "--heads"]
    return succeed(*command, *arguments).stdout


@pytest.fixture(scope="module")
def swept(feature_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep, with a configuration whose heads diverge. Do not modify."""
    out = tmp_path_factory.mktemp("swept") / "sweep"
    grid = ["--grid", "method=fsa,ncm", "--grid", "lr=0.001,0.02,4e9", "--grid", "momentum=0.9,1e9"]
    sweep(feature_store, str(out), *grid, "--iterations", 60)
    return out


def command_of(printed: str) -> str:
    return next(line.strip() for line in printed.splitlines() if line.startswith("  tailcache finetune "))


@pytest.mark.figures
def test_a_sweep_is_ranked_as_when_it_ended(swept):
    result = succeed("analyze", swept)
    assert result.stderr == ""
    found, ended = pd.read_csv("report/ranking.csv"), pd.read_csv(swept / "ranking.csv")
    timeless = [column for column in ended if column != "seconds"]
    pd.testing.assert_frame_equal(found[timeless], ended[timeless])
    assert ended["diverged"].iloc[-1] == 2
    assert ended["configuration"][0] in result.stdout
    assert sorted(path.name for path in Path("report").iterdir()) == [
        *("analysis.json", "options.png", "ranking.csv", "results.csv")
    ]
    content = json.loads(succeed("analyze", swept, "--json").stdout)
    assert content["command"] == command_of(result.stdout)
    assert content["ranking"][0]["configuration"] == ended["configuration"][0]


def test_what_it_prints_makes_the_head_of_the_sweep(swept):
    """In another folder than the sweep's: the store is still found."""
    command = command_of(succeed("analyze", swept).stdout)
    words = shlex.split(command)[1:]
    words[words.index("--out") + 1] = "again"  # the sweep's own folder must not be modified
    succeed(*words)
    best = json.loads(Path("report/analysis.json").read_text())["ranking"][0]["configuration"]
    results = pd.read_csv("report/results.csv")
    head = results[(results["configuration"] == best) & (results["seed"] == 0)]["head"].item()
    made, kept = (
        torch.load(path, weights_only=True) for path in ("again/head.pt", swept / f"heads/{head}.pt")
    )
    assert all(made[name].numpy().tobytes() == kept[name].numpy().tobytes() for name in ("weight", "bias"))


@pytest.mark.figures
def test_sweeps_are_ranked_together_and_a_head_of_both_is_one(feature_store):
    sweep(feature_store, "a", "--grid", "lr=0.001,0.01", "--method", "fsa")
    sweep(feature_store, "b", "--grid", "tau_s=0.5,0.7", "--method", "fsa")
    succeed("analyze", "a", "b")
    ranking = pd.read_csv("report/ranking.csv")
    names = {"fsa, lr=0.001, tau_s=0.7", "fsa, lr=0.01, tau_s=0.7", "fsa, lr=0.001, tau_s=0.5"}
    assert set(ranking["configuration"]) == names
    assert ranking["n"].tolist() == [2, 2, 2]


@pytest.mark.figures
def test_a_sweep_of_version_0_1():
    """It did not record its store's path, and ranked by overall accuracy."""
    result = succeed("analyze", OLD / "sweep", "--shot-rule", "oltr")
    assert "--shot-rule oltr changes nothing: the sweep was run with decoupling" in result.stderr
    assert "replace STORE by its path" in result.stderr
    found, ended = pd.read_csv("report/ranking.csv"), pd.read_csv(OLD / "sweep/ranking.csv")
    shared = [column for column in ended if column != "seconds"]
    pd.testing.assert_frame_equal(found[shared], ended[shared])
    assert found["rank_by"].unique().tolist() == ["overall"]
    command = command_of(result.stdout)
    assert "--store STORE" in command
    store = shutil.copytree(OLD / "feats.zarr", "feats.zarr")
    words = shlex.split(command.replace("STORE", str(store)))[1:]
    words[words.index("--out") + 1] = "again"
    succeed(*words, "--ckpt", OLD / "phase1/checkpoint.pt", "--device", "cpu")
    head = pd.read_csv(OLD / "sweep/results.csv")["head"][0]
    made, kept = (
        torch.load(path, weights_only=True) for path in ("again/head.pt", OLD / f"sweep/heads/{head}.pt")
    )
    for name in ("weight", "bias"):  # other processors round otherwise
        torch.testing.assert_close(made[name], kept[name], rtol=1e-4, atol=1e-5)


def test_an_interrupted_sweep_is_told_to_go_on(swept):
    shutil.copytree(swept, "half")
    for file in ("results.csv", "results.parquet", "ranking.csv"):
        Path("half", file).unlink()
    n_done = len(pd.read_csv(swept / "results.csv"))
    says = [f"{Path('half').resolve()}: an interrupted sweep with {n_done} heads done", "--resume"]
    refuse("analyze", "half", says=says)
    shutil.rmtree("half/done")
    refuse("analyze", "half", says=["an interrupted sweep with 0 heads done"])


def test_sweeps_and_runs_do_not_stand_in_one_table(swept, digits_run):
    says = [
        f"{swept}: a sweep keeps",
        f"cannot be compared with {digits_run}",
        "separately",
        "tailcache finetune --store",
    ]
    refuse("analyze", digits_run, swept, says=says)


def test_sweeps_of_other_stores_splits_or_groups(swept, feature_store):
    for name, value in (("select_on", "test"), ("rank_by", "overall"), ("shot_rule", "oltr")):
        shutil.copytree(swept, "other")
        marker = json.loads(Path("other/sweep.json").read_text())
        marker["options"][name] = value
        Path("other/sweep.json").write_text(json.dumps(marker))
        refuse("analyze", swept, "other", says=[f"--{name.replace('_', '-')} {value}", "them separately"])
        shutil.rmtree("other")
    shutil.copytree(swept, "other")
    marker = json.loads(Path("other/sweep.json").read_text())
    Path("other/sweep.json").write_text(json.dumps(marker | {"store": "0" * 64}))
    refuse("analyze", swept, "other", says=["other: is of version 0.1", "--resume"])
    Path("other/sweep.json").write_text(json.dumps(marker | {"store": marker["store"] | {"test": "0"}}))
    refuse("analyze", swept, "other", says=["other: a sweep of another store than", str(swept)])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sweep.json", "{"),
        ("sweep.json", '{"format": "another", "options": {}}'),
        ("sweep.json", "[]"),
        ("results.csv", ""),
        ("results.csv", "configuration,seed\nfsa,0\n"),
        ("results.csv", b"\xff\xfe"),
    ],
)
def test_a_damaged_sweep_is_one_line(swept, file, text):
    shutil.copytree(swept, "bad")
    Path("bad", file).write_bytes(text if isinstance(text, bytes) else text.encode())
    refuse("analyze", "bad", says=[f"{Path('bad').resolve()}: a file of this sweep is damaged", "--resume"])


def test_a_report_of_runs_leaves_nothing_of_a_sweeps(swept, digits_run):
    """Figures of one with tables of the other would look like one report."""
    succeed("analyze", digits_run, "--out", "report")
    Path("report/mine.txt").write_text("notes")
    succeed("analyze", swept, "--out", "report")
    assert not Path("report/class_accuracy.png").exists()
    assert Path("report/mine.txt").exists()
    succeed("analyze", digits_run, "--out", "report")
    assert not Path("report/ranking.csv").exists()
    assert Path("report/confused_pairs.csv").exists()


def test_the_figure_has_a_panel_for_each_option():
    scores = {"val_overall_mean": [70.0, 60.0, 50.0], "val_overall_std": [1.0, np.nan, 2.0]}
    options = {"lr": [0.1, 0.01, 0.1], "loss": ["ce", None, "focal"], "tau": list(range(3))}
    frame = pd.DataFrame(options | scores).astype({"loss": object})
    figure = options_figure(frame, ["lr", "loss", "tau"], "val_overall", "validation accuracy, %")
    lr, loss, _ = figure.axes
    assert [text.get_text() for text in lr.get_xticklabels()] == ["0.01", "0.1"]
    assert lr.lines[0].get_xdata().tolist() == [1, 0, 1]
    assert [text.get_text() for text in loss.get_xticklabels()] == ["ce", "focal", "none"]
    assert loss.lines[0].get_xdata().tolist() == [0, 2, 1]
    assert loss.lines[0].get_ydata().tolist() == [70, 60, 50]
    many = pd.DataFrame({"lr": np.geomspace(1e-4, 1, 30), "s_mean": 50.0, "s_std": 1.0})
    figure = options_figure(many, ["lr"], "s", "")
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert {"0.0001", "0.01", "1"} <= set(labels)
