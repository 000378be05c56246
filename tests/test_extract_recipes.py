"""Recipes: their values and rates, against formulas of their sources, and one step of each."""

import dataclasses
import itertools
import math
from typing import get_args, get_type_hints

import pytest
from bad_input import FOLDER, refuse
from made_training import STEPS, same_weights, saved, timeless, train_interrupted

from extract.config import TrainConfig
from extract.images.augmentation.config import AugmentConfig
from extract.train import train
from extract.training.interrupted.resume import resumed_config
from extract.training.optimisation.config import OptimConfig
from extract.training.optimisation.schedule import learning_rate
from extract.training.recipes import RECIPES, OfSide
from extract.training.recorded import recorded
from store.errors import UserError


def cosine_5(epochs: int):
    """Up over five epochs to 0.1, then down along half a cosine."""
    return lambda e: 0.1 * (e / 5 if e < 5 else math.cos(math.pi / 2 * (e - 5) / (epochs - 5)) ** 2)


RATES = {  # of an epoch, as the sources say it
    "short": (60, lambda e: [0.1, 0.01, 0.001][(e >= 30) + (e >= 45)]),
    "cosine": (200, cosine_5(200)),
    "cifar-lt": (300, lambda e: 0.1 / 10 ** (e // 150)),
    "imagenet-lt": (30, lambda e: 0.1 / 10 ** (e // 10)),
    "places-lt": (30, lambda e: 0.001 / 10 ** (e // 10)),
    "inaturalist": (100, lambda e: 0.1 / 10 ** (e // 30)),
    "strong": (100, cosine_5(100)),
    "strong-200": (200, cosine_5(200)),
}
VALUES = {  # batch size, weight decay, and options that are not at their defaults
    "short": (128, 2e-4, {}),
    "cosine": (128, 5e-4, {}),
    "cifar-lt": (128, 2e-4, {}),
    "imagenet-lt": (256, 5e-4, {}),
    "places-lt": (128, 5e-4, {"classifier_lr": 0.1}),
    "inaturalist": (128, 2e-4, {}),
    "strong": (128, 5e-4, {"augment": "autoaugment", "cutout": 16, "nesterov": True}),
    "strong-200": (128, 5e-4, {"augment": "autoaugment", "cutout": 16, "nesterov": True}),
}


def test_recipes_are_those_that_can_be_named():
    assert get_args(get_type_hints(TrainConfig)["recipe"]) == tuple(RECIPES) == tuple(RATES) == tuple(VALUES)


@pytest.mark.parametrize("name", RATES)
def test_the_rate_of_every_epoch_is_that_of_the_source(name):
    config, (epochs, rate) = TrainConfig(recipe=name, image_size=32).resolved(), RATES[name]
    assert config.epochs == epochs
    assert (config.momentum, config.sampler) == (0.9, "instance")
    for epoch in range(epochs):
        assert learning_rate(config, epoch) == pytest.approx(rate(epoch), rel=1e-9), epoch
    batch_size, decay, options = VALUES[name]
    assert (config.batch_size, config.weight_decay) == (batch_size, decay)
    assert recorded(dataclasses.asdict(config)) == options
    if config.optimisation.lr_batch_size is not None:
        doubled = TrainConfig(recipe=name, image_size=32, batch_size=2 * batch_size).resolved()
        assert recorded(dataclasses.asdict(doubled)) == options | {"lr_batch_size": batch_size}
        assert learning_rate(doubled, 10) == pytest.approx(2 * rate(10), rel=1e-9)


def test_every_option_of_a_recipe_is_one_of_a_nested_config():
    config = TrainConfig()
    nested = (config.objective, config.augmentation, config.optimisation)
    known = set(itertools.chain.from_iterable(vars(one) for one in nested))
    for recipe in RECIPES.values():
        assert recipe.options.keys() <= known


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_each_recipe_can_be_taken(tiny, name, quiet):
    config = dataclasses.replace(tiny, recipe=name, epochs=None, lr=None)
    train_interrupted(config, 2)
    kept = saved(config)
    assert kept.epoch == 0
    resolved = TrainConfig(recipe=name, batch_size=8).resolved()
    assert kept.config["epochs"] == RATES[name][0]
    assert kept.config["optimisation"] == dataclasses.asdict(resolved.optimisation)
    train_interrupted(dataclasses.replace(config, resume=True), 2)


@pytest.mark.parametrize(("side", "cutout"), [(8, 4), (32, 16), (224, 112)])
def test_the_square_that_strong_covers_goes_with_the_images(side, cutout):
    config = TrainConfig(recipe="strong", image_size=side).resolved()
    assert config.augmentation.cutout == cutout
    named = dataclasses.replace(config.augmentation, cutout=0)
    assert dataclasses.replace(config, augmentation=named).resolved().augmentation == named


@pytest.mark.parametrize("side", [math.nan, math.inf, 0])
def test_a_side_that_is_none_is_refused_before_the_recipe_computes_with_it(side):
    with pytest.raises(UserError, match=r"^--image-size .*: must be 8 or more"):
        TrainConfig(recipe="strong", image_size=side).resolved()


def test_an_architecture_that_knows_its_images_side_says_how_large_the_square_is(tiny, quiet):
    config = dataclasses.replace(tiny, recipe="strong", image_size=None)
    train_interrupted(config, 1)
    assert saved(config).config["image_size"] == 32  # of the network, not named
    assert saved(config).config["augmentation"]["cutout"] == 16
    train_interrupted(dataclasses.replace(config, resume=True), 1)


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_resumes_without_what_its_recipe_gained_since(tiny, tmp_path, quiet, monkeypatch, finished):
    whole = train(dataclasses.replace(tiny, out=str(tmp_path / "whole")), quiet)
    if finished:
        train(tiny, quiet)
    else:
        train_interrupted(tiny, STEPS + 2)
    gained = {"augment": "autoaugment", "cutout": OfSide(0.5), "nesterov": True, "mixup": 1.0}
    monkeypatch.setitem(RECIPES, tiny.recipe, dataclasses.replace(RECIPES[tiny.recipe], options=gained))
    config = resumed_config(tiny.out, {})
    resumed = train(config, quiet)
    assert same_weights(resumed, whole)
    assert timeless(resumed.history) == timeless(whole.history)
    assert recorded(dataclasses.asdict(config.resolved())) == recorded(whole.config) == {}


def test_a_run_with_a_recipe_of_another_version_is_told(tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(RECIPES, "gone", RECIPES["short"])
        train_interrupted(dataclasses.replace(tiny, recipe="gone"), STEPS + 2)
    with pytest.raises(UserError, match=r"checkpoint\.pt: --recipe gone: unknown; expected one of short, "):
        resumed_config(tiny.out, {})


def test_what_the_user_names_wins():
    def options(**changes) -> OptimConfig:
        config = TrainConfig(recipe="strong", **changes).resolved()
        assert config.resolved() == config  # as when it is resumed
        return config.optimisation

    assert options().nesterov is True
    assert options(optimisation=OptimConfig(nesterov=False)).nesterov is False
    assert options(lr=0.3).lr_batch_size is None
    assert options(lr=0.3, optimisation=OptimConfig(lr_batch_size=64)).lr_batch_size == 64
    assert options(batch_size=32).lr_batch_size == 128


@pytest.mark.parametrize(
    ("recipe", "changes", "rate"),
    [
        ("strong", {"batch_size": 64}, 0.05),
        ("strong", {"batch_size": 64, "lr": 0.1}, 0.1),
        ("imagenet-lt", {"batch_size": 64}, 0.025),
        ("short", {"batch_size": 64}, 0.1),
        ("short", {"batch_size": 64, "optimisation": OptimConfig(lr_batch_size=128)}, 0.05),
    ],
)
def test_a_recipe_scales_its_own_rate_alone(recipe, changes, rate):
    config = TrainConfig(recipe=recipe, warmup_epochs=0, **changes).resolved()
    assert learning_rate(config, 0) == pytest.approx(rate)


@pytest.mark.usefixtures("in_tmp_path")
def test_a_recipe_that_needs_momentum_is_refused_without(small_root):
    command = ["train", *FOLDER, "--root", small_root, "--device", "cpu", "--recipe", "strong"]
    refuse(*command, "--momentum", 0, says=["--nesterov: needs --momentum above 0"])


@pytest.mark.parametrize(
    ("same", "options"),
    [
        (True, {"optimisation": OptimConfig(nesterov=False, sam=0.0, ema_decay=0.0)}),
        (True, {"optimisation": OptimConfig(decay_on_norms=True, decoupled_decay=False)}),
        (True, {"optimisation": OptimConfig(classifier_lr=0.1, lr_batch_size=128)}),
        (True, {"augmentation": AugmentConfig(augment="none", cutout=0, erasing=0.0, jitter=0.0)}),
        (True, {"augmentation": AugmentConfig(mixup=0.0, cutmix=0.0, mixup_features=0.0, remix=False)}),
        (False, {"optimisation": OptimConfig(classifier_lr=0.2)}),
        (False, {"optimisation": OptimConfig(lr_batch_size=64)}),
        (False, {"optimisation": OptimConfig(lr_batch_size=128, accumulate=2)}),
        (False, {"augmentation": AugmentConfig(jitter=0.1)}),
    ],
)
def test_trainings_that_are_the_same_are_recorded_alike(same, options):
    """Whether an option was left out or named with what it is anyway: runs of both are seeds of one."""
    config = dataclasses.asdict(TrainConfig(**options).resolved())
    assert (recorded(config) == recorded(dataclasses.asdict(TrainConfig().resolved())) == {}) == same


def test_the_number_of_processes_is_recorded_where_there_were_several():
    config = dataclasses.asdict(TrainConfig().resolved())
    assert recorded(config, [{"epoch": 1}]) == recorded(config) == {}
    assert recorded(config, [{"processes": 2}] * 2) == {"processes": 2}
    assert recorded(config, [{"epoch": 1}, {"processes": 3}]) == {"processes": "1 and 3"}
