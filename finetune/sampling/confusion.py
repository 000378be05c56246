"""Confusing classes (paper, sec. 4.2): those that a class's samples are most likely to be mistaken for.

Scores are summed in float64, where rounding makes no two classes tie, so that a seed gives the same plan on
every processor. A K × K table would take half a gigabyte for the classes of iNaturalist, so classes are
processed in groups, each ranked at once, and nothing larger than a group's scores is kept.
"""

from itertools import pairwise

import numpy as np
import torch

from finetune.heads.threads import Threads

# Samples scored in one product: a few megabytes for thousands of classes.
ROWS_AT_ONCE = 256


class Scores:
    """Phase I's mean softmax scores of each class.

    Attributes:
        n_rows: (K,) training rows of each class.
    """

    def __init__(self, pooled: np.ndarray, weight: np.ndarray, bias: np.ndarray, label: np.ndarray):
        """Keep the inputs; nothing is computed yet.

        Args:
            pooled: (N, C) float32 pooled features.
            weight, bias: (K, C) and (K,) float32, Phase I's FC layer.
            label: (N,) int, ascending.
        """
        self._pooled = pooled
        self._weight = torch.from_numpy(weight.astype(np.float64)).T
        self._bias = torch.from_numpy(bias.astype(np.float64))
        self._bounds = np.searchsorted(label, np.arange(len(weight) + 1))
        self.n_rows = np.diff(self._bounds)

    def mean(self, classes: np.ndarray) -> np.ndarray:
        """Softmax scores averaged over each class's rows.

        Args:
            classes: (P,) class ids, each with at least one row.

        Returns:
            (P, K) float64: row = true class, column = the class scored.
        """
        rows = np.concatenate([np.arange(self._bounds[c], self._bounds[c + 1]) for c in classes])
        place = torch.from_numpy(np.repeat(np.arange(len(classes)), self.n_rows[classes]))
        sums = torch.zeros(len(classes), len(self.n_rows), dtype=torch.float64)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            features = torch.from_numpy(self._pooled[rows[start : start + ROWS_AT_ONCE]]).double()
            scores = torch.addmm(self._bias, features, self._weight).softmax(dim=1)
            sums.index_add_(0, place[start : start + ROWS_AT_ONCE], scores)
        return sums.numpy() / self.n_rows[classes, None]


def confusing_classes(
    scores: Scores,
    classes: np.ndarray,
    n_confusing: int,
    among: np.ndarray | None = None,
    threads: Threads | None = None,
) -> np.ndarray:
    """The `n_confusing` other classes with the highest mean score for each class, highest first.

    Args:
        scores: Phase I's scores.
        classes: (P,) class ids, each with at least one row.
        n_confusing: N_f, at most the number of other classes.
        among: candidates that come first; None for all classes. A class with fewer than N_f other candidates
            gets further classes after them.
        threads: threads to share the classes; they change no bit.

    Returns:
        (P, N_f) int64; on equal scores the lower class id comes first.
    """
    found = np.empty((len(classes), n_confusing), np.int64)
    behind = np.setdiff1d(np.arange(len(scores.n_rows)), among) if among is not None else []

    def rank(part: slice) -> None:
        of_part = scores.mean(classes[part])
        of_part[:, behind] -= 1  # scores are at most 1, so these come after all candidates
        for i, (own, of_class) in enumerate(zip(classes[part], of_part, strict=True), part.start):
            of_class[own] = -np.inf
            found[i] = _highest(of_class, n_confusing)

    (threads or Threads(1)).each(rank, _groups(scores.n_rows[classes]))
    return found


def _groups(n_rows: np.ndarray) -> list[slice]:
    """Runs of consecutive classes with about ROWS_AT_ONCE rows each, and at least one class."""
    group = (np.cumsum(n_rows) - n_rows) // ROWS_AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(n_rows)]
    return [slice(start, stop) for start, stop in pairwise(cuts) if start < stop]


def _highest(scores: np.ndarray, n: int) -> np.ndarray:
    """Indices of the n highest, highest first, ties in order of index; without sorting all."""
    least = np.partition(scores, -n)[-n]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:n]
