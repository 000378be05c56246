"""Folds of training rows: what belongs together stays together, and every class stays in training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.joined import joined
from extract.classifier.folds import TRAIN_ONLY, folds_of


@st.composite
def grouped(draw) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels in order, groups of any size that may hold several classes, and a number of folds."""
    counts = draw(st.lists(st.integers(1, 12), min_size=2, max_size=6))
    label = np.repeat(np.arange(len(counts)), counts)
    group = draw(st.lists(st.integers(0, 15), min_size=len(label), max_size=len(label)))
    return label, np.array(group), draw(st.integers(2, 7))


@given(grouped(), st.booleans())
def test_no_fold_takes_a_class_away_and_groups_stay_whole(case, shuffled):
    label, group, n_folds = case
    keys = np.random.default_rng(0).random(len(label)) if shuffled else None
    fold = folds_of(label, group, n_folds, keys)
    assert fold.min() >= TRAIN_ONLY
    assert fold.max() < n_folds
    for one in np.unique(group):
        assert len(np.unique(fold[group == one])) == 1
    for held in range(n_folds):
        assert set(label[fold != held]) == set(label)


@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), st.integers(2, 7), st.integers(0, 99))
def test_single_images_are_spread_evenly_and_all_are_held_out(counts, n_folds, seed):
    label = np.repeat(np.arange(len(counts)), counts)
    keys = np.random.default_rng(seed).random(len(label))
    fold = folds_of(label, np.arange(len(label)), n_folds, keys)
    assert (fold >= 0).all()
    for k in range(len(counts)):
        held = np.bincount(fold[label == k], minlength=n_folds)
        assert held.max() - held.min() <= 1
    again = folds_of(
        label, np.arange(len(label)), n_folds, np.random.default_rng(seed + 1).random(len(label))
    )
    assert len(label) < 12 or (fold != again).any()


def test_groups_of_unlike_size_still_make_folds_of_like_size():
    generator = np.random.default_rng(3)
    label = np.repeat(np.arange(3), [400, 90, 12])
    group = np.concatenate(
        [100 * k + np.sort(generator.integers(0, n, (label == k).sum())) for k, n in enumerate((30, 12, 4))]
    )
    fold = folds_of(label, group, 4, generator.random(len(label)))
    assert np.bincount(fold[label == 0], minlength=4).min() > 85
    assert np.bincount(fold[label == 1], minlength=4).min() > 12
    assert len(np.unique(fold[label == 2])) == 4


def test_a_class_of_one_group_is_never_held_out():
    label, group = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 2, 3])
    assert folds_of(label, group, 3).tolist()[:3] == [TRAIN_ONLY] * 3
    assert folds_of(label, group, 3)[5] == TRAIN_ONLY
    assert len({*folds_of(label, group, 3)[3:5].tolist()}) == 2


def test_rows_are_joined_by_anything_that_they_share_also_at_one_remove():
    image = np.array([0, 0, 1, 2, 3, 4])
    digest = np.array([[1, 0], [1, 0], [7, 7], [7, 7], [9, 0], [9, 1]], np.uint8)
    group = np.array([b"a", b"a", b"b", b"c", b"c", b"d"]).view(np.uint8).reshape(-1, 1)
    together = joined(image, digest, group)
    assert len(np.unique(together)) == 3
    assert together[0] == together[1]
    assert together[2] == together[3] == together[4]  # one digest, then one group
    assert len(np.unique(joined(image))) == 5


@pytest.mark.parametrize("n", [1, 2000])
def test_a_chain_of_any_length_is_one_part(n):
    left, right = np.arange(n) // 2, (np.arange(n) + 1) // 2
    assert len(np.unique(joined(left, right))) == 1


def test_as_many_folds_as_images_are_all_used():
    label = np.repeat(np.arange(3), 2)
    for n_folds in (4, 5, 6):
        assert set(folds_of(label, np.arange(6), n_folds)) == set(range(n_folds))


def test_small_classes_go_to_other_folds_with_other_keys():
    label = np.repeat(np.arange(20), 2)
    ways = {tuple(folds_of(label, np.arange(40), 5, np.random.default_rng(s).random(40))) for s in range(4)}
    assert len(ways) == 4
    sizes = [np.bincount(way) for way in ways]
    assert all(size.max() - size.min() <= 2 for size in sizes)
