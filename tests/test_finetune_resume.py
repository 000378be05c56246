"""Interrupted runs: resumed to the same bytes, and never mixed up with others."""

import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from made_interrupt import finetune_interrupted

from finetune.config import FinetuneConfig
from finetune.methods.registry import METHODS
from finetune.train import finetune
from finetune.training.head_pool import HeadPool
from finetune.training.resume import unfinished_path
from store.errors import Interrupted, UserError

TRAINED = [name for name, method in METHODS.items() if method.sampling]


@pytest.fixture
def config(feature_store, tmp_path) -> FinetuneConfig:
    out = str(tmp_path / "run")
    return FinetuneConfig(
        str(feature_store), out, iterations=60, eval_every=20, window=8, device="cpu", method="fsa"
    )


def interrupt(config: FinetuneConfig, at: int) -> None:
    """Run until Ctrl-C comes in the window with an iteration."""
    finetune_interrupted(config, lambda n_windows, start: start >= at)


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("head.pt", "metrics.csv", "predictions.csv")}


@pytest.mark.parametrize("at", [0, 15, 20, 45])
@pytest.mark.parametrize("method", ["fsa", "lws", "weight-balancing"])
def test_a_resumed_run_ends_in_the_same_bytes(config, method, at, quiet, monkeypatch, tmp_path):
    config = replace(config, method=method)
    whole = finetune(replace(config, out=str(tmp_path / "whole")), quiet)
    interrupt(config, at)
    resumed = finetune(replace(config, resume=True, window=5, prefetch=0, residency="auto"), quiet)
    assert files(whole.path) == files(resumed.path)
    empty = [f"empty_{kind}_percent" for kind in ("specific", "generic")]
    facts = whole.config["facts"], resumed.config["facts"]
    assert [facts[0].get(name) for name in empty] == [facts[1].get(name) for name in empty]
    assert not unfinished_path(config.out).exists()


def test_the_best_head_survives_an_interruption(config, quiet, monkeypatch, tmp_path):
    config = replace(config, keep="best", lr=0.5)
    whole = finetune(replace(config, out=str(tmp_path / "whole")), quiet)
    interrupt(config, 45)
    resumed = finetune(replace(config, resume=True), quiet)
    assert files(whole.path) == files(resumed.path)
    assert whole.summary["kept_iteration"] == resumed.summary["kept_iteration"]


def test_keep_best_is_the_head_of_the_best_validation_accuracy(config, quiet):
    run = finetune(replace(config, keep="best", lr=0.5, eval_every=3), quiet)
    metrics = pd.read_csv(run.path / "metrics.csv")
    best = metrics["val_overall"].idxmax()  # the first of equals
    assert run.summary["kept_iteration"] == metrics["iteration"][best]
    assert run.summary["val"]["overall"] == pytest.approx(metrics["val_overall"][best])
    assert metrics["val_overall"].nunique() > 1


def test_a_run_that_was_killed_goes_on_from_its_last_state(config, quiet, monkeypatch, tmp_path):
    whole = finetune(replace(config, out=str(tmp_path / "whole")), quiet)
    monkeypatch.setattr("finetune.training.resume.SAVE_EVERY", 0.0)
    monkeypatch.setattr("finetune.training.resume.KEEP_EVERY", 0.0)
    train_on = HeadPool.train_on

    def dying(self, window):
        if window.start >= 45:
            raise SystemExit  # nothing is saved on exit
        return train_on(self, window)

    with monkeypatch.context() as patch:
        patch.setattr(HeadPool, "train_on", dying)
        with pytest.raises(SystemExit):
            finetune(config, quiet)
    assert (
        torch.load(unfinished_path(config.out), weights_only=True)["state"]["courses"][0]["metrics"][-1][
            "iteration"
        ]
        == 40
    )
    assert files(finetune(replace(config, resume=True), quiet).path) == files(whole.path)


def test_an_interrupted_run_is_neither_lost_nor_mixed_up(config, quiet, monkeypatch, small_store):
    interrupt(config, 45)
    with pytest.raises(UserError, match=r"an interrupted run; pass --resume .* or --overwrite"):
        finetune(config, quiet)
    with pytest.raises(UserError, match=r"cannot resume: lr was 0\.001, this command has 0\.01; repeat"):
        finetune(replace(config, resume=True, lr=0.01), quiet)
    other = replace(config, resume=True, store=str(small_store), method="plain")
    with pytest.raises(UserError, match="belongs to another store"):
        finetune(other, quiet)
    with pytest.raises(UserError, match="pass only one of them"):
        finetune(replace(config, resume=True, overwrite=True), quiet)
    finetune(replace(config, overwrite=True), quiet)
    assert not unfinished_path(config.out).exists()


def test_steps_since_the_last_look_are_kept(config, quiet, monkeypatch, tmp_path):
    config = replace(config, eval_every=60)
    whole = finetune(replace(config, out=str(tmp_path / "whole")), quiet)
    monkeypatch.setattr("finetune.training.resume.KEEP_EVERY", 0.0)
    interrupt(config, 45)
    assert torch.load(unfinished_path(config.out), weights_only=True)["state"]["iteration"] == 48
    assert files(finetune(replace(config, resume=True), quiet).path) == files(whole.path)


def test_ctrl_c_while_the_folder_is_written_loses_nothing(config, quiet, monkeypatch, tmp_path):
    whole = finetune(replace(config, out=str(tmp_path / "whole")), quiet)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("finetune.train.write_run", stopped)
        with pytest.raises(Interrupted):
            finetune(config, quiet)
        patch.setattr(HeadPool, "train_on", stopped)  # no step remains
        with pytest.raises(Interrupted):
            finetune(replace(config, resume=True), quiet)
    assert files(finetune(replace(config, resume=True), quiet).path) == files(whole.path)


def test_a_state_is_read_once(config, quiet, monkeypatch):
    """With thousands of classes it is large, and may be on a slow disk."""
    interrupt(config, 45)
    read = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda file, **options: read.append(file) or load(file, **options))
    finetune(replace(config, resume=True), quiet)
    assert read.count(unfinished_path(config.out)) == 1


def test_a_run_that_was_to_replace_another_is_resumed(config, quiet, monkeypatch):
    earlier = files(finetune(config, quiet).path)
    train_on = HeadPool.train_on

    def dying(self, window):
        if window.start >= 45:
            raise KeyboardInterrupt
        return train_on(self, window)

    other = replace(config, lr=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(HeadPool, "train_on", dying)
        with pytest.raises(Interrupted):
            finetune(replace(other, overwrite=True), quiet)
    assert files(Path(config.out)) == earlier
    resumed = files(finetune(replace(other, resume=True), quiet).path)
    assert resumed != earlier
    assert resumed == files(finetune(replace(other, overwrite=True), quiet).path)


def test_overwriting_spares_a_file_that_is_no_state(config, quiet):
    unfinished_path(config.out).write_text("three years of work")
    with pytest.raises(UserError, match="not the state of an interrupted run"):
        finetune(replace(config, overwrite=True), quiet)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04"])
def test_a_damaged_state_is_told(config, content, quiet):
    unfinished_path(config.out).write_bytes(content)
    with pytest.raises(UserError, match="not the state of an interrupted run that can be read safely"):
        finetune(replace(config, resume=True), quiet)


def test_a_foreign_state_is_told(config, quiet):
    torch.save({"format": "other"}, unfinished_path(config.out))
    with pytest.raises(UserError, match="not the state of an interrupted run"):
        finetune(replace(config, resume=True), quiet)


def test_resume_begins_where_there_is_nothing(config, quiet, tmp_path):
    whole = finetune(replace(config, out=str(tmp_path / "whole")), quiet)
    assert files(finetune(replace(config, resume=True), quiet).path) == files(whole.path)


def test_a_run_that_diverges_stops_there(config, quiet, monkeypatch):
    taken = []
    train_on = HeadPool.train_on
    monkeypatch.setattr(
        HeadPool, "train_on", lambda self, window: taken.append(window.start) or train_on(self, window)
    )
    wild = replace(config, iterations=5000, eval_every=5000, lr=1e9, momentum=1e9)
    with pytest.raises(UserError, match="the loss is NaN or infinite at iteration"):
        finetune(wild, quiet)
    assert len(taken) < 10


@pytest.mark.parametrize("method", TRAINED)
def test_a_run_that_diverges_says_where_and_leaves_nothing(config, method, quiet, tmp_path):
    wild = replace(config, method=method, lr=1e9, momentum=1e9, max_norm=None, weight_decay=1e9)
    with pytest.raises(UserError, match=r"is NaN or infinite at iteration \d+, .*rows .*; lower --lr"):
        finetune(wild, quiet)
    assert list(tmp_path.glob("run*")) == []


def test_an_error_between_windows_leaves_nobody_making_them(config, quiet, monkeypatch):
    """Even while the error is referenced: the thread reads a store that the user may close."""

    def refuse(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("finetune.one_head._check_not_diverged", refuse)
    with pytest.raises(ZeroDivisionError) as held:
        finetune(replace(config, eval_every=8, window=8), quiet)
    assert held.traceback
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("windows")]
