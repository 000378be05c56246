"""Trainings that are interrupted and resume as if nothing had happened, or that diverge."""

import dataclasses
import itertools
import math
from pathlib import Path

import pandas as pd
import pytest
from bad_input import write_images
from made_training import STEPS, same_weights, saved, timeless, train_interrupted

import extract.train
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.train import train
from extract.training.interrupted.resume import resumed_config
from store.errors import UserError


@pytest.mark.parametrize("batch", [1, 3, STEPS + 1, STEPS + 4, 3 * STEPS])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tiny, tmp_path, quiet, batch):
    whole = dataclasses.replace(tiny, out=str(tmp_path / "whole"), eval_every=2)
    expected = train(whole, quiet)
    config = dataclasses.replace(tiny, eval_every=2)
    train_interrupted(config, batch)
    left = saved(config)
    assert left.epoch == len(left.history) == (batch - 1) // STEPS
    assert left.optimizer is not None

    train(dataclasses.replace(config, resume=True), quiet)
    resumed = saved(config)
    assert same_weights(resumed, expected)
    assert timeless(resumed.history) == timeless(expected.history)
    assert resumed.epoch == 3
    assert resumed.optimizer is None
    frames = [pd.read_csv(Path(c.out) / "metrics.csv").filter(regex="^(?!seconds)") for c in (config, whole)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_an_interrupted_evaluation_can_be_resumed_too(tiny, tmp_path, quiet):
    expected = train(dataclasses.replace(tiny, out=str(tmp_path / "whole"), eval_every=1), quiet)
    config = dataclasses.replace(tiny, eval_every=1)
    train_interrupted(config, 2, "predict")
    assert saved(config).epoch == 1
    resumed = train(dataclasses.replace(config, resume=True), quiet)
    assert same_weights(resumed, expected)
    assert timeless(resumed.history) == timeless(expected.history)


def test_workers_that_begin_in_an_evaluation_go_on_in_training(tmp_path, quiet):
    """All steps of an epoch were taken, so that the evaluation at its end is the first to need images."""
    dataset = DatasetConfig("imagefolder", str(write_images(tmp_path / "photos", {"a": 4, "b": 3})))
    config = TrainConfig(
        out=str(tmp_path / "run"),
        network=NetworkConfig("resnet8", width=2),
        dataset=dataset,
        image_size=72,  # pixels, so that images stay files
        epochs=2,
        batch_size=4,
        eval_every=1,
        workers=2,
        device="cpu",
    )
    expected = train(dataclasses.replace(config, out=str(tmp_path / "whole")), quiet)
    train_interrupted(config, 1, "predict")
    assert same_weights(train(dataclasses.replace(config, resume=True), quiet), expected)


def test_a_run_of_digits_resumes_bit_by_bit(tmp_path, quiet):
    config = TrainConfig(
        out=str(tmp_path / "run"),
        network=NetworkConfig("resnet8", width=2),
        dataset=DatasetConfig("digits", imbalance_factor=20, val_per_class=3),
        epochs=1,
        batch_size=256,
        device="cpu",
    )
    expected = train(dataclasses.replace(config, out=str(tmp_path / "whole")), quiet)
    train_interrupted(config, 2)
    assert saved(config).epoch == 0
    resumed = train(dataclasses.replace(config, resume=True), quiet)
    assert same_weights(resumed, expected)
    assert timeless(resumed.history) == timeless(expected.history)
    assert not resumed.transform["flip"]  # a mirrored digit is not a digit


def test_resuming_takes_the_options_of_the_run_but_for_those_given(tiny, quiet):
    train_interrupted(dataclasses.replace(tiny, seed=5), 2)
    config = resumed_config(tiny.out, {"workers": 0, "epochs": 9, "width": 3, "val_per_class": 1})
    assert config.resume
    assert config.seed == 5
    assert (config.workers, config.epochs) == (0, 9)
    assert config.network == NetworkConfig("resnet8", width=3)
    assert config.dataset.val_per_class == 1
    assert config.dataset.imbalance_factor == 3
    with pytest.raises(UserError, match="cannot resume: "):
        train(config, quiet)
    finished = train(resumed_config(tiny.out, {"workers": 0}), quiet)
    assert finished.epoch == 3


def test_a_run_over_an_earlier_one_does_not_keep_its_metrics(tiny, quiet):
    train(tiny, quiet)
    train_interrupted(dataclasses.replace(tiny, seed=1, overwrite=True), 2)
    assert saved(tiny).epoch == 0
    assert not (Path(tiny.out) / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("first", "rate", "message"),
    [
        (
            STEPS,
            1e38,
            r"the loss became nan in epoch 2 at lr 1e\+38; start over .--overwrite. with a lower --lr",
        ),
        (2 * STEPS - 1, math.nan, "the weights became infinite or NaN in epoch 2 at lr nan"),
    ],
    ids=["all through an epoch", "in the last step of an epoch"],
)
def test_divergence_keeps_the_last_good_checkpoint(tiny, monkeypatch, quiet, first, rate, message):
    steps = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(extract.train, "learning_rate", lambda *_: rate if next(steps) >= first else 0.05)
        with pytest.raises(UserError, match=message):
            train(tiny, quiet)
    good = saved(tiny)
    assert good.epoch == len(good.history) == 1
    assert math.isfinite(good.history[0]["loss"])
    assert all(tensor.isfinite().all() for tensor in good.state.values())
    assert train(dataclasses.replace(tiny, resume=True), quiet).epoch == 3
