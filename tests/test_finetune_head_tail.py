from dataclasses import replace

import numpy as np
import pytest

from extract.sources.longtail import long_tail_counts
from finetune.config import FinetuneConfig
from finetune.sampling.head_tail import split_head_tail
from finetune.training.inputs import split_classes
from store.errors import UserError

CIFAR10 = {10: (7, 9), 20: (7, 8), 50: (6, 7), 100: (5, 6), 200: (4, 5)}
CIFAR100 = {10: 72, 20: 64, 50: 54, 100: 48, 200: 42}


@pytest.mark.parametrize(("imbalance", "expected"), CIFAR10.items())
def test_cifar10_head_classes(imbalance, expected):
    counts = np.array(long_tail_counts(5000, 10, imbalance))
    assert tuple(len(split_head_tail(counts, ratio).head) for ratio in (0.9, 0.95)) == expected


@pytest.mark.parametrize(("imbalance", "expected"), CIFAR100.items())
def test_cifar100_head_classes(imbalance, expected):
    counts = np.array(long_tail_counts(500, 100, imbalance))
    split = split_head_tail(counts, 0.9)
    assert len(split.head) == expected
    assert split.tail.tolist() == list(range(expected, 100))


def test_classes_are_taken_by_size_and_ties_by_index():
    split = split_head_tail(np.array([10, 500, 10, 480]), 0.9)
    assert split.head.tolist() == [1, 3]
    assert split.tail.tolist() == [0, 2]


def test_a_ratio_met_exactly_is_enough():
    # 9 of 10 samples are exactly 0.9, although 0.9 · 10 may round to something else than 9
    assert len(split_head_tail(np.array([9, 1]), 0.9).head) == 1
    assert len(split_head_tail(np.array([27, 2, 1]), 0.9).head) == 1


def test_classes_alike_in_size_leave_no_tail():
    split = split_head_tail(np.array([50, 50]), 0.9)
    assert (split.head.tolist(), split.tail.tolist()) == ([0, 1], [])


def test_a_tail_class_without_rows_is_refused():
    """Drawing a row of it would silently return another class's."""
    config = FinetuneConfig("s.zarr", method="fsa").resolved(4)
    with pytest.raises(UserError, match="1 tail classes have no training rows"):
        split_classes(config, np.array([90, 5, 0, 5]))
    split_classes(replace(config, method="plain"), np.array([90, 5, 0, 5]))
