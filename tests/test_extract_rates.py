"""Learning rates that are stated for a batch size, the one-cycle schedule, and options that are refused."""

import dataclasses
from pathlib import Path

import pytest
import torch
from bad_input import FOLDER, TINY, refuse, succeed

import extract.train
from extract.config import TrainConfig
from extract.train import train
from extract.training.optimisation.config import OptimConfig
from extract.training.optimisation.optimizer import Optimizer
from extract.training.optimisation.schedule import learning_rate
from extract.training.recorded import defaults, recorded
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_one_cycle_is_that_of_torch():
    config = TrainConfig(schedule="one-cycle", epochs=10, lr=0.4).resolved()
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    steps = 1000
    cycle = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.4, total_steps=steps + 1, cycle_momentum=False)
    for step in range(steps):
        # torch's rise ends a step early: 0.3 of its steps, less one
        share = step / steps
        assert learning_rate(config, 10 * share) == pytest.approx(sgd.param_groups[0]["lr"], abs=3e-3)
        sgd.step()
        cycle.step()
    assert learning_rate(config, 0) == pytest.approx(0.4 / 25)
    assert learning_rate(config, 3) == pytest.approx(0.4)
    assert learning_rate(config, 10) == pytest.approx(0.4 / 25e4)
    assert TrainConfig(recipe="cosine", schedule="one-cycle").resolved().warmup_epochs == 0


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "stated", "rate"),
    [(64, 1, 128, 0.025), (128, 1, 128, 0.05), (32, 4, 128, 0.05), (256, 2, 128, 0.2), (64, 1, None, 0.05)],
)
def test_the_rate_is_scaled_to_the_images_of_a_step(batch_size, accumulate, stated, rate):
    options = OptimConfig(accumulate=accumulate, lr_batch_size=stated)
    config = TrainConfig(batch_size=batch_size, lr=0.05, optimisation=options).resolved()
    assert learning_rate(config, 0) == pytest.approx(rate)
    assert learning_rate(config, 45) == pytest.approx(rate / 100)
    assert config.lr == 0.05


def test_scaling_is_told_and_shows_in_the_metrics(tiny, quiet, caplog):
    config = dataclasses.replace(tiny, epochs=2, optimisation=OptimConfig(lr_batch_size=32))
    row = train(config, quiet).history[0]
    assert row["lr"] == pytest.approx(0.05 / 4)
    says = "the learning rate 0.05 is stated for 32 images in a step; for 8 it is 0.0125"
    assert says in caplog.messages


def test_a_step_of_several_batches_has_the_rate_of_its_first(tiny, quiet, monkeypatch):
    moments = []
    monkeypatch.setattr(extract.train, "learning_rate", lambda _, epoch, __: moments.append(epoch) or 0.01)
    train(dataclasses.replace(tiny, epochs=2, optimisation=OptimConfig(accumulate=2)), quiet)
    firsts = [0, 0, 2, 2, 4]
    assert moments == pytest.approx([first / 5 for first in firsts] + [1 + first / 5 for first in firsts])


def test_a_warm_up_without_end_and_a_step_of_all_batches_are_told(tiny, quiet, caplog):
    config = dataclasses.replace(tiny, warmup_epochs=2, epochs=2)
    train(dataclasses.replace(config, optimisation=OptimConfig(accumulate=6)), quiet)
    text = "\n".join(caplog.messages)
    assert "warms up for 2 epochs and training has 2, so it never reaches 0.05" in text
    assert "--accumulate 6: an epoch has 5 batches, so that all of them are one step" in text
    caplog.clear()
    enough = dataclasses.replace(
        config, out="enough", warmup_epochs=1, optimisation=OptimConfig(accumulate=4)
    )
    train(enough, quiet)
    assert "warms up" not in "\n".join(caplog.messages)
    assert "--accumulate" not in "\n".join(caplog.messages)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--sam -0.1", ["--sam -0.1: must be 0 or more"]),
        ("--sam 0.5 --accumulate 2", ["--sam 0.5", "leave --accumulate out"]),
        ("--ema-decay 1", ["--ema-decay 1: must be below 1"]),
        ("--ema-decay 1.5", ["--ema-decay 1.5: must be below 1"]),
        ("--ema-decay -0.5", ["--ema-decay -0.5: must be 0 or more"]),
        ("--accumulate 0", ["--accumulate 0: must be 1 or more"]),
        ("--clip-gradient 0", ["--clip-gradient 0: must be above 0"]),
        ("--clip-gradient nan", ["--clip-gradient nan: must be above 0"]),
        ("--lr-batch-size 0", ["--lr-batch-size 0: must be 1 or more"]),
        ("--nesterov --momentum 0", ["--nesterov: needs --momentum above 0"]),
        ("--decoupled-decay --lr 0.1 --weight-decay 10", ["--decoupled-decay: --lr 0.1 times", "below 1"]),
        (
            "--decoupled-decay --lr 0.1 --classifier-lr 10 --weight-decay 0.15",
            ["--decoupled-decay: --classifier-lr 10 times --weight-decay 0.15", "below 1"],
        ),
        (
            "--decoupled-decay --lr 0.1 --lr-batch-size 1 --batch-size 8 --weight-decay 2",
            ["--decoupled-decay: --lr 0.1 (times 8 for --lr-batch-size 1) times", "below 1"],
        ),
        ("--classifier-lr 0.1 --lr 0", ["--classifier-lr 0.1: follows --lr, which is 0"]),
        ("--schedule one-cycle --warmup-epochs 3", ["--warmup-epochs 3: --schedule one-cycle warms up"]),
    ],
)
def test_options_that_mean_nothing_are_refused(small_root, options, says):
    refuse("train", *FOLDER, *TINY, "--root", small_root, *options.split(), says=says)


def test_a_command_can_turn_each_option_on_and_off_and_stores_tell(small_root):
    on = [
        "--nesterov",
        "--no-decay-on-norms",
        "--ema-decay",
        "0.9",
        "--accumulate",
        "2",
        "--sampler",
        "square-root",
    ]
    succeed("train", *FOLDER, *TINY, "--root", small_root, "--out", "on", *on)
    config = torch.load("on/checkpoint.pt", weights_only=True)["config"]
    assert recorded(config) == {
        "sampler": "square-root",
        "nesterov": True,
        "decay_on_norms": False,
        "ema_decay": 0.9,
        "accumulate": 2,
    }
    assert recorded({"epochs": 3}) == {}  # of version 0.1
    assert recorded({"epochs": 0, "batch_size": None}) == {}  # of another program's network
    assert defaults()["sampler"] == "instance"
    off = ["--no-nesterov", "--decay-on-norms", "--no-decoupled-decay", "--ema-decay", "0", "--sam", "0"]
    for out, options in (("off", off), ("plain", [])):
        succeed("train", *FOLDER, *TINY, "--root", small_root, "--out", out, *options)
    states = [torch.load(f"{out}/checkpoint.pt", weights_only=True)["state"] for out in ("off", "plain")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(("stated", "told"), [(128, 128), (100, None), (None, None)])
def test_a_rate_that_few_images_scale_is_recorded(stated, told):
    """A step has at most the images of an epoch: with 100 of them, 128 a step are 100."""
    options = OptimConfig(lr_batch_size=stated)
    config = TrainConfig(batch_size=128, lr=0.1, optimisation=options).resolved()
    assert (learning_rate(config, 0, 100) == 0.1) == (told is None)
    assert recorded(dataclasses.asdict(config), n_images=100).get("lr_batch_size") == told


def test_stores_tell_trainings_apart_whose_rates_few_images_scale(small_root):
    stated = ["--batch-size", 64, "--lr-batch-size", 64]
    succeed("train", *FOLDER, *TINY, "--root", small_root, "--out", "run", *stated)  # of 18 images
    succeed("extract", "--ckpt", "run/checkpoint.pt", "--store", "feats.zarr", "--device", "cpu")
    assert FeatureStore(Path("feats.zarr")).provenance["training"]["lr_batch_size"] == 64


def test_rates_of_0_change_nothing(tiny, quiet):
    still = dataclasses.replace(tiny, epochs=1, lr=0.0, optimisation=OptimConfig(classifier_lr=0.0))
    assert train(still, quiet).history[0]["lr"] == 0


def test_the_rate_is_not_that_of_an_fc_layer_that_comes_first(tiny):
    class FirstFc(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = torch.nn.Linear(2, 2)
            self.body = torch.nn.Linear(2, 2)

    config = dataclasses.replace(tiny.resolved(), optimisation=OptimConfig(classifier_lr=0.5))
    with torch.random.fork_rng():
        optimizer = Optimizer(FirstFc(), config)
    optimizer.step(0.05)
    assert optimizer.rate == 0.05
