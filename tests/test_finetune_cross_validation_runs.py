"""Runs and sweeps that choose by held-out folds: files, resumption, rankings, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_input import refuse, succeed
from made_fitted import ARCH, write_pairs, write_weights
from made_interrupt import finetune_interrupted
from PIL import Image
from rich.progress import Progress

from finetune.config import FinetuneConfig
from finetune.cross_validation.fold_store import FoldStore
from finetune.run import read_run
from finetune.sweep.config import SweepConfig
from finetune.sweep.sweep import sweep
from finetune.train import finetune
from finetune.training.head_pool import HeadPool
from finetune.training.statistics import TrainStatistics
from store.errors import UserError

QUIET = Progress(disable=True)
FEW = ("--confusing-classes", 2, "--head-ratio", 0.5, "--device", "cpu", "--iterations", 4)


@pytest.fixture
def config(pairs_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinetuneConfig:
    monkeypatch.chdir(tmp_path)
    quick = {"iterations": 24, "eval_every": 8, "lr": 0.3, "window": 5, "device": "cpu", "method": "no-aug"}
    return FinetuneConfig(
        str(pairs_store), "run", select_on="cv", folds=3, head_ratio=0.5, confusing_classes=2, **quick
    )


def interrupt(config: FinetuneConfig, at: int) -> None:
    """Run until Ctrl-C comes in the n-th window, over all folds."""
    finetune_interrupted(config, lambda n_windows, start: n_windows == at)


@pytest.mark.parametrize("at", [1, 3, 8, 14, 21])
def test_a_run_that_is_resumed_in_any_fold_ends_in_the_same_bytes(config, at, monkeypatch):
    monkeypatch.setattr("finetune.training.resume.KEEP_EVERY", 0.0)
    config = replace(config, keep="best")
    whole = finetune(replace(config, out="whole"), QUIET)
    interrupt(config, at)
    calls, train_on = [], HeadPool.train_on
    monkeypatch.setattr(HeadPool, "train_on", lambda self, w: (calls.append(w.start), train_on(self, w))[1])
    resumed = finetune(replace(config, resume=True), QUIET)
    assert len(calls) == 24 - at + 1  # windows of 5, cut at every eighth step: six for each of four trainings
    for name in ("head.pt", "metrics.csv", "predictions.csv", "summary.json"):
        assert (whole.path / name).read_bytes() == (resumed.path / name).read_bytes(), name


def test_a_run_resumes_with_its_own_folds_only(config, monkeypatch):
    interrupt(config, 8)
    for other in ({"folds": 2}, {"fold_seed": 1}, {"select_on": "val"}):
        with pytest.raises(UserError, match=f"cannot resume: {next(iter(other))} was"):
            finetune(replace(config, resume=True, **other), QUIET)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_sweep_ranks_by_the_scores_that_runs_have(config, keep):
    grid = ("lr=0.01,0.3,3",)
    base = replace(config, out="sweep", keep=keep)
    found = sweep(SweepConfig(base, grid, seeds=2), QUIET, None)
    assert found.ranking["cv_balanced_accuracy_mean"].is_monotonic_decreasing
    assert not any(name.startswith("val_") for name in found.results)
    for row in found.results.to_dict("records"):
        one = replace(base, lr=row["lr"], seed=row["seed"], out=f"run{row['lr']}-{row['seed']}")
        summary = finetune(one, QUIET).summary
        for name in ("overall", "balanced_accuracy", "many", "head", "tail"):
            expected = summary["cv"][name]
            assert row[f"cv_{name}"] == pytest.approx(expected) if expected else pd.isna(row[f"cv_{name}"])
            assert row[f"test_{name}"] == pytest.approx(summary[name]) if summary[name] else True
        assert row["kept_iteration"] == summary["kept_iteration"]
    assert ("--folds 3" in found.command) == (keep == "best")  # else the head does not depend on them


def test_a_computed_method_and_a_diverged_fold_in_a_sweep(config):
    base = replace(config, out="computed", method="logit-adjustment")
    found = sweep(SweepConfig(base, ("tau=0,1",)), QUIET, None)
    assert found.results["cv_overall"].notna().all()
    none = found.results.set_index("tau").loc[0.0]
    phase1 = finetune(replace(base, tau=0.0, out="none"), QUIET).summary["cv"]["phase1"]
    assert none["cv_overall"] == pytest.approx(phase1["overall"])
    found = sweep(SweepConfig(replace(config, out="nan"), ("weight_decay=0,1e9",), seeds=1), QUIET, None)
    assert found.results.set_index("weight_decay")["diverged_at"].notna().tolist() == [False, True]
    assert found.ranking["diverged"].tolist() == [0, 1]


def test_a_head_that_cannot_be_computed_is_left_out_of_folds_too(config, pairs_store):
    given = ("--store", pairs_store, *FEW, "--select-on", "cv", "--folds", 3, "--out", "s")
    said = succeed("sweep", *given, "--method", "tau-norm", "--grid", "tau=1,-1e9")
    assert "note: a head is left out: --method tau-norm, --tau -1e+09: makes weights" in said.stderr
    results = pd.read_csv("s/results.csv").set_index("tau")
    assert results.loc[1, "cv_overall"] > 0
    assert pd.isna(results.loc[-1e9, "cv_overall"])


def test_what_cannot_be_drawn_without_a_fold_is_told_before_training(config, pairs_store):
    """Without a fold there are other counts: of classes that are alike none can be filled up."""
    given = ("--store", pairs_store, "--device", "cpu", "--select-on", "cv", "--folds", 3, "--iterations", 4)
    filled = [f"--select-on cv: without fold 1 of 3: --mix-classes fill: all classes have {N_ALIKE} rows"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TrainStatistics, "__init__", with_equal_counts(TrainStatistics.__init__))
        refuse("sweep", *given, "--method", "tailcalib", "--out", "s", says=filled)
        methods = ["--methods", "tailcalib,plain", "--seeds", 1, "--head-ratio", 0.5]
        done = succeed("contest", *given, *methods, "--out", "c")
    assert f"note: tailcalib does not take part: {filled[0]}" in done.stderr
    assert pd.read_csv("c/standings.csv")["entry"].tolist() == ["plain"]


N_ALIKE = 7


def with_equal_counts(init):
    """Statistics of a fold say that all classes have as many rows."""

    def made(self, store, threads=None):
        init(self, store, threads)
        if isinstance(store, FoldStore):
            self.class_counts = np.full_like(self.class_counts, N_ALIKE)

    return made


def test_folds_that_have_no_effect_do_not_keep_a_sweep_from_going_on(config, monkeypatch):
    base = replace(config, out="idle", select_on="test", folds=4, fold_seed=1)
    whole = sweep(SweepConfig(base, ("lr=0.1,0.2",), seeds=1), QUIET, None)
    again = replace(base, resume=True, folds=5, fold_seed=0)
    assert sweep(SweepConfig(again, ("lr=0.1,0.2",), seeds=1), QUIET, None).ranking.equals(whole.ranking)
    interrupt(replace(base, out="run"), 2)
    finetune(replace(again, out="run"), QUIET)


def test_the_screen_says_what_was_held_out_and_that_it_was(config, pairs_store):
    cv = ("--store", pairs_store, *FEW, "--select-on", "cv", "--folds", 3)
    done = succeed("finetune", *cv, "--method", "plain", "--out", "plain")
    said, summary = done.stderr, read_run(Path("plain")).summary["cv"]
    assert (
        f"held-out folds: overall (images) {summary['phase1']['overall']:.1f} → {summary['overall']:.1f}"
        in done.stdout
    )
    assert "holds out 39 of 40 training images, each once, in 3 folds; 1 class has no two images" in said
    assert "net.pth) never saw them" in said
    told = succeed("sweep", *cv, "--method", "plain", "--method", "crt", "--seeds", 1, "--out", "s").stdout
    assert "ranked on held-out folds of the training split, by balanced accuracy" in told
    assert "cv balanced" in told
    assert "--folds changes nothing: it is for --select-on cv" in succeed(
        "finetune", "--store", pairs_store, *FEW, "--folds", 3, "--out", "idle"
    ).stderr  # fmt: skip


def test_heads_chosen_in_other_ways_are_never_seeds_of_one_configuration(config):
    best = replace(config, keep="best", method="plain")
    ways = [{}, {"seed": 1}, {"folds": 2, "seed": 1}, {"fold_seed": 5}, {"select_on": "test"}]
    for i, way in enumerate(ways):
        finetune(replace(best, out=f"r{i}", **way), QUIET)
    succeed("analyze", *(f"r{i}" for i in range(len(ways))), "--out", "report")
    summary = pd.read_csv("report/summary.csv")
    phase2 = summary[summary["phase"] == 2] if "phase" in summary else summary
    assert sorted(phase2["n"].tolist()) == [1, 1, 1, 2]
    for out, way in (("a", {}), ("b", {"fold_seed": 1}), ("c", {"folds": 2})):
        sweep(SweepConfig(replace(best, keep="last", out=out, **way), ("lr=0.1,0.2",), seeds=1), QUIET, None)
    refuse(
        "analyze",
        "a",
        "b",
        "--out",
        "both",
        says=["b: was run with --fold-seed 1, but ", "a with --fold-seed 0"],
    )
    refuse("analyze", "a", "c", "--out", "both", says=["c: was run with --folds 2, but ", "a with --folds 3"])


def test_stores_whose_backbone_saw_the_images_are_refused(feature_store, pairs_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    says = [f"--select-on cv: {feature_store}: its network was trained on these images", "--classifier fit"]
    for command in ("finetune", "sweep"):
        refuse(command, "--store", feature_store, "--select-on", "cv", says=says)
    photos = write_pairs(tmp_path / "photos")
    weights = write_weights(tmp_path)
    succeed(
        "extract", "--ckpt", weights, *ARCH, "--classifier", "fit", "--root", photos, "--image-size", 64,
        "--store", "own.zarr", "--device", "cpu",
    )  # fmt: skip
    refuse(
        "finetune", "--store", "own.zarr", "--select-on", "cv", says=["own.zarr: was extracted with --ckpt"]
    )
    refuse("finetune", "--store", "own.zarr", "--keep", "best", says=["no val split", "--select-on cv"])
    few = [f": {pairs_store} has 20 images or groups of images that can be held out; pass 20 at most"]
    for folds in (21, 40, 4_000_000_000):
        refuse("finetune", "--store", pairs_store, "--select-on", "cv", "--folds", folds, *FEW, says=few)
    told = ["--select-on cv: without fold ", "of 3: --head-ratio 0.97", "no tail"]
    no_tail = ("--head-ratio", 0.97, "--folds", 3, "--fold-seed", 2, "--iterations", 10**6)
    refuse("finetune", "--store", pairs_store, "--select-on", "cv", *FEW, *no_tail, says=told)
    refuse("finetune", "--store", pairs_store, "--select-on", "cv", "--folds", 1, says=["--folds 1"])
    own = ("--root", photos, "--image-size", 64, "--device", "cpu", *ARCH)
    succeed("train", *own, "--epochs", 1, "--batch-size", 20, "--out", "trained")
    fit = ("extract", *own, "--weights", "trained/checkpoint.pt", "--classifier", "fit", "--store")
    assert "was trained on 40 of these 40 training images" in succeed(*fit, "seen.zarr").stderr
    refuse("sweep", "--store", "seen.zarr", "--select-on", "cv", says=["trained on 40 of these images"])
    for path in (photos / "train").rglob("*.png"):
        Image.open(path).rotate(90).save(path)
    assert "was trained on" not in succeed(*fit, "unseen.zarr").stderr
    succeed("finetune", "--store", "unseen.zarr", "--select-on", "cv", *FEW, "--method", "plain")
    refitted = ["seen.checkpoint.pt" if of == "trained/checkpoint.pt" else of for of in fit]
    assert "was trained on" not in succeed(*refitted, "other.zarr").stderr  # it saw others than these
    began = ("--epochs", 1, "--batch-size", 20, "--weights", "trained/checkpoint.pt", "--out", "again")
    succeed("train", *own, *began)  # on the turned images
    for path in (photos / "train").rglob("*.png"):
        Image.open(path).rotate(-90).save(path)
    again = ["again/checkpoint.pt" if of == "trained/checkpoint.pt" else of for of in fit]
    for chain in (again, refitted):
        told = succeed(*chain, "chain.zarr", "--overwrite").stderr
        assert "trained on 40 of these 40 training images" in told
    monkeypatch.setattr("finetune.cross_validation.allowed.image_groups", lambda store, split: None)
    old = [f"{pairs_store}: its images come in groups", "extract again with --overwrite"]
    refuse("sweep", "--store", pairs_store, "--select-on", "cv", says=old)
