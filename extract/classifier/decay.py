"""How strongly a fitted classifier is regularised: weight decays, scored on rows that the fit did not see.

The score is log-loss rather than accuracy: accuracy on the few images of rare classes ties and jumps, and
log-loss notices how sure a mistake is. Where the validation split has other class shares than the training
rows (it is often balanced), the shares are exchanged first, p(class) · share there / share here, as is exact
for a classifier whose probabilities are right; else strong decay would win for flattening probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from extract.classifier.logistic import fit
from extract.classifier.rows import FitRows

START = range(-5, 1)  # powers of ten that are always scored
ENDS = (-10, 4)  # as far as the search goes while the end is best
N_FOLDS = 5
SCORING_TOLERANCE = 1e-5  # of the gradient: far below the differences between scores
ALIKE = (
    1e-3  # log-losses closer than this are alike; where classes can be told apart, weights grow for nothing
)


@dataclass(frozen=True)
class Score:
    """Of one weight decay on rows not fitted: log-loss with shares exchanged, accuracy (0 to 1) without."""

    weight_decay: float
    log_loss: float
    accuracy: float


@dataclass(frozen=True)
class HeldOut:
    """Rows to fit, and rows to score on.

    Attributes:
        rows: to fit.
        pooled, label: (M, C) and (M,), to score on.
        exchange: (K,) logarithm of each class's share there over its share here; zeros if they are alike.
    """

    rows: FitRows
    pooled: torch.Tensor
    label: torch.Tensor
    exchange: torch.Tensor


def choose_decay(parts: list[HeldOut], tick: Callable[[float], None]) -> tuple[list[Score], Score]:
    """Score weight decays: powers of ten, further ones while the end is best, then halves of powers.

    Args:
        parts: one with the validation split, or one for each fold.
        tick: called with the gradient's norm at every step of every fit.

    Returns:
        All scores, and the one that is chosen: that of the largest decay among those with nearly the lowest
        log-loss.
    """
    search = _Search(parts, tick)
    for power in reversed(START):
        search.score(power)
    for end, further in ((min, -1), (max, 1)):
        while search.best == end(search.scores) and ENDS[0] < search.best < ENDS[1]:
            search.score(search.best + further)
    for power in (search.best + 0.5, search.best - 0.5):
        search.score(power)
    return [search.scores[power] for power in sorted(search.scores)], search.scores[search.best]


class _Search:
    """Scores by power of ten; a fit starts from that of the nearest decay."""

    def __init__(self, parts: list[HeldOut], tick: Callable[[float], None]):
        self._parts, self._tick = parts, tick
        self._fits: dict[float, list[torch.Tensor]] = {}
        self.scores: dict[float, Score] = {}

    @property
    def best(self) -> float:
        """The largest power with a log-loss like the lowest."""
        lowest = min(score.log_loss for score in self.scores.values())
        return max(power for power, score in self.scores.items() if score.log_loss <= lowest + ALIKE)

    def score(self, power: float) -> None:
        """Fit and score one decay, averaged over all rows that are scored."""
        decay = float(f"{10.0**power:.3g}")
        near = min(self._fits, key=lambda other: abs(other - power), default=None)
        starts = [None] * len(self._parts) if near is None else self._fits[near]
        n_rows, loss, n_right, fits = 0, 0.0, 0, []
        for part, start in zip(self._parts, starts, strict=True):
            fitted = fit(part.rows, decay, start, SCORING_TOLERANCE, self._tick)
            logits = part.pooled.double() @ fitted.weight.T + fitted.bias
            exchanged = torch.nn.functional.cross_entropy(logits + part.exchange, part.label, reduction="sum")
            loss += float(exchanged)
            n_right += int((logits.argmax(1) == part.label).sum())
            n_rows += len(part.label)
            fits.append(fitted.theta)
        self._fits[power] = fits
        self.scores[power] = Score(decay, loss / n_rows, n_right / n_rows)


def against_val(train: FitRows, train_label: np.ndarray, val: tuple[np.ndarray, np.ndarray]) -> list[HeldOut]:
    """The training rows, to be scored on the pooled features and labels of the validation split."""
    pooled, label = val
    counts = [np.bincount(of, minlength=train.n_classes) for of in (train_label, label)]
    here, there = (np.maximum(n, 1) / n.sum() for n in counts)
    return [_held_out(train, pooled, label, np.log(there / here))]


def by_folds(
    pooled: np.ndarray, label: np.ndarray, view: np.ndarray, n_classes: int, device: torch.device
) -> list[HeldOut]:
    """The training rows in stratified folds, each to be scored by a fit of the others.

    All views of an image are in one fold, and view 0 is scored. A class's images go to the folds in turn;
    a class with one image is never held out, since no other row would show it.

    Args:
        pooled: (N, C) features.
        label, view: (N,), sorted by class, then image, then view.
        n_classes: K.
        device: to fit on.
    """
    fold = folds_of(label, view)
    parts = []
    for i in range(N_FOLDS):
        kept, held = fold != i, (fold == i) & (view == 0)
        if held.any():
            rows = FitRows(pooled[kept], label[kept], n_classes, device)
            parts.append(_held_out(rows, pooled[held], label[held], np.zeros(n_classes)))
    return parts


def folds_of(label: np.ndarray, view: np.ndarray) -> np.ndarray:
    """(N,) fold of each row, −1 for rows of a class with one image; rows are sorted as in a store."""
    image = np.cumsum(view == 0) - 1
    of_image = label[view == 0]
    first = np.searchsorted(of_image, of_image)  # of the image's class
    fold = (np.arange(len(of_image)) - first + of_image) % N_FOLDS  # a class starts where the last did not
    alone = np.bincount(of_image)[of_image] == 1
    return np.where(alone, -1, fold)[image]


def _held_out(rows: FitRows, pooled: np.ndarray, label: np.ndarray, exchange: np.ndarray) -> HeldOut:
    on_device = (torch.from_numpy(np.array(of)).to(rows.device) for of in (pooled, label, exchange))
    features, classes, shares = on_device
    return HeldOut(rows, features, classes.long(), shares.double())
