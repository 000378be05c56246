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


@pytest.mark.parametrize("by", ["balanced", "overall"])
def test_copies_tell_no_more_than_one_image(by):
    """Three copies of every image that are drawn together are as good as the images."""
    label, right = made([30, 12, 2])
    copies = np.tile(np.arange(len(label)), 3)
    of_images = resampled_accuracies(label, right, by)
    of_copies = resampled_accuracies(label[copies], right[:, copies], by, together=7 * copies)
    np.testing.assert_allclose(of_copies, of_images)
    alone = resampled_accuracies(label[copies], right[:, copies], by)
    assert (alone.std(axis=0) < 0.65 * of_images.std(axis=0)).all()  # as if there were three times as many


def test_images_alone_are_parts_of_one():
    label, right = made([9, 4])
    each = np.random.default_rng(1).permutation(len(label))
    order = np.lexsort((each, label))  # parts are drawn in the order of their numbers
    apart = resampled_accuracies(label[order], right[:, order], "balanced", together=np.arange(len(label)))
    np.testing.assert_array_equal(apart, resampled_accuracies(label[order], right[:, order], "balanced"))


def test_the_spread_of_groups_is_that_of_their_means():
    """Of groups of unlike sizes: the variance of a ratio, from what each group adds to it."""
    random = np.random.default_rng(2)
    sizes = random.integers(1, 9, size=300)
    group = np.repeat(np.arange(300), sizes)
    right = (random.random(len(group)) < random.random(300)[group])[None]
    found = resampled_accuracies(np.zeros(len(group), int), right, "balanced", 9000, together=group)
    added = np.bincount(group, right[0] - right[0].mean())
    expected = 100 * np.sqrt((added**2).sum() * 300 / 299) / len(group)
    assert found.std() == pytest.approx(expected, rel=0.05)
    assert found.mean() == pytest.approx(100 * right.mean(), abs=0.2)


def test_a_single_group_counts_as_none():
    label = np.array([0, 0, 0, 1, 1])
    right = np.array([[1, 0, 1, 1, 0]])
    found = resampled_accuracies(label, right, "balanced", together=np.array([4, 4, 4, 1, 2]))
    assert set(np.round(found[:, 0], 6)) <= set(
        np.round(100 * (2 / 3 + np.array([0.5 - 0.5**0.5, 0.5, 0.5 + 0.5**0.5])) / 2, 6)
    )


def drawn_whole(label: np.ndarray, right: np.ndarray, group: np.ndarray, n: int) -> np.ndarray:
    """(n,) balanced accuracies of one head on groups that are drawn as a whole; all classes must be there."""
    random, ids, found = np.random.default_rng(3), np.unique(group), []
    for _ in range(n):
        times = np.bincount(random.choice(ids, len(ids)), minlength=len(ids))[group]
        found.append(np.mean([np.average(right[label == c], weights=times[label == c]) for c in range(4)]))
    return 100 * np.array(found)


def test_groups_are_drawn_whole_in_all_their_classes():
    """Patients with images of every class: who is easy is easy in all, which does not average out."""
    random = np.random.default_rng(4)
    group, label = np.repeat(np.arange(40), 12), np.tile(np.arange(4), 120)
    right = (random.random(480) < random.random(40)[group]).astype(float)
    found = resampled_accuracies(label, right[None], "balanced", 4000, together=group)
    expected = drawn_whole(label, right, group, 4000)
    assert found.std() == pytest.approx(expected.std() * np.sqrt(40 / 39), rel=0.05)
    assert found.mean() == pytest.approx(expected.mean(), abs=0.5)
    apart = resampled_accuracies(label, right[None], "balanced", 4000, together=4 * group + label)
    assert apart.std() < 0.7 * found.std()


def test_a_class_that_a_resample_misses_keeps_its_accuracy():
    """Class 1 has one part, which is of class 0 too, and is not drawn by a third of the resamples."""
    label = np.array([0, 0, 0, 0, 1, 1])
    right, together = np.array([[1, 0, 1, 0, 1, 0.5]]), np.array([5, 6, 7, 8, 8, 8])
    found = resampled_accuracies(label, right, "balanced", 500, together=together)
    assert np.isfinite(found).all()
    of_class_0 = 2 * found[:, 0] - 75
    assert of_class_0.std() > 5
    assert of_class_0.mean() == pytest.approx(50, abs=5)
