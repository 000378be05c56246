"""Trainings with other losses than cross-entropy: when weights change, resumption, refusals."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import FOLDER, TINY, refuse, succeed
from made_training import STEPS, same_weights, saved, timeless, train_interrupted

from extract.checkpoints.restore import restore
from extract.config import TrainConfig
from extract.train import train
from extract.training.batch import Batch
from extract.training.losses.config import LossConfig
from extract.training.losses.kind import Loss, LossKind
from extract.training.losses.objective import objective_of_epoch
from extract.training.losses.registry import LOSSES
from extract.training.recorded import recorded
from store.errors import UserError


def with_loss(config: TrainConfig, out: str, **options) -> TrainConfig:
    folder = Path(config.out).with_name(out)
    return replace(config, out=str(folder), objective=LossConfig(**options))


def losses(config: TrainConfig, quiet) -> list[float]:
    return [row["loss"] for row in train(config, quiet).history]


@pytest.mark.parametrize("loss", ["ce", "ldam"])
def test_deferred_weights_begin_with_their_epoch(tiny, quiet, loss):
    """Three epochs: alike until the weights begin, whatever they are, and to the end without any."""
    never = losses(with_loss(tiny, "never", loss=loss, drw_epoch=3), quiet)
    late = losses(with_loss(tiny, "late", loss=loss, drw_epoch=2), quiet)
    early = losses(with_loss(tiny, "early", loss=loss, drw_epoch=1), quiet)
    assert late[:2] == never[:2]
    assert early[:1] == never[:1]
    assert late[2] != never[2]
    assert early[1] != never[1]
    assert loss == "ldam" or never == losses(with_loss(tiny, "plain"), quiet)


@pytest.mark.parametrize("options", [{"loss": "ldam", "drw_epoch": 1}, {"loss": "range"}], ids=str)
@pytest.mark.parametrize("n", [3, STEPS + 1, STEPS + 3])
def test_a_training_that_is_resumed_ends_in_the_same_weights(tiny, quiet, options, n):
    whole = train(with_loss(tiny, "whole", **options), quiet)
    cut = with_loss(tiny, "cut", **options)
    train_interrupted(cut, n)
    resumed = train(replace(cut, resume=True), quiet)
    assert same_weights(whole, resumed)
    assert timeless(resumed.history) == timeless(whole.history)


@pytest.mark.parametrize("loss", ["balanced-softmax", "class-balanced"])
def test_batches_that_a_sampler_balances_are_not_balanced_again(tiny, quiet, loss):
    balanced = replace(tiny, sampler="class-balanced", epochs=2)
    plain = losses(with_loss(balanced, "plain"), quiet)
    assert losses(with_loss(balanced, "corrected", loss=loss), quiet) == pytest.approx(plain, rel=1e-3)
    assert losses(with_loss(replace(tiny, epochs=1), "run", loss=loss), quiet)[0] != pytest.approx(
        losses(with_loss(replace(tiny, epochs=1), "uncorrected"), quiet)[0], rel=1e-2
    )


def test_the_prior_follows_a_sampler_that_changes():
    config = TrainConfig(sampler="progressive", epochs=4, objective=LossConfig("balanced-softmax")).resolved()
    layer, counts = torch.nn.utils.skip_init(torch.nn.Linear, 2, 2), np.array([90, 10])
    batch = Batch(torch.empty(1, 0), torch.tensor([1]))
    for epoch in range(4):
        rare = 0.1 + epoch / 4 * (0.5 - 0.1)  # share of the second class among the images of this epoch
        objective = objective_of_epoch(config, counts, epoch, layer)
        found = objective.mean(torch.zeros(1, 2), None, batch, epoch / 4)
        assert found.item() == pytest.approx(-math.log(rare))


def test_a_network_of_ldam_predicts_by_cosines_with_a_plain_fc_layer(tiny, quiet):
    config = with_loss(tiny, "run", loss="ldam")
    train(config, quiet)
    restored = restore(Path(config.out) / "checkpoint.pt", None, quiet, only=("test",))
    network, images = restored.network.eval(), restored.dataset.test.images.float() / 255
    weight = saved(config).state["classifier.weight"]
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(3))
    assert not saved(config).state["classifier.bias"].any()
    with torch.inference_mode():
        pooled = network.pooled(images)
        logits = network(images)
    cosines = torch.nn.functional.cosine_similarity(pooled[:, None], weight, dim=2)
    torch.testing.assert_close(logits, pooled.norm(dim=1, keepdim=True) * cosines)
    assert torch.equal(logits.argmax(dim=1), cosines.argmax(dim=1))


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_and_its_values_are_recorded(tiny, quiet, loss):
    config = with_loss(replace(tiny, epochs=2), "run", loss=loss)
    checkpoint = train(config, quiet)
    stored = checkpoint.config["objective"]
    told = {k: v for k, v in stored.items() if v not in (None, 0.0)} if loss != "ce" else {}
    assert {k: v for k, v in recorded(checkpoint.config).items() if v != 0.0} == told
    assert stored["loss"] == loss
    unset = {name for name in LOSSES[loss].options if stored[name] is None}
    assert unset == ({"drw_epoch"} if loss in ("ce", "focal") else set())
    assert (stored["beta"] is not None) == (loss in ("class-balanced", "ldam"))
    assert train(replace(config, resume=True), quiet).epoch == 2  # the stored options are those asked for


def test_a_loss_is_a_file_and_a_line(tiny, quiet, monkeypatch):
    """Registered from outside: what it adds up is what is minimised."""
    kind = LossKind(lambda config, setting: Loss(lambda z, y: (z**2).sum(dim=1)), {"tau": 3.0})
    monkeypatch.setitem(LOSSES, "squares", kind)
    checkpoint = train(with_loss(replace(tiny, epochs=8), "run", loss="squares"), quiet)
    values = [row["loss"] for row in checkpoint.history]
    assert values[-1] < 0.1 * values[0]
    assert checkpoint.config["objective"]["tau"] == 3.0
    text = succeed("train", "--help").stdout
    assert "squares" in text


def test_another_loss_does_not_resume_a_training(tiny, quiet):
    config = with_loss(replace(tiny, epochs=2), "run", loss="focal", focal_gamma=2.0)
    train_interrupted(config, 2)
    for given, says in [
        (("--loss", "ce"), "loss was focal, now it is ce"),
        (("--focal-gamma", 1), "focal_gamma was 2.0, now it is 1.0"),
        (("--tau", 2), "--tau 2.0: --loss focal does not take it"),
        (("--epochs", 3), "epochs was 2, now it is 3"),
    ]:
        refuse("train", "--out", config.out, "--resume", *given, says=[says])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--loss hinge", ["--loss", "hinge", "'ce', 'focal', 'class-balanced'"]),
        (
            "--focal-gamma 2",
            ["--focal-gamma 2.0: --loss ce does not take it", "use --loss focal or class-balanced"],
        ),
        ("--loss focal --label-smoothing 0.1", ["--label-smoothing 0.1: --loss focal", "use --loss ce"]),
        (
            "--loss lifted --tau 1",
            ["--tau 1.0: --loss lifted does not take it", "use --loss balanced-softmax"],
        ),
        ("--loss ce --weighted-mean batch", ["--weighted-mean batch: --loss ce", "without --drw-epoch"]),
        ("--loss focal --beta 0.9", ["--beta 0.9: --loss focal", "without --drw-epoch"]),
        (
            "--loss balanced-softmax --drw-epoch 1",
            ["--drw-epoch 1: --loss", "use --loss ce or focal or ldam"],
        ),
        (
            "--loss ldam --drw-epoch 9",
            ["--drw-epoch 9: is more than the 1 of --epochs; give at most 1, which means never"],
        ),
        ("--loss ldam --drw-epoch -1", ["--drw-epoch -1: must be 0 or more"]),
        ("--label-smoothing 1", ["--label-smoothing 1.0: must be 0 or more, and below 1"]),
        ("--label-smoothing nan", ["--label-smoothing nan: must be 0 or more"]),
        ("--loss class-balanced --beta 1", ["--beta 1.0: must be 0 or more, and below 1"]),
        ("--loss class-balanced --beta nan", ["--beta nan: must be 0 or more"]),
        ("--loss balanced-softmax --tau inf", ["--tau inf: must be a number between"]),
        ("--loss label-aware-smoothing --smooth-head 1.5", ["--smooth-head 1.5: must be from 0 to 1"]),
        ("--loss ldam --logit-scale 0", ["--logit-scale 0: must be above 0"]),
        ("--loss range --metric-weight -1", ["--metric-weight -1.0: must be 0 or more"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
@pytest.mark.usefixtures("in_tmp_path")
def test_an_option_of_the_loss_is_refused(options, says):
    """Before anything is read: there is no such folder of images."""
    refuse("train", *FOLDER, *TINY, "--root", "nowhere", "--out", "phase1", *options.split(), says=says)


def test_the_same_is_refused_from_python():
    with pytest.raises(UserError, match=r"^--tau 1: --loss ce does not take it"):
        TrainConfig(objective=LossConfig(tau=1)).resolved()
