"""`--sampling` and the options of mixes: names, heads, and what is told or refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import refuse, succeed
from made_interrupt import finetune_interrupted

from finetune.config import FinetuneConfig
from finetune.methods.losses import make_loss
from finetune.methods.registry import METHODS, UNIFORM, Method
from finetune.train import finetune
from finetune.training.resume import UnfinishedRun, unfinished_path
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
BATCH, K = 16, 10


def asked(store: Path, method: str, **changes: Any) -> FinetuneConfig:
    config = FinetuneConfig(str(store), "run", method, batch_size=BATCH, iterations=12, device="cpu")
    return replace(config, eval_every=12, **changes)


def test_the_methods_own_sampling_is_the_one_it_always_had(feature_store, quiet):
    """The same head, name and options whether it is named or not; two seeds are one configuration."""
    found = []
    for sampling, seed in ((None, 0), ("halves", 0), ("halves", 1)):
        run = finetune(
            replace(asked(feature_store, "fsa", sampling=sampling, seed=seed), out=f"run-{len(found)}"), quiet
        )
        found.append(torch.load(run.path / "head.pt", weights_only=True)["weight"])
        assert json.loads((run.path / "config.json").read_text())["sampling"] is None
    assert torch.equal(found[0], found[1])
    succeed("analyze", "run-0", "run-2", "--out", "report")
    assert pd.read_csv("report/summary.csv")["configuration"].tolist() == ["Phase I", "fsa"]


def test_a_sweep_over_samplings_trains_each_and_analyze_tells_them_apart(feature_store):
    short = ["--iterations", 8, "--batch-size", BATCH, "--device", "cpu", "--select-on", "test", "--seeds", 1]
    grid = ["--grid", "method=fsa,h2t,plain", "--grid", "sampling=none,uniform,halves"]
    succeed("sweep", "--store", feature_store, "--out", "sweep", *grid, *short)
    names = pd.read_csv("sweep/ranking.csv")["configuration"].tolist()
    assert len(names) == len(set(names)) == 7  # the methods' own samplings are named once
    assert sum("sampling=halves" in name for name in names) == 2
    best = ["--store", feature_store, "--out", "one", "--method", "h2t", "--sampling", "uniform"]
    told = succeed("finetune", *best, "--iterations", 8, "--device", "cpu", "--mix-share", 0.5).stderr
    assert "changes nothing" not in told
    facts = json.loads(Path("one/config.json").read_text())
    assert (facts["mix_share"], facts["mix_classes"], facts["rho"]) == (0.5, "all", 0.25)


@pytest.mark.parametrize("method", ["plain", "fsa", "h2t"])
def test_a_single_other_sampling_is_never_taken_for_the_methods_own(feature_store, quiet, method):
    """Two configurations under one name would be averaged as seeds."""
    short = ["--iterations", 8, "--batch-size", BATCH, "--device", "cpu"]
    grid = [
        "--method",
        method,
        "--grid",
        "sampling=none,uniform,balanced",
        "--select-on",
        "test",
        "--seeds",
        2,
    ]
    succeed("sweep", "--store", feature_store, "--out", "sweep", *grid, *short)
    n_own = 3 if method == "fsa" else 2
    ranking = pd.read_csv("sweep/ranking.csv")
    assert ranking["configuration"].nunique() == len(ranking) == n_own
    assert ranking["n"].tolist() == [2] * n_own
    other = "uniform" if method == "h2t" else "balanced"
    for out, seed, sampling in (("own", 0, []), ("other", 1, ["--sampling", other])):
        command = ["finetune", "--store", feature_store, "--out", out, "--method", method, "--seed", seed]
        succeed(*command, *sampling, *short)
    succeed("analyze", "own", "other", "--out", "report")
    names = pd.read_csv("report/summary.csv")["configuration"].tolist()
    assert names == ["Phase I", method, f"{method}, sampling={other}"]


def test_a_run_of_an_earlier_version_is_not_resumed_with_another_sampling(feature_store):
    config = replace(asked(feature_store, "plain"), iterations=10**6, eval_every=10)
    finetune_interrupted(config, lambda n_windows, _: n_windows > 2)
    path = unfinished_path(config.out)
    content = torch.load(path, weights_only=True)
    options = json.loads(content["options"])
    later = ("sampling", "mix_share", "mix_classes", "rho", "shrinkage")
    torch.save(content | {"options": json.dumps({k: v for k, v in options.items() if k not in later})}, path)
    command = [
        "finetune",
        "--store",
        feature_store,
        "--out",
        config.out,
        "--method",
        "plain",
        "--device",
        "cpu",
    ]
    command += ["--iterations", 10**6, "--eval-every", 10, "--batch-size", BATCH, "--resume"]
    refuse(*command, "--sampling", "balanced", says=["cannot resume", "sampling None, not balanced"])
    read = UnfinishedRun(replace(config, resume=True).resolved(K), FeatureStore(feature_store))
    read.load()
    assert read.latest.state is not None


@pytest.mark.parametrize("loss", ["class-balanced", "class-balanced-bce", "re-weighted"])
def test_a_class_that_is_never_drawn_takes_no_weight_from_the_others(loss):
    config = FinetuneConfig("", loss=loss, beta=0.99, method="fsa").resolved(3)
    made, without = (
        make_loss(config, np.array(prior), np.full(3, 30)) for prior in ([0.9, 0.0, 0.1], [0.9, 0.1])
    )
    weight = made.class_weight * (3 / 2 if loss == "class-balanced-bce" else 1)  # its mean is over K terms
    np.testing.assert_allclose(weight[[0, 2]], without.class_weight, rtol=1e-6)
    assert weight[1] == 0


def test_what_the_tail_is_makes_no_second_head_where_all_classes_are_mixed(feature_store):
    short = [
        "--store",
        feature_store,
        "--iterations",
        4,
        "--device",
        "cpu",
        "--select-on",
        "test",
        "--seeds",
        1,
    ]
    grid = ["--grid", "head_ratio=0.5,0.8"]
    says = ["--head-ratio is varied and changes nothing for h2t"]
    refuse("sweep", *short, "--out", "s", "--method", "h2t", *grid, says=says)
    of_all = ["--method", "fsa", "--sampling", "uniform", "--mix-classes", "all", "--mix-share", 1]
    refuse("sweep", *short, "--out", "s", *of_all, *grid, says=["--head-ratio is varied"])
    succeed("sweep", *short, "--out", "a", *of_all, *grid, "--donors", "head", "--confusing-classes", 1)
    succeed("sweep", *short, "--out", "b", "--method", "h2t", "--mix-classes", "tail", *grid)
    assert all(len(pd.read_csv(f"{out}/ranking.csv")) == 2 for out in "ab")


@pytest.mark.parametrize("grid", ["method=fsa", "method=plain,fsa"])
def test_a_sampling_that_is_the_methods_own_is_no_axis(feature_store, grid):
    own = {"method=fsa": "sampling=none,halves", "method=plain,fsa": "sampling=none"}[grid]
    command = [
        "sweep",
        "--store",
        feature_store,
        "--out",
        "s",
        "--grid",
        grid,
        "--grid",
        own,
        "--device",
        "cpu",
    ]
    refuse(*command, says=["--sampling is varied and changes nothing"])


def test_a_sampling_beside_one_from_outside_is_told(feature_store, monkeypatch):
    """Such a method has its own batches; those asked for are not drawn."""
    monkeypatch.setitem(METHODS, "mine", Method("mine", replace(UNIFORM, name=None)))
    command = ["--store", feature_store, "--iterations", 4, "--device", "cpu", "--method", "mine"]
    told = succeed("finetune", *command, "--out", "r", "--sampling", "balanced").stderr
    assert "--sampling changes nothing for mine" in told
    grid = ["--grid", "sampling=balanced,uniform", "--select-on", "test"]
    refuse("sweep", *command, "--out", "s", *grid, says=["--sampling is varied and changes nothing"])


def test_a_sweep_that_cannot_swap_channels_ends_before_its_first_head(feature_store):
    grid = ["--grid", "rho=0.5,0.001", "--method", "h2t", "--seeds", 1, "--device", "cpu"]
    says = ["--rho 0.001: swaps none of 16 channels", "raise it to 0.0625"]
    refuse("sweep", "--store", feature_store, "--out", "s", "--select-on", "test", *grid, says=says)
    assert not Path("s").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--method fsa --mix-share 0.5", "--mix-share changes nothing for fsa with loss ce"),
        ("--method plain --mix-classes tail", "--mix-classes changes nothing for plain"),
        (
            "--method fsa --sampling uniform --augmented-per-sample 2",
            "for fsa with loss ce in uniform batches",
        ),
        ("--method ncm --sampling uniform", "--sampling changes nothing for ncm"),
    ],
)
def test_an_option_without_effect_is_told(feature_store, options, says):
    command = ["finetune", "--store", feature_store, "--out", "r", "--iterations", 4, "--device", "cpu"]
    assert says in succeed(*command, *options.split()).stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--method h2t --rho 0", ["--rho 0: must be above 0, and 1 at most"]),
        ("--method h2t --rho 1.01", ["--rho 1.01: must be above 0, and 1 at most"]),
        ("--method h2t --rho 0.001", ["--rho 0.001: swaps none of 16 channels", "raise it to 0.062"]),
        ("--method h2t --mix-share 0", ["--mix-share 0: must be above 0"]),
        ("--method h2t --mix-share nan", ["--mix-share nan: must be above 0"]),
        ("--method h2t --mix-classes tail --head-ratio 0.999", ["leaves no tail", "or --mix-classes all"]),
        ("--method fsa --sampling uniform --head-ratio 0.999", ["leaves no tail", "or --mix-classes all"]),
        ("--method plain --sampling halves --head-ratio 0.999", ["leaves no tail", "or another --sampling"]),
        ("--method fsa --head-ratio 0.999", ["leaves no tail", "or --method plain"]),
        ("--method plain --sampling halves --batch-size 99", ["--batch-size 99: must be even", "try 100"]),
        ("--method h2t --sampling sideways", ["'sideways' is not one of"]),
        (
            "--method fsa --sampling balanced --mix-classes all --donors head --confusing-classes 7",
            ["donor classes"],
        ),
    ],
)
def test_what_cannot_be_mixed_is_one_line(feature_store, options, says):
    command = ["finetune", "--store", feature_store, "--out", "r", "--device", "cpu"]
    refuse(*command, *options.split(), says=says)
    assert not Path("r").exists()
