"""Samplers of Phase I: how often classes and images come, and that nothing but the seed matters."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import FOLDER, TINY, refuse
from made_training import same_weights, saved, timeless, train_interrupted
from PIL import Image
from scipy.stats import chisquare

import extract.train
from extract.device import Compute
from extract.images.batches import training_batches
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform
from extract.train import train
from extract.training.samplers import class_probabilities, drawn_order

COUNTS = np.array([500, 120, 37, 1])
LABEL = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS))
EXPECTED = {  # by hand, of 658 images
    ("class-balanced", 0.5): np.full(4, 0.25),
    ("square-root", 0.5): np.sqrt([500, 120, 37, 1]) / (500**0.5 + 120**0.5 + 37**0.5 + 1),
    ("progressive", 0.0): np.array([500, 120, 37, 1]) / 658,
    ("progressive", 0.25): 0.75 * np.array([500, 120, 37, 1]) / 658 + 0.25 / 4,
    ("instance", 0.5): np.array([500, 120, 37, 1]) / 658,
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("sampler", "share"), EXPECTED)
def test_classes_come_as_often_as_the_sampler_says(sampler, share):
    expected = EXPECTED[sampler, share]
    np.testing.assert_allclose(class_probabilities(sampler, COUNTS, share), expected, rtol=1e-12)
    drawn = [LABEL[drawn_order(sampler, LABEL, share, seeded(seed)).numpy()] for seed in range(20)]
    observed = np.bincount(np.concatenate(drawn), minlength=4)
    assert observed.sum() == 20 * 658
    assert chisquare(observed, expected * observed.sum()).pvalue > 1e-4
    others = [e for key, e in EXPECTED.items() if not np.allclose(e, expected)]
    assert all(chisquare(observed, e * observed.sum()).pvalue < 1e-9 for e in others)


def test_a_class_without_images_is_never_drawn():
    assert class_probabilities("class-balanced", np.array([3, 0, 1]), 0).tolist() == [0.5, 0, 0.5]


def test_no_image_comes_again_before_all_others_of_its_class():
    order = drawn_order("class-balanced", LABEL, 0, seeded(3)).numpy()
    for k, n in enumerate(COUNTS):
        of_class = order[LABEL[order] == k]
        assert len(of_class) > 100
        for start in range(0, len(of_class), n):
            round_ = of_class[start : start + n]
            assert len(set(round_.tolist())) == len(round_)
    firsts = [drawn_order("class-balanced", LABEL, 0, seeded(s)).numpy() for s in range(8)]
    assert len({tuple(o[LABEL[o] == 2][:37]) for o in firsts}) == 8  # each epoch another order


def test_an_image_that_comes_twice_is_cropped_anew_each_time(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (1, 90, 90, 3), np.uint8)
    Image.fromarray(pixels[0]).save(tmp_path / "0.png")
    split = ImageSet([tmp_path / "0.png"], np.zeros(1, np.int64), np.zeros(1, np.int64))
    compute = Compute(torch.device("cpu"), "fp32", 8, 0)
    drawn = torch.zeros(4, dtype=torch.int64)
    arguments = split, Transform(72), seeded(0), compute
    ((images, labels),) = training_batches(*arguments, drawn=drawn)
    assert labels.tolist() == [0, 0, 0, 0]
    assert not any(torch.equal(images[0], other) for other in images[1:])


@pytest.mark.parametrize("workers", [0, 2])
def test_drawn_images_are_the_same_with_workers_and_after_a_pause(tmp_path, workers):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 90, 90, 3), np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    split = ImageSet(paths, np.array([0, 0, 0, 0, 0, 1]), np.arange(6))

    def shown(n_workers: int, taken: int) -> list[torch.Tensor]:
        generator = seeded(5)
        drawn = drawn_order("class-balanced", split.label, 0, generator)
        assert len(set(drawn.tolist())) < 6
        compute = Compute(torch.device("cpu"), "fp32", 2, n_workers)
        epoch = training_batches(split, Transform(72), generator, compute, (taken, None), drawn)
        return [images.clone() for images, _ in epoch]

    whole, rest = shown(0, 0), shown(workers, 1)
    assert len(whole) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))


@pytest.mark.parametrize("sampler", ["class-balanced", "square-root", "progressive"])
def test_a_run_with_a_sampler_resumes_to_the_same_bits_and_says_how_often_images_came(
    tiny, sampler, quiet, monkeypatch
):
    config = dataclasses.replace(tiny, sampler=sampler)
    orders, make = [], extract.train.training_batches

    def recorded(split, transform, generator, compute, taken, drawn, *rest):
        orders.append((split.label, drawn))
        return make(split, transform, generator, compute, taken, drawn, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(extract.train, "training_batches", recorded)
        whole = train(config, quiet)
    for (label, order), row in zip(orders, whole.history, strict=True):
        assert len(order) == len(label) == 34
        times = Counter(order.tolist())
        assert (row["different_images"], row["most_repeated"]) == (len(times), max(times.values()))
    assert "different_images" in pd.read_csv(Path(config.out) / "metrics.csv")
    stopped = dataclasses.replace(config, out=f"{config.out}-stopped")
    train_interrupted(stopped, 8)
    resumed = train(dataclasses.replace(stopped, resume=True), quiet)
    assert same_weights(whole, resumed)
    assert timeless(whole.history) == timeless(resumed.history)
    assert saved(stopped).config["sampler"] == sampler


def test_progressive_begins_like_the_images_and_ends_near_balance(tiny, quiet, monkeypatch):
    shares, draw = [], extract.training.samplers.drawn_order

    def recorded(sampler, label, share, generator):
        shares.append(share)
        return draw(sampler, label, share, generator)

    monkeypatch.setattr("extract.training.samplers.drawn_order", recorded)
    train(dataclasses.replace(tiny, sampler="progressive"), quiet)
    assert shares == [0, 1 / 3, 2 / 3]


def test_the_default_shows_each_image_once_and_adds_nothing_to_the_metrics(tiny, quiet):
    default, named = (
        train(dataclasses.replace(tiny, out=f"{tiny.out}{i}", **options), quiet)
        for i, options in enumerate(({}, {"sampler": "instance"}))
    )
    assert same_weights(default, named)
    assert "different_images" not in default.history[0]


def test_an_unknown_sampler_is_refused(small_root):
    says = ["--sampler", "'sqrt' is not one of", "'square-root'", "--help"]
    refuse("train", *FOLDER, *TINY, "--root", small_root, "--sampler", "sqrt", says=says)
