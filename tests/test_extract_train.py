"""Phase I: its learning rates, its steps, its data, and the files that it writes."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_training import STEPS, same_weights, saved, timeless
from torch.nn.functional import cross_entropy

import extract.train
from extract.checkpoints.checkpoint import Checkpoint
from extract.checkpoints.restore import restore
from extract.config import TrainConfig
from extract.dataset import load_dataset
from extract.networks.registry import build_network
from extract.train import train
from extract.training.optimisation.schedule import learning_rate


def record_batches(monkeypatch: pytest.MonkeyPatch) -> list[list]:
    """Make `train` record the batches of each of its epochs here."""
    epochs, make = [], extract.train.training_batches

    def recorded(*arguments):
        epochs.append(list(make(*arguments)))
        return iter(epochs[-1])

    monkeypatch.setattr(extract.train, "training_batches", recorded)
    return epochs


def resolved(recipe: str, **changes) -> TrainConfig:
    return TrainConfig(recipe=recipe, **changes).resolved()


@pytest.mark.parametrize(
    ("recipe", "changes", "rates"),
    [
        ("cifar-lt", {}, {0: 0.1, 149.99: 0.1, 150: 0.01, 299.99: 0.01}),
        ("inaturalist", {}, {0: 0.1, 29.9: 0.1, 30: 0.01, 59.9: 0.01, 60: 1e-3, 89.9: 1e-3, 90: 1e-4}),
        ("short", {}, {0: 0.1, 29.9: 0.1, 30: 0.01, 44.9: 0.01, 45: 1e-3, 59.9: 1e-3}),
        ("short", {"epochs": 4, "lr": 1.0}, {1.9: 1, 2: 0.1, 3: 0.01}),
        ("cosine", {}, {0: 0, 2.5: 0.05, 5: 0.1, 102.5: 0.05, 200: 0}),
        ("cosine", {"epochs": 10, "warmup_epochs": 0}, {0: 0.1, 2.5: 0.0853553, 5: 0.05, 7.5: 0.0146447}),
        ("cifar-lt", {"warmup_epochs": 5}, {0: 0, 1: 0.02, 4: 0.08, 5: 0.1, 150: 0.01}),
        ("cifar-lt", {"schedule": "cosine"}, {0: 0.1, 150: 0.05}),
        ("cosine", {"schedule": "step"}, {5: 0.1, 99.9: 0.1, 100: 0.01, 150: 1e-3}),
    ],
)
def test_learning_rates_of_the_recipes(recipe, changes, rates):
    config = resolved(recipe, **changes)
    for epoch, rate in rates.items():
        assert learning_rate(config, epoch) == pytest.approx(rate, rel=1e-5, abs=1e-12)


def test_the_cosine_falls_all_the_way_and_ends_near_0():
    config = resolved("cosine")
    rates = [learning_rate(config, step / 97) for step in range(5 * 97, 200 * 97)]
    assert all(before > after for before, after in itertools.pairwise(rates))
    assert 0 < rates[-1] < 1e-6


def test_recipes_carry_the_papers_epochs_and_yield_to_options():
    assert resolved("cifar-lt").epochs == 300
    assert resolved("inaturalist").epochs == 100
    own = resolved("cifar-lt", epochs=7, lr=0.5, batch_size=3, weight_decay=0.0)
    assert (own.epochs, own.lr, own.batch_size, own.weight_decay) == (7, 0.5, 3, 0.0)


def test_each_step_takes_the_rate_of_its_moment(tiny, monkeypatch, quiet):
    moments = []

    def rate(config, epoch, n_images):
        moments.append(epoch)
        return 0.01

    monkeypatch.setattr(extract.train, "learning_rate", rate)
    train(dataclasses.replace(tiny, epochs=2), quiet)
    assert moments == pytest.approx([step / STEPS for step in range(2 * STEPS)])


def test_two_steps_are_sgd_with_momentum_and_weight_decay(tiny, monkeypatch, quiet):
    config = dataclasses.replace(tiny, epochs=2, batch_size=64, weight_decay=0.01)
    epochs = record_batches(monkeypatch)
    trained = train(config, quiet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_network(config.network, 3)
    velocity = {name: 0.0 for name, _ in network.named_parameters()}
    for lr, [(images, labels)] in zip((0.05, 0.005), epochs, strict=True):
        network.zero_grad()
        cross_entropy(network(images), labels).backward()
        with torch.no_grad():
            for name, weight in network.named_parameters():
                velocity[name] = 0.9 * velocity[name] + weight.grad + 0.01 * weight
                weight -= lr * velocity[name]
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(trained.state[name], tensor)


def test_the_metrics_are_means_over_images(tiny, monkeypatch, quiet):
    config = dataclasses.replace(tiny, epochs=1, lr=0.0)  # so that the weights do not change
    epochs = record_batches(monkeypatch)
    trained = train(config, quiet)
    network = build_with_state(config, trained)
    losses, correct = [], []
    for images, labels in epochs[0]:
        logits = network(images)
        losses += cross_entropy(logits, labels, reduction="none").tolist()
        correct += (logits.argmax(dim=1) == labels).tolist()
    assert len(losses) == 34
    (row,) = trained.history
    assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert row["train_accuracy"] == pytest.approx(100 * np.mean(correct))
    assert row["lr"] == 0


def build_with_state(config: TrainConfig, checkpoint: Checkpoint):
    """The checkpoint's network in training mode, where BatchNorm uses each batch's own statistics."""
    with torch.random.fork_rng(devices=[]):
        network = build_network(config.network, len(checkpoint.class_names))
    network.load_state_dict(checkpoint.state)
    return network.train()


def test_accuracy_is_taken_every_few_epochs_and_at_the_end(tiny, quiet):
    config = dataclasses.replace(tiny, eval_every=2)
    history = train(config, quiet).history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert ["test_accuracy" in row for row in history] == [False, True, True]
    assert "val_accuracy" not in history[-1]
    assert list(pd.read_csv(Path(config.out) / "metrics.csv")["epoch"]) == [1, 2, 3]


def test_it_learns(tiny, quiet):
    config = dataclasses.replace(tiny, epochs=6, schedule="cosine")
    history = train(config, quiet).history
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert history[-1]["test_accuracy"] > 60


def test_validation_and_test_images_are_never_trained_on(tiny, monkeypatch, quiet):
    config = dataclasses.replace(tiny, dataset=dataclasses.replace(tiny.dataset, val_per_class=4))
    dataset = load_dataset(config.dataset, 8, quiet)
    splits, make = [], extract.train.training_batches

    def recorded(split, *rest):
        splits.append(split)
        return make(split, *rest)

    monkeypatch.setattr(extract.train, "training_batches", recorded)
    history = train(config, quiet).history
    assert len(splits) == 3
    assert len(dataset.val) == 12
    held_out = {image.numpy().tobytes() for split in (dataset.val, dataset.test) for image in split.images}
    assert len(held_out) == 24
    for split in splits:
        assert sorted(split.sample_index) == sorted(dataset.train.sample_index)
        assert not set(split.sample_index) & set(dataset.val.sample_index)
        assert not held_out & {image.numpy().tobytes() for image in split.images}
    assert "val_accuracy" in history[-1]
    assert "test_accuracy" not in history[-1]


def test_every_epoch_has_an_order_of_its_own(tiny, monkeypatch, quiet):
    epochs = record_batches(monkeypatch)
    train(tiny, quiet)
    train(dataclasses.replace(tiny, overwrite=True, seed=1, epochs=1), quiet)
    first_batches = [epoch[0][0] for epoch in epochs]
    for a, b in itertools.combinations(first_batches, 2):
        assert not torch.equal(a, b)


def test_a_seed_determines_the_run(tiny, tmp_path, quiet):
    first, again, other = (
        train(dataclasses.replace(tiny, out=str(tmp_path / f"{run}"), seed=seed), quiet)
        for run, seed in enumerate((0, 0, 1))
    )
    assert same_weights(first, again)
    assert timeless(first.history) == timeless(again.history)
    assert not same_weights(first, other)


def test_the_seed_draws_the_initial_weights(tiny, tmp_path, quiet):
    still = dataclasses.replace(tiny, epochs=1, lr=0.0, weight_decay=0.0)
    first, other = (
        train(dataclasses.replace(still, out=str(tmp_path / str(seed)), seed=seed), quiet) for seed in (0, 1)
    )
    assert not torch.equal(first.state["features.0.weight"], other.state["features.0.weight"])
    assert not torch.equal(first.state["classifier.weight"], other.state["classifier.weight"])


def test_the_checkpoint_describes_the_run(tiny, quiet):
    returned = train(tiny, quiet)
    checkpoint = saved(tiny)
    assert same_weights(returned, checkpoint)
    assert checkpoint.class_names == ["0", "1", "2"]
    assert checkpoint.class_counts == [18, 10, 6]
    assert checkpoint.transform["flip"]
    assert checkpoint.transform["image_size"] == 8
    assert checkpoint.config["weight_decay"] == 2e-4  # the recipe's, written out
    written = json.loads((Path(tiny.out) / "config.json").read_text())
    assert written == json.loads(json.dumps(checkpoint.config))
    assert sorted(path.name for path in Path(tiny.out).iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "metrics.csv",
    ]


def test_a_checkpoint_restores_the_network_and_the_images(tiny, quiet):
    trained = train(tiny, quiet)
    restored = restore(Path(tiny.out) / "checkpoint.pt", None, quiet)
    assert not restored.network.training
    for name, tensor in restored.network.state_dict().items():
        assert torch.equal(tensor, trained.state[name])
    assert restored.dataset.class_counts.tolist() == [18, 10, 6]
    assert restored.dataset.fingerprint == trained.fingerprint
