"""The forecast of a contest: as many heads as are trained, their time, and no effect on the results."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bad_input import succeed
from made_contest import other_row
from made_together import in_processes

from finetune.contest import ahead, entries
from finetune.contest import field as running
from finetune.contest.ahead import Pace, in_words, seconds_ahead
from finetune.contest.contest import contest
from finetune.contest.entries import ENTRIES, Entry
from finetune.sweep.processes import Processes

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def counted(monkeypatch):
    """Heads that are forecast, as their number on each store in a round, and those that are trained."""
    forecast, trained, told = [], [], running.in_words
    train = running.train_batch

    def in_words_too(rounds, *rest):
        forecast.extend((len(heads), i) for of_round in rounds for i, heads in enumerate(of_round) if heads)
        return told(rounds, *rest)

    def train_too(batch, loaded, *rest):
        trained.extend(batch)
        return train(batch, loaded, *rest)

    monkeypatch.setattr(running, "in_words", in_words_too)
    monkeypatch.setattr(running, "train_batch", train_too)
    return forecast, trained


@pytest.mark.usefixtures("few_entries")
@pytest.mark.parametrize("seeds", [1, 3])
def test_as_many_heads_are_forecast_as_are_trained(contest_config, quiet, counted, caplog, seeds):
    forecast, trained = counted
    contest(replace(contest_config, seeds=seeds), quiet)
    expected = {1: 17, 3: 22}[seeds]
    assert sum(n for n, _ in forecast) == len(trained) == expected
    assert f"3 entries, {expected} heads in {seeds} round" in caplog.text


@pytest.mark.usefixtures("few_entries")
def test_heads_of_every_store_are_forecast(contest_config, quiet, counted, feature_store):
    forecast, trained = counted
    shutil.copytree(feature_store, "other.zarr")
    with other_row("other.zarr"):
        contest(replace(contest_config, store=(str(feature_store), "other.zarr"), seeds=2), quiet)
    assert sum(n for n, store in forecast if store == 0) == sum(n for n, store in forecast if store == 1)
    assert sum(n for n, _ in forecast) == len(trained) == 2 * 20


@pytest.mark.usefixtures("few_entries")
def test_only_heads_that_are_left_are_forecast(contest_config, quiet, counted, caplog):
    forecast, trained = counted
    contest(replace(contest_config, methods="crt,fsa", seeds=1), quiet)
    forecast.clear(), trained.clear(), caplog.clear()
    contest(replace(contest_config, seeds=3, resume=True), quiet)
    assert sum(n for n, _ in forecast) == len(trained) == 11 + 3 + 2
    assert "3 entries, 16 of 22 heads left in 3 rounds" in caplog.text
    forecast.clear(), caplog.clear()
    contest(replace(contest_config, seeds=3, resume=True), quiet)
    assert forecast == []
    assert "left in" not in caplog.text


def test_heads_after_one_that_diverged_are_not_forecast_once_this_is_known(
    contest_config, quiet, counted, monkeypatch
):
    forecast, trained = counted
    some = {"plain": Entry("plain", {"momentum": (4e9, 3e9, 2e9, 0.9)}, {"lr": 4e9}), "ncm": ENTRIES["ncm"]}
    monkeypatch.setattr(entries, "ENTRIES", some)
    contest(replace(contest_config, seeds=2), quiet)
    assert sum(n for n, _ in forecast) == len(trained) + 1  # two would go on, and one was whole
    forecast.clear(), trained.clear()
    contest(replace(contest_config, seeds=2, resume=True), quiet)
    assert forecast == trained == []


@pytest.mark.usefixtures("few_entries")
def test_measuring_changes_no_result(contest_config, quiet, monkeypatch):
    contest(replace(contest_config, seeds=2), quiet)
    monkeypatch.setattr(running, "seconds_ahead", lambda *_: 1.0)
    contest(replace(contest_config, seeds=2, out="unmeasured"), quiet)
    for name in ("standings.csv", "heads.csv"):
        one, two = (pd.read_csv(f"{out}/{name}").drop(columns="seconds") for out in ("c", "unmeasured"))
        pd.testing.assert_frame_equal(one, two)
    assert Path("c/best/head.pt").read_bytes() == Path("unmeasured/best/head.pt").read_bytes()


@pytest.mark.usefixtures("few_entries")
def test_the_first_of_several_processes_tells_of_all_heads(contest_config):
    options = ["--store", *contest_config.store, "--iterations", 30, "--device", "cpu", "--out", "c"]

    def take_part(rank: int) -> None:
        Path(f"notes-{rank}").write_text(succeed("contest", *options).stderr)

    assert in_processes(2, take_part) == [0, 0]
    assert "note: contest: 3 entries, 22 heads in 3 rounds, " in Path("notes-0").read_text()
    assert "rounds" not in Path("notes-1").read_text()


def test_the_line_in_words():
    assert in_words([[["a"] * 1000], [["b"] * 300]], 1300, 24, 3000) == (
        "contest: 24 entries, 1,300 heads in 2 rounds, about 50 min on this machine"
    )
    assert (
        in_words([[["a"]]], 1, 1, 42.4) == "contest: 1 entry, 1 head in 1 round, about 42 s on this machine"
    )
    assert in_words([[[]], [["a"], ["b"]]], 5, 2, 1.0) == (
        "contest: 2 entries, 2 of 5 heads left in 1 round, a few seconds on this machine"
    )


@pytest.mark.usefixtures("few_entries")
def test_the_seconds_are_those_of_all_heads(contest_config, quiet, monkeypatch):
    """Of batches that take a second to start and two for each head: counted over rounds, stores and folds."""
    found = []

    def forecast(rounds, loaded, n_folds, group):
        for stores, folds in ((1, 0), (1, 4), (3, 0)):
            of_all = [of_round * stores for of_round in rounds]
            found.append(seconds_ahead(of_all, loaded * stores, folds, group))
        return 1.0

    monkeypatch.setattr(ahead, "_measured", lambda batch, loaded: Pace(1.0, 2.0 * len(batch)))
    monkeypatch.setattr(running, "seconds_ahead", forecast)
    contest(contest_config, quiet)
    n_heads = 6 + 3 + 2  # crt and fsa; the others are computed
    assert found == [6 + 2 * n_heads, 5 * (6 + 2 * n_heads), 3 * (6 + 2 * n_heads)]
    assert seconds_ahead([[[]], [[]]], [None], 0, Processes()) == 0
