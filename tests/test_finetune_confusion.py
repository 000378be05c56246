import tracemalloc

import numpy as np
import pytest

from finetune.heads.threads import Threads
from finetune.sampling.confusion import ROWS_AT_ONCE, Scores, confusing_classes

EVERY = np.arange(4)


def made(n_rows: list[int], n_channels: int = 5) -> tuple[np.ndarray, ...]:
    """Pooled features, weight, bias and labels, with so many samples per class."""
    rng = np.random.default_rng(0)
    label, n_classes = np.repeat(np.arange(len(n_rows)), n_rows), len(n_rows)
    pooled = rng.normal(size=(len(label), n_channels)).astype(np.float32)
    weight = rng.normal(size=(n_classes, n_channels)).astype(np.float32)
    return pooled, weight, rng.normal(size=n_classes).astype(np.float32), label


def of_matrix(scores: np.ndarray) -> Scores:
    """One sample per class, whose softmax scores are a row of the matrix."""
    n = len(scores)
    weight = np.log(scores / scores.sum(1, keepdims=True)).T.astype(np.float32)
    return Scores(np.eye(n, dtype=np.float32), weight, np.zeros(n, np.float32), np.arange(n))


def expected_mean(pooled: np.ndarray, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> np.ndarray:
    logits = pooled[rows].astype(np.float64) @ weight.T + bias
    return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).mean(0)


@pytest.mark.parametrize("n_rows", [[2, 1, 3], [1, ROWS_AT_ONCE + 7, 3, 2 * ROWS_AT_ONCE, 1]])
def test_scores_are_the_mean_softmax_of_each_true_class(n_rows):
    pooled, weight, bias, label = made(n_rows)
    classes = np.arange(len(n_rows))[::2]  # not all, and not adjacent ones
    scores = Scores(pooled, weight, bias, label).mean(classes)
    for row, class_id in zip(scores, classes, strict=True):
        np.testing.assert_allclose(row, expected_mean(pooled, weight, bias, label == class_id), rtol=1e-9)


def test_confusing_classes_read_rows_not_columns():
    scores = np.array(
        [[0.5, 0.1, 0.4, 0.01], [0.3, 0.6, 0.01, 0.1], [0.2, 0.1, 0.4, 0.3], [0.9, 0.1, 0.02, 0.01]]
    )
    assert confusing_classes(of_matrix(scores), EVERY, 2).tolist() == [[2, 1], [0, 3], [3, 0], [0, 1]]
    # the transposed matrix gives another result, so the test can distinguish them
    assert confusing_classes(of_matrix(scores.T), EVERY, 2).tolist() != [[2, 1], [0, 3], [3, 0], [0, 1]]


def test_own_class_never_confuses_itself():
    chosen = confusing_classes(of_matrix(np.eye(5) + 0.01), np.arange(5), 4)
    assert all(sorted([*row, class_id]) == [0, 1, 2, 3, 4] for class_id, row in enumerate(chosen))


def test_of_equal_scores_the_lower_class_comes_first():
    alike = of_matrix(np.full((6, 6), 0.1))
    assert confusing_classes(alike, np.array([4, 0]), 3).tolist() == [[0, 1, 2], [1, 2, 3]]


def test_others_come_behind_all_that_count():
    scores = np.array([[0.1, 0.2, 0.3, 0.4]] * 4)
    found = confusing_classes(of_matrix(scores), EVERY, 2, among=np.array([0, 1]))
    assert found.tolist() == [[1, 3], [0, 3], [1, 0], [1, 0]]


def test_classes_groups_and_threads_change_nothing():
    """One class alone, with others, and on another thread: the same ranking, and so the same plan."""
    pooled, weight, bias, label = made([3, ROWS_AT_ONCE, 1, 50, 300, 2] * 6, n_channels=33)
    scores, every = Scores(pooled, weight, bias, label), np.arange(36)
    together = confusing_classes(scores, every, 5)
    threads = Threads(3)
    assert np.array_equal(together, confusing_classes(scores, every, 5, threads=threads))
    threads.close()
    for c in every[::5]:
        assert np.array_equal(together[c], confusing_classes(scores, every[c : c + 1], 5)[0])
        ranked = np.argsort(-expected_mean(pooled, weight, bias, label == c), kind="stable")
        assert together[c].tolist() == [k for k in ranked if k != c][:5]


def test_memory_does_not_grow_with_the_square_of_the_classes():
    def peak(n_classes: int) -> int:
        scores = Scores(*made([2] * n_classes, n_channels=2))
        tracemalloc.start()
        confusing_classes(scores, np.arange(n_classes), 3)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(4000) < 3 * peak(2000)
