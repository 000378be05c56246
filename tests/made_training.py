"""Trainings of a network on images so small that an epoch takes a moment."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

import extract.train
from extract.checkpoints.checkpoint import Checkpoint, load_checkpoint
from extract.config import TrainConfig
from extract.train import train

STEPS = 5  # an epoch of 34 images (18, 10 and 6 a class) in batches of 8


def saved(config: TrainConfig) -> Checkpoint:
    return load_checkpoint(Path(config.out) / "checkpoint.pt")


def same_weights(a: Checkpoint, b: Checkpoint) -> bool:
    assert a.state.keys() == b.state.keys()
    return all(torch.equal(tensor, b.state[name]) for name, tensor in a.state.items())


def timeless(history: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in history]


def train_interrupted(config: TrainConfig, n: int, what: str = "learning_rate") -> None:
    """Train, with Ctrl-C at the start of the n-th batch (or evaluation, with `predict`)."""
    calls, original = itertools.count(1), getattr(extract.train, what)

    def interrupted(*arguments):
        if next(calls) == n:
            raise KeyboardInterrupt
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract.train, what, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, Progress(disable=True))


def resumed_to_the_bit(plain: TrainConfig, config: TrainConfig) -> Checkpoint:
    """Train as `config` says: whole, interrupted within an epoch and resumed, and as `plain` says.

    The first two must end alike, and unlike the third, of which `config` is a variation.
    """
    out, quiet = Path(config.out), Progress(disable=True)
    whole = train(dataclasses.replace(config, out=str(out.with_name("whole"))), quiet)
    cut = dataclasses.replace(config, out=str(out.with_name("cut")))
    train_interrupted(cut, STEPS + 1)
    resumed = train(dataclasses.replace(cut, resume=True), quiet)
    assert same_weights(whole, resumed)
    assert timeless(resumed.history) == timeless(whole.history)
    other = train(dataclasses.replace(plain, out=str(out.with_name("plain"))), quiet)
    assert not same_weights(whole, other)
    return whole
