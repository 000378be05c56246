"""Where the seconds of an epoch go, counted by a clock that the test moves."""

import dataclasses
from types import SimpleNamespace

import pandas as pd
import pytest
from made_training import STEPS, saved, train_interrupted

import extract.train
from extract.train import train
from extract.training import profile

WAIT, STEP, LOOK, WRITE = 1.0, 10.0, 100.0, 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds pass only while images are prepared, in steps, evaluations and when a checkpoint is saved."""
    now = [0.0]

    def passing(what: str, seconds: float) -> None:
        original = getattr(extract.train, what)

        def slow(*arguments):
            now[0] += seconds
            return original(*arguments)

        monkeypatch.setattr(extract.train, what, slow)

    for what, seconds in {"take_step": STEP, "predict": LOOK, "save_checkpoint": WRITE}.items():
        passing(what, seconds)
    batches = extract.train.training_batches

    def slowly(*arguments):
        for batch in batches(*arguments):
            now[0] += WAIT
            yield batch

    monkeypatch.setattr(extract.train, "training_batches", slowly)
    fake = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(extract.train, "time", fake)
    monkeypatch.setattr(profile, "time", fake)


def test_every_second_of_an_epoch_is_counted_once(tiny, quiet, clock):
    config = dataclasses.replace(tiny, epochs=3, eval_every=2)
    train(config, quiet)
    found = pd.read_csv(f"{config.out}/metrics.csv").filter(like="seconds")
    each = STEPS * (WAIT + STEP)
    assert found.to_dict("list") == {
        "seconds": [each, each + LOOK + WRITE, each + LOOK + WRITE],
        "seconds_waiting": [STEPS * WAIT] * 3,
        "seconds_evaluating": [0, LOOK, LOOK],
        "seconds_writing": [0, WRITE, WRITE],
    }


def test_an_interrupted_epoch_keeps_its_seconds(tiny, quiet, clock):
    config = dataclasses.replace(tiny, epochs=1)
    train_interrupted(config, 3)
    train(dataclasses.replace(config, resume=True), quiet)
    (row,) = saved(config).history
    assert row["seconds_waiting"] == STEPS * WAIT
    assert row["seconds"] == STEPS * (WAIT + STEP) + LOOK


def test_an_epoch_is_told_in_a_line():
    spent = profile.Profile({"waiting": 1.0, "evaluating": 2.0, "writing": 0.25})
    assert spent.told(10.0) == "10.0 s: 6.8 in steps, 1.0 waiting for images, 2.0 evaluating, 0.2 writing"
