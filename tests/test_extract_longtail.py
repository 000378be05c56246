"""Long-tailed subsets: the published counts, and the published choice of images."""

import numpy as np
import pytest

from extract.sources.longtail import long_tail_counts, split_source

CIFAR10 = {
    10: (20431, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
    20: (17023, [5000, 3584, 2569, 1842, 1320, 946, 678, 486, 348, 250]),
    50: (13996, [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]),
    100: (12406, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
    200: (11203, [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25]),
}
CIFAR100 = {10: (19573, 50), 20: (15907, 25), 50: (12608, 10), 100: (10847, 5), 200: (9502, 2)}


def shuffled_labels(*per_class: int) -> np.ndarray:
    """Shuffled labels of a source with these class sizes."""
    return np.random.default_rng(1).permutation(np.repeat(np.arange(len(per_class)), per_class))


@pytest.mark.parametrize("factor", CIFAR10)
def test_cifar10_counts_are_the_published_ones(factor):
    total, per_class = CIFAR10[factor]
    assert long_tail_counts(5000, 10, factor) == per_class
    assert sum(per_class) == total
    label = shuffled_labels(*[5000] * 10)
    train, val = split_source(label, 10, factor, val_per_class=0)
    assert np.bincount(label[train]).tolist() == per_class
    assert len(val) == 0


@pytest.mark.parametrize("factor", CIFAR100)
def test_cifar100_counts_are_the_published_ones(factor):
    counts = long_tail_counts(500, 100, factor)
    assert (sum(counts), counts[-1]) == CIFAR100[factor]
    assert counts[0] == 500
    assert counts == sorted(counts, reverse=True)


def test_a_factor_of_one_is_balanced():
    assert long_tail_counts(7, 3, 1) == [7, 7, 7]


def test_the_subset_holds_ldam_drw_s_images():
    label = shuffled_labels(*[60] * 6)
    counts = long_tail_counts(60, 6, 20)
    rng = np.random.RandomState(0)
    expected = []
    for class_id, count in enumerate(counts):
        candidates = np.where(label == class_id)[0]
        rng.shuffle(candidates)
        expected.extend(candidates[:count])
    train, _ = split_source(label, 6, 20, val_per_class=0)
    assert train.tolist() == expected


def test_validation_comes_from_the_leftovers_and_leaves_training_alone():
    label = shuffled_labels(*[60] * 6)
    without, _ = split_source(label, 6, 20, val_per_class=0)
    n_c = np.bincount(label[without])
    for val_per_class in (1, 10):
        train, val = split_source(label, 6, 20, val_per_class)
        for class_id in range(6):
            chosen = train[label[train] == class_id].tolist()
            full = without[label[without] == class_id].tolist()
            short_of = max(0, val_per_class - (60 - n_c[class_id]))
            # Only as many training images are given up as leftovers are lacking, and from the end.
            assert chosen == full[: len(full) - short_of]
            assert short_of == (val_per_class if class_id == 0 else 0)
        assert np.bincount(label[val]).tolist() == [val_per_class] * 6
        assert not set(train) & set(val)
        assert len(set(val)) == len(val)


def test_leftovers_are_used_up_before_training_images():
    label = shuffled_labels(10, 13)  # class 1 keeps 10 of 13: three leftovers
    train, val = split_source(label, 2, 1, val_per_class=5)
    assert np.bincount(label[train]).tolist() == [5, 8]
    assert np.bincount(label[val]).tolist() == [5, 5]
    assert sorted([*train, *val]) == list(range(23))


def test_the_profile_starts_from_the_smallest_class_of_an_uneven_source():
    label = shuffled_labels(80, 40, 77)  # up to twice the smallest is balanced
    train, _ = split_source(label, 3, 4, val_per_class=0)
    assert np.bincount(label[train]).tolist() == [40, 20, 10]


@pytest.mark.parametrize(
    ("per_class", "kept"),
    [
        ((81, 40, 77), [40, 10, 20]),
        ((40, 77, 81, 300), [5, 10, 20, 40]),
        ((90, 300, 300, 90, 90), [22, 90, 45, 11, 5]),  # of equal classes, the first comes first
    ],
)
def test_the_largest_class_of_a_long_tail_stays_the_largest(per_class, kept):
    label, factor = shuffled_labels(*per_class), {3: 4, 4: 8, 5: 16}[len(per_class)]
    train, val = split_source(label, len(per_class), factor, val_per_class=0)
    assert np.bincount(label[train]).tolist() == kept
    train, val = split_source(label, len(per_class), factor, val_per_class=3)
    spared = [max(0, 3 - (n - k)) for n, k in zip(per_class, kept, strict=True)]  # if there are no leftovers
    assert np.bincount(label[train]).tolist() == [k - s for k, s in zip(kept, spared, strict=True)]
    assert np.bincount(label[val]).tolist() == [3] * len(per_class)
    assert not set(train) & set(val)


def test_an_order_that_was_written_down_holds_whatever_the_sizes_are():
    label = shuffled_labels(90, 300, 200)
    for order, kept in (("class index", [90, 45, 22]), ("frequency", [22, 90, 45])):
        train, _ = split_source(label, 3, 4, val_per_class=0, order=order)
        assert np.bincount(label[train]).tolist() == kept


def test_without_a_factor_every_image_stays():
    label = shuffled_labels(5, 9, 7)
    train, val = split_source(label, 3, None, val_per_class=0)
    assert sorted(train) == list(range(21))
    train, val = split_source(label, 3, None, val_per_class=2)
    assert np.bincount(label[train]).tolist() == [3, 7, 5]
    assert sorted([*train, *val]) == list(range(21))


def test_training_images_come_in_order_of_class():
    label = shuffled_labels(*[30] * 4)
    train, val = split_source(label, 4, 3, val_per_class=2)
    assert (np.diff(label[train]) >= 0).all()
    assert (np.diff(label[val]) >= 0).all()


def test_another_subset_seed_keeps_as_many_other_images():
    label = shuffled_labels(*[60] * 6)
    published, first, second = (split_source(label, 6, 20, 0, subset_seed=seed)[0] for seed in (0, 1, 2))
    assert (published == split_source(label, 6, 20, 0)[0]).all()
    for train in (first, second):
        assert (np.bincount(label[train]) == np.bincount(label[published])).all()
        assert len(set(train)) == len(train)
    kept = [set(train[label[train] > 0]) for train in (published, first, second)]  # class 0 is whole in each
    assert kept[0] != kept[1] != kept[2] != kept[0]
    assert set(first[label[first] == 0]) == set(published[label[published] == 0])


def test_subsets_of_one_seed_are_nested_and_validation_is_never_trained_on():
    label = shuffled_labels(*[60] * 6)
    for seed in (0, 3):
        larger, smaller = (set(split_source(label, 6, im, 0, subset_seed=seed)[0]) for im in (5, 20))
        assert smaller < larger
        train, val = split_source(label, 6, 20, 8, subset_seed=seed)
        assert not set(train) & set(val)
        assert np.bincount(label[val]).tolist() == [8] * 6
