"""Training rows in the order of their folds: all folds but one are two ranges of them, and need no copy."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from extract.classifier.logistic import fit
from extract.classifier.rows import FitRows


class FoldedRows:
    """Rows to fit on, fold by fold.

    Attributes:
        rows: all of them, those that are never held out first.
        order: (N,) their positions before they were put in order.
        ranges: start and stop of each fold among `rows`.
    """

    def __init__(
        self, pooled: np.ndarray, label: np.ndarray, fold: np.ndarray, n_classes: int, device: torch.device
    ):
        """Put the rows in order.

        Args:
            pooled: (N, C) features.
            label: (N,) classes.
            fold: (N,) of each row, as `folds_of` returns it.
            n_classes: K.
            device: to fit on.
        """
        self.order = np.argsort(fold, kind="stable")
        self.rows = FitRows(pooled[self.order], label[self.order], n_classes, device)
        starts = np.searchsorted(fold[self.order], np.arange(fold.max() + 2)).tolist()
        self.ranges = list(pairwise(starts))


def refit(
    folded: FoldedRows,
    weight_decay: float,
    tick: Callable[[float], None],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The FC layer of each fold, fitted to the rows of all others.

    Every fit begins from zeros: one that began from the fit of all rows would remember the held-out ones
    where it does not converge, as without weight decay.

    Args:
        folded: the rows.
        weight_decay: of every fit.
        tick: called with the gradient's norm at every step of every fit.

    Returns:
        Weight (K, C) and bias (K,) float32 for each fold.
    """
    layers = []
    for held in folded.ranges:
        fitted = fit(folded.rows.without(*held), weight_decay, tick=tick)
        layers.append(tuple(of.float().cpu().numpy() for of in (fitted.weight, fitted.bias)))
    return layers
