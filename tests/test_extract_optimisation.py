"""Options of Phase I's optimiser, each against its rule written out, and resumed to the same bits."""

import dataclasses
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from made_training import STEPS, same_weights, saved, timeless, train_interrupted
from torch import nn
from torch.nn.functional import cross_entropy

import extract.train
from extract.config import TrainConfig
from extract.device import Compute
from extract.networks.parts import Network
from extract.networks.registry import build_network
from extract.train import train
from extract.training.batch import Batch
from extract.training.interrupted.unfinished_epoch import EpochState
from extract.training.losses.objective import Objective
from extract.training.optimisation.accumulation import Accumulation, Turn
from extract.training.optimisation.config import OptimConfig
from extract.training.optimisation.optimizer import Optimizer
from extract.training.step import Training, take_step

CPU = Compute(torch.device("cpu"), "fp32", 8, 0)
LR, DECAY, MOMENTUM = 0.1, 0.03, 0.9
OPTIONS = {
    "nesterov": {"nesterov": True},
    "spared": {"decay_on_norms": False},
    "decoupled": {"decoupled_decay": True},
    "all groups": {"decay_on_norms": False, "decoupled_decay": True, "classifier_lr": 0.3},
    "classifier": {"classifier_lr": 0.02},
    "clipped": {"clip_gradient": 0.5},
    "averaged": {"ema_decay": 0.6},
    "sam": {"sam": 0.3},
    "accumulated": {"accumulate": 2},
    "scaled": {"lr_batch_size": 16},
    "together": {"nesterov": True, "ema_decay": 0.9, "accumulate": 3, "clip_gradient": 1.0},
}


def with_options(config: TrainConfig, **options) -> TrainConfig:
    return dataclasses.replace(config, optimisation=OptimConfig(**options))


def made_training(config: TrainConfig, norms: bool = True) -> Training:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(config.network, 3).train()
        if not norms:
            network = without_norms(network)
    return Training(network, Optimizer(network, config), Objective(), 0, [], EpochState.empty(0, CPU.device))


def without_norms(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, nn.Identity() if isinstance(child, nn.BatchNorm2d) else without_norms(child))
    return module


def batches(n: int, size: int) -> list[Batch]:
    draws = torch.Generator().manual_seed(1)
    return [
        Batch(torch.randn(size, 3, 8, 8, generator=draws), torch.randint(3, (size,), generator=draws))
        for _ in range(n)
    ]


def by_hand(network: Network, batch: Batch, velocity: dict, options: OptimConfig) -> None:
    """One step of a network, with every rule written out."""
    network.zero_grad()
    cross_entropy(network(batch.images), batch.labels).backward()
    named = dict(network.named_parameters())
    if options.sam:
        other = deepcopy(network)
        norm = sum(weight.grad.double().square().sum() for weight in named.values()).sqrt()
        with torch.no_grad():
            for name, weight in other.named_parameters():
                weight += options.sam * named[name].grad / norm
        other.zero_grad()
        cross_entropy(other(batch.images), batch.labels).backward()
        named = {name: (weight, dict(other.named_parameters())[name].grad) for name, weight in named.items()}
    else:
        named = {name: (weight, weight.grad) for name, weight in named.items()}
    norm = sum(gradient.double().square().sum() for _, gradient in named.values()).sqrt()
    limit = options.clip_gradient
    for name, (weight, gradient) in named.items():
        gradient = gradient * (limit / norm).float() if limit and norm > limit else gradient
        rate = options.classifier_lr if options.classifier_lr and "classifier" in name else LR
        decay = 0 if options.decay_on_norms is False and weight.ndim == 1 else DECAY
        with torch.no_grad():
            if options.decoupled_decay:
                weight -= rate * decay * weight
            else:
                gradient = gradient + decay * weight
            velocity[name] = MOMENTUM * velocity.get(name, 0) + gradient
            weight -= rate * (gradient + MOMENTUM * velocity[name] if options.nesterov else velocity[name])


@pytest.mark.parametrize("name", [*list(OPTIONS)[:6], "sam"])
def test_steps_follow_the_rule(tiny, name):
    config = with_options(
        dataclasses.replace(tiny, lr=LR, weight_decay=DECAY, momentum=MOMENTUM), **OPTIONS[name]
    )
    training, plain = (
        made_training(config),
        made_training(dataclasses.replace(config, optimisation=OptimConfig())),
    )
    other, velocity = deepcopy(training.network), {}
    for batch in batches(3, 8):
        take_step(training, batch, LR, 0.0, CPU)
        take_step(plain, batch, LR, 0.0, CPU)
        by_hand(other, batch, velocity, config.optimisation)
    for key, tensor in other.state_dict().items():  # statistics of norms too: once for a batch
        torch.testing.assert_close(training.network.state_dict()[key], tensor, rtol=1e-4, atol=1e-5)
    assert not same_states(training.network, plain.network)


def test_both_passes_of_sam_drop_the_same(tiny):
    """The gradient uphill is that of the same network, and the draws afterwards are as without SAM."""
    config, after = dataclasses.replace(tiny, lr=LR, weight_decay=DECAY, momentum=MOMENTUM), []
    for sam, n_passes in ((0.3, 2), (0.0, 1)):
        training, seen = made_training(with_options(config, sam=sam)), []
        dropped = nn.Dropout(0.5)
        dropped.register_forward_hook(lambda _, args, out, seen=seen: seen.append((args[0] != 0, out != 0)))
        training.network.features = nn.Sequential(training.network.features, dropped)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            take_step(training, batches(1, 8)[0], LR, 0.0, CPU)
            after.append(torch.rand(3))
        assert len(seen) == n_passes
        (was_there, kept), (was_there_again, kept_again) = seen[0], seen[-1]
        both = was_there & was_there_again
        assert torch.equal(kept[both], kept_again[both])
        assert 0.2 < kept[both].float().mean() < 0.8
    assert torch.equal(*after)


def same_states(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.allclose(x, b.state_dict()[k], rtol=1e-3) for k, x in a.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"decoupled_decay": True}])
def test_weights_that_the_user_froze_do_not_decay(tiny, options):
    config = with_options(dataclasses.replace(tiny, lr=LR, weight_decay=DECAY), **options)
    training = made_training(config)
    for weight in training.network.features.parameters():
        weight.requires_grad_(False)
    before = deepcopy(training.network)
    take_step(training, batches(1, 8)[0], LR, 0.0, CPU)
    for weight, other in zip(training.network.parameters(), before.parameters(), strict=True):
        assert torch.equal(weight, other) == (not weight.requires_grad)


def test_batches_that_make_a_step_are_one_large_batch(tiny):
    """On a network without statistics of batches; the epoch's last step has fewer images."""
    (large,) = batches(1, 22)
    config = dataclasses.replace(tiny, lr=LR, weight_decay=DECAY)
    once = made_training(config, norms=False)
    parts = made_training(with_options(config, accumulate=3), norms=False)
    grouped = Accumulation(3, 4, 22)
    for start in (0, 12):
        stop = min(start + 12, 22)
        take_step(once, Batch(large.images[start:stop], large.labels[start:stop]), LR, 0.0, CPU)
    for i in range(6):
        of = slice(4 * i, min(4 * i + 4, 22))
        batch = Batch(large.images[of], large.labels[of])
        before = deepcopy(parts.network.state_dict())
        take_step(parts, batch, LR, 0.0, CPU, grouped.turn(i))
        moved = any(not torch.equal(t, before[k]) for k, t in parts.network.state_dict().items())
        assert moved == (i in (2, 5))
    for key, tensor in once.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[key], tensor, rtol=1e-4, atol=1e-6)
    assert parts.epoch_state.n_correct == once.epoch_state.n_correct


def test_shares_of_a_step_sum_to_1_whatever_is_left_over():
    for n_batches in (1, 2, 3, 7):
        for n_images in (1, 7, 8, 9, 33, 40):
            grouped = Accumulation(n_batches, 8, n_images)
            turns = [grouped.turn(i) for i in range(-(-n_images // 8))]
            steps = -(-len(turns) // n_batches)
            assert sum(turn.share for turn in turns) == pytest.approx(steps)
            assert [turn.last for turn in turns].count(True) == steps
            assert turns[0].first
            assert turns[-1].last
    assert Accumulation(2, 8, 34).turn(4) == Turn(1.0, True, True)
    assert [Accumulation(2, 8, 34).first_of(i) for i in range(5)] == [0, 0, 2, 2, 4]


def test_averaged_weights_are_the_average_of_the_steps(tiny):
    training = made_training(with_options(dataclasses.replace(tiny, weight_decay=DECAY), ema_decay=0.3))
    average = deepcopy(training.network.state_dict())
    for t, batch in enumerate(batches(5, 8), 1):
        take_step(training, batch, LR, 0.0, CPU)
        d = min(0.3, (1 + t) / (10 + t))
        for key, tensor in training.network.state_dict().items():
            average[key] = (
                d * average[key] + (1 - d) * tensor if tensor.is_floating_point() else tensor.clone()
            )
    for key, tensor in training.optimizer.kept_weights().items():
        torch.testing.assert_close(tensor, average[key])
    own = deepcopy(training.network.state_dict())
    with training.optimizer.evaluated():
        torch.testing.assert_close(training.network.state_dict(), average)
    assert all(torch.equal(t, own[k]) for k, t in training.network.state_dict().items())


def test_weights_are_averaged_as_the_loss_requires_them(tiny):
    training = made_training(with_options(dataclasses.replace(tiny, weight_decay=DECAY), ema_decay=0.9))
    followed = []

    class Held(Objective):
        def constrain(self) -> None:
            with torch.no_grad():
                training.network.classifier.weight.fill_(0.25)

    training.objective = Held()
    training.optimizer.average.follow = lambda network: followed.append(network.classifier.weight.clone())
    take_step(training, batches(1, 8)[0], LR, 0.0, CPU)
    assert [weight.unique().tolist() for weight in followed] == [[0.25]]


def test_averaged_weights_are_evaluated_and_kept(tiny, quiet, monkeypatch):
    seen, predict = [], extract.train.predict

    def recorded(network, *rest):
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return predict(network, *rest)

    monkeypatch.setattr(extract.train, "predict", recorded)
    trained = train(with_options(dataclasses.replace(tiny, eval_every=1), ema_decay=0.9), quiet)
    plain = train(dataclasses.replace(tiny, out=f"{tiny.out}-plain"), quiet)
    assert [row["loss"] for row in trained.history] == [row["loss"] for row in plain.history]
    assert not same_weights(trained, plain)
    assert len(seen) == 3 + 1
    assert all(torch.equal(tensor, trained.state[name]) for name, tensor in seen[2].items())
    assert saved(tiny).optimizer is None


@pytest.mark.parametrize("name", OPTIONS)
def test_an_interrupted_run_ends_in_the_same_bits(tiny, name, quiet):
    config = with_options(dataclasses.replace(tiny, epochs=2), **OPTIONS[name])
    whole = train(config, quiet)
    stopped = dataclasses.replace(config, out=f"{config.out}-stopped")
    train_interrupted(stopped, 3)
    train_interrupted(dataclasses.replace(stopped, resume=True), STEPS)
    trained = train(dataclasses.replace(stopped, resume=True), quiet)
    assert same_weights(whole, trained)
    assert timeless(whole.history) == timeless(trained.history)
    plain = train(dataclasses.replace(tiny, epochs=2, out=f"{config.out}-plain"), quiet)
    assert not same_weights(whole, plain)
    assert sorted(path.name for path in Path(stopped.out).iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "metrics.csv",
    ]


def test_the_default_keeps_the_optimiser_state_of_torch(tiny, quiet):
    train_interrupted(tiny, STEPS + 1)
    kept = saved(tiny).optimizer
    assert kept.keys() == {"state", "param_groups"}
    assert len(kept["param_groups"]) == 1
    assert not {"factor", "decoupled"} & kept["param_groups"][0].keys()
