"""Trainings interrupted within an epoch resume from the same batch, to the same bits."""

import itertools
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress
from torch.nn import functional

import extract.images.parts
import extract.train
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.train import train
from extract.training.interrupted.unfinished_epoch import NAME
from extract.training.interrupted.whole_steps import WholeSteps
from store.errors import Interrupted, UserError

STEPS = 3  # an epoch of 18 images in batches of 7


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of small images, in two splits."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, n in (("train", 6), ("test", 2)):
        for name in "abc":
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = generator.integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


@pytest.fixture(params=[8, 72], ids=["in memory", "from files"])
def config(root: Path, tmp_path: Path, request: pytest.FixtureRequest) -> TrainConfig:
    return TrainConfig(
        out=str(tmp_path / "run"),
        network=NetworkConfig("resnet8", width=2),
        dataset=DatasetConfig("imagefolder", str(root)),
        image_size=request.param,
        epochs=2,
        batch_size=7,
        eval_every=1,
        device="cpu",
        workers=0,
    )


@pytest.fixture
def whole(config: TrainConfig, quiet: Progress, wholes: dict[int, tuple], tmp_path: Path) -> tuple:
    """The result of a training that was not interrupted."""
    if config.image_size not in wholes:
        train(replace(config, out=str(tmp_path / "whole")), quiet)
        wholes[config.image_size] = result(replace(config, out=str(tmp_path / "whole")))
    return wholes[config.image_size]


@pytest.fixture(scope="module")
def wholes() -> dict[int, tuple]:
    """By image size."""
    return {}


def interrupted(
    config: TrainConfig, quiet: Progress, n: int, what: str = "learning_rate", by=KeyboardInterrupt
):
    """Train until just before the n-th batch."""
    calls, original = itertools.count(1), getattr(extract.train, what)

    def until(*arguments: object) -> object:
        if next(calls) == n:
            raise by
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract.train, what, until)
        with pytest.raises(Interrupted if by is KeyboardInterrupt else by):
            train(config, quiet)


def kept(config: TrainConfig) -> dict[str, Any] | None:
    path = Path(config.out, NAME)
    return torch.load(path, weights_only=True) if path.exists() else None


def result(config: TrainConfig) -> tuple:
    """Weights, metrics without times, and the other files in the folder."""
    checkpoint = torch.load(Path(config.out, "checkpoint.pt"), weights_only=True)
    rows = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in checkpoint["history"]]
    weights = {name: tensor.numpy().tobytes() for name, tensor in checkpoint["state"].items()}
    return weights, rows, sorted(path.name for path in Path(config.out).iterdir())


def resumed(config: TrainConfig, quiet: Progress, monkeypatch: pytest.MonkeyPatch) -> int:
    """Resume; return the number of batches trained on."""
    steps, step = [], extract.train.take_step
    with monkeypatch.context() as patch:
        patch.setattr(extract.train, "take_step", lambda *arguments: steps.append(step(*arguments)))
        train(replace(config, resume=True), quiet)
    return len(steps)


@pytest.mark.parametrize("n", [2, 3, STEPS + 1, STEPS + 3])
def test_it_goes_on_from_the_batch_to_the_same_bits(config, n, quiet, monkeypatch, whole):
    interrupted(config, quiet, n)
    left = kept(config)
    assert (left["step"] if left else 0) == (n - 1) % STEPS
    assert resumed(config, quiet, monkeypatch) == 2 * STEPS - (n - 1)
    assert result(config) == whole


@pytest.mark.parametrize("config", [72], indirect=True)
def test_what_was_read_is_not_read_again(config, quiet, monkeypatch):
    interrupted(config, quiet, 3)
    read, image_views = [], extract.images.parts.image_views
    monkeypatch.setattr("extract.images.parts.image_views", lambda *a: read.append(a[0]) or image_views(*a))
    train(replace(config, resume=True), quiet)
    assert len([path for path in read if path.parts[-3] == "train"]) == 18 + 18 - 2 * 7


def test_an_interrupted_evaluation_takes_no_step_again(config, quiet, monkeypatch, whole):
    interrupted(config, quiet, 1, "predict")
    assert kept(config)["step"] == STEPS
    assert resumed(config, quiet, monkeypatch) == STEPS
    assert result(config) == whole


def test_it_may_be_stopped_again_and_again(config, quiet, monkeypatch, whole):
    interrupted(config, quiet, 2)
    for _ in range(3):
        interrupted(replace(config, resume=True), quiet, 2)
    interrupted(replace(config, resume=True), quiet, 1)
    assert kept(config)["step"] == 1
    assert resumed(config, quiet, monkeypatch) == 2
    assert result(config) == whole


def test_a_checkpoint_stays_that_of_a_whole_epoch(config, quiet, monkeypatch, whole):
    interrupted(config, quiet, STEPS + 3)
    before = result(config)
    interrupted(replace(config, resume=True), quiet, 1)
    assert result(config) == before
    Path(config.out, NAME).unlink()  # which starts the epoch over
    assert resumed(config, quiet, monkeypatch) == STEPS
    assert result(config) == whole


def test_a_killed_training_goes_on_from_what_was_kept_last(config, quiet, monkeypatch, whole):
    monkeypatch.setattr(extract.train, "SAVE_EVERY", 0.0)
    interrupted(config, quiet, STEPS + 3, by=SystemExit)  # nothing is saved on exit
    assert (kept(config)["epoch"], kept(config)["step"]) == (1, 2)
    assert resumed(config, quiet, monkeypatch) == 1
    assert result(config) == whole


def test_an_epoch_of_an_earlier_checkpoint_is_not_taken_for_this_ones(config, quiet, monkeypatch, whole):
    """A kill may leave one beside the next checkpoint; that of a replaced run is removed."""
    interrupted(config, quiet, 3)
    stale = Path(config.out, NAME).read_bytes()
    interrupted(replace(config, resume=True), quiet, 2)
    assert kept(config) is None
    Path(config.out, NAME).write_bytes(stale)
    assert resumed(config, quiet, monkeypatch) == STEPS
    assert result(config) == whole
    interrupted(replace(config, overwrite=True), quiet, 3)
    interrupted(replace(config, overwrite=True, seed=1), quiet, 1)
    assert kept(config) is None


def test_an_epoch_of_another_run_of_as_many_epochs_is_not_taken_for_this_ones(
    config, quiet, monkeypatch, whole
):
    """For example after copying one folder into another."""
    other = replace(config, out=f"{config.out}-other", seed=1)
    for run in (config, other):
        interrupted(run, quiet, STEPS + 3)
    assert (kept(other)["epoch"], kept(other)["step"]) == (kept(config)["epoch"], kept(config)["step"])
    shutil.copy(Path(other.out, NAME), config.out)
    assert resumed(config, quiet, monkeypatch) == STEPS
    assert result(config) == whole


def test_a_damaged_epoch_is_told(config, quiet):
    interrupted(config, quiet, 3)
    Path(config.out, NAME).write_text("damaged")
    with pytest.raises(
        UserError,
        match=f"{NAME}: not the state of an interrupted epoch .*; remove it, and --resume starts",
    ):
        train(replace(config, resume=True), quiet)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(config, number, quiet, monkeypatch, whole):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as on the command line
    calls, loss = itertools.count(1), functional.cross_entropy

    def sending(*arguments: torch.Tensor, **options: Any) -> torch.Tensor:
        if next(calls) == 2:
            os.kill(os.getpid(), number)
        return loss(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(functional, "cross_entropy", sending)
        with pytest.raises(Interrupted):
            train(config, quiet)
    assert signal.signal(signal.SIGTERM, before) is signal.default_int_handler
    assert kept(config)["step"] == 2
    assert resumed(config, quiet, monkeypatch) == 2 * STEPS - 2
    assert result(config) == whole


def test_a_second_signal_does_not_wait_and_keeps_no_half_step(config, quiet, monkeypatch):
    calls, loss = itertools.count(1), functional.cross_entropy

    def sending(*arguments: torch.Tensor, **options: Any) -> torch.Tensor:
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*arguments, **options)

    monkeypatch.setattr(functional, "cross_entropy", sending)
    with pytest.raises(Interrupted):
        train(config, quiet)
    assert kept(config) is None


def test_a_held_signal_comes_at_the_end_of_the_step_and_handlers_come_back():
    handler = signal.getsignal(signal.SIGINT)
    done = []

    def take_steps() -> None:
        with WholeSteps() as whole_steps:
            with whole_steps.step():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("the rest of the step")
            done.append("another step")

    with pytest.raises(KeyboardInterrupt):
        take_steps()
    assert done == ["the rest of the step"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_image_that_went_bad_within_an_epoch_costs_no_step(config, quiet, monkeypatch, whole):
    interrupted(config, quiet, 3, by=UserError)
    assert kept(config)["step"] == 2
    assert resumed(config, quiet, monkeypatch) == 2 * STEPS - 2
    assert result(config) == whole
