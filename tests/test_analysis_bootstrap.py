"""Accuracies on resampled images."""

import numpy as np
import pytest

from analysis.bootstrap import resampled_accuracies


def made(counts: list[int], n_heads: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random, label = np.random.default_rng(0), np.repeat(np.arange(len(counts)), counts)
    order = random.permutation(len(label))
    return label[order], random.random((n_heads, len(label))) < 0.7


@pytest.mark.parametrize("by", ["balanced", "overall"])
def test_their_mean_and_spread_are_those_of_the_theory(by):
    """The variance of a class's mean is estimated without bias, over n − 1."""
    counts = [400, 150, 7]
    label, right = made(counts)
    found = resampled_accuracies(label, right, by, n_resamples=20_000)
    share = np.array([1 / 3] * 3 if by == "balanced" else counts) / (1 if by == "balanced" else sum(counts))
    of_class = np.stack([right[:, label == c].mean(axis=1) for c in range(3)])
    np.testing.assert_allclose(found.mean(axis=0), 100 * share @ of_class, atol=0.15)
    variance = (share[:, None] ** 2 * of_class * (1 - of_class) / (np.array(counts)[:, None] - 1)).sum(axis=0)
    np.testing.assert_allclose(found.std(axis=0), 100 * np.sqrt(variance), rtol=0.05)


def test_heads_are_paired():
    """The lag of a head that is right once less depends on that image alone."""
    label, right = made([50, 20, 5], n_heads=1)
    better = right.copy()
    image = np.flatnonzero(~right[0] & (label == 0))[0]
    better[0, image] = True
    found = resampled_accuracies(label, np.concatenate([right, better, right]), "balanced", n_resamples=9000)
    lag = found[:, 1] - found[:, 0]
    assert lag.mean() == pytest.approx(100 / 3 / 50, rel=0.05)
    assert lag.std() == pytest.approx(100 / 3 * np.sqrt(1 / 50 * 49 / 50 / 49), rel=0.05)
    np.testing.assert_array_equal(found[:, 0], found[:, 2])


def test_certain_heads_and_classes_of_one_image():
    label = np.array([3, 0, 3, 7])
    found = resampled_accuracies(label, np.array([[1, 1, 1, 1], [0, 0, 0, 1]]), "balanced", n_resamples=50)
    assert found[:, 0] == pytest.approx(100)
    assert found[:, 1] == pytest.approx(100 / 3)


def test_the_same_labels_and_seed_see_the_same_images():
    label, right = made([9, 4])
    one, two = (resampled_accuracies(label, part, "overall") for part in (right[:1], right))
    np.testing.assert_array_equal(one[:, 0], two[:, 0])
    assert not np.array_equal(one[:, 0], resampled_accuracies(label, right[:1], "overall", seed=1)[:, 0])


def test_shares_of_seeds_count_in_parts():
    label = np.zeros(4, int)
    found = resampled_accuracies(label, np.array([[0.5, 0.5, 0.5, 0.5]]), "overall", n_resamples=9)
    assert found == pytest.approx(50)
