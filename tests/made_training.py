"""Trainings of a network on images so small that an epoch takes a moment."""

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
