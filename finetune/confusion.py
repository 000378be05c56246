"""Confusing classes (paper, sec. 4.2): those that a class's samples are most readily taken for."""

from itertools import pairwise

import numpy as np
import torch


def mean_scores(pooled: np.ndarray, weight: np.ndarray, bias: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Softmax scores of Phase I, averaged over each true class's samples.

    Args:
        pooled: (N, C) float32 pooled features.
        weight, bias: (K, C) and (K,), Phase I's FC layer.
        label: (N,) int, ascending, every class present.

    Returns:
        (K, K) float64: row = true class, column = the class scored.
    """
    scores = np.empty((len(weight), len(weight)))
    bounds = np.searchsorted(label, np.arange(len(weight) + 1))
    for class_id, (start, stop) in enumerate(pairwise(bounds)):
        logits = pooled[start:stop].astype(np.float64) @ weight.T.astype(np.float64) + bias
        scores[class_id] = torch.softmax(torch.from_numpy(logits), dim=1).mean(dim=0).numpy()
    return scores


def confusing_classes(scores: np.ndarray, n_confusing: int, among: np.ndarray | None = None) -> np.ndarray:
    """The `n_confusing` other classes with the highest mean score for each class, highest first.

    Args:
        scores: (K, K), row = true class.
        n_confusing: N_f, at most the number of others.
        among: classes that count; all without it. A class that has too few others of them gets further ones.

    Returns:
        (K, N_f) int64.
    """
    others = scores.copy()
    if among is not None:
        others[:, np.setdiff1d(np.arange(len(scores)), among)] -= 1  # scores are at most 1: behind all others
    np.fill_diagonal(others, -np.inf)
    return np.argsort(-others, axis=1, kind="stable")[:, :n_confusing]
