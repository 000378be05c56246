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

from extract.classifier.folded import FoldedRows
from extract.classifier.logistic import fit
from extract.classifier.rows import FitRows

START = range(-5, 1)  # powers of ten to begin with, from the largest down
ENDS = (-10, 4)  # as far as the search goes while the end is best
SCORING_TOLERANCE = 1e-4  # of the gradient: moves log-losses by a fiftieth of ALIKE
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
        turned, label: (M, C + 1) and (M,), to score on; the features as `rows` turns them.
        exchange: (K,) logarithm of each class's share there over its share here; zeros if they are alike.
    """

    rows: FitRows
    turned: torch.Tensor
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
        if search.is_past(power):  # weaker decays take longest to fit
            break
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

    def is_past(self, power: float) -> bool:
        """Whether this power and the one above it are both worse than the best so far."""
        lowest = min(score.log_loss for score in self.scores.values())
        last = (self.scores[of].log_loss for of in (power, power + 1) if of in self.scores)
        return len(self.scores) > 2 and all(loss > lowest + ALIKE for loss in last)

    def score(self, power: float) -> None:
        """Fit and score one decay, averaged over all rows that are scored."""
        decay = float(f"{10.0**power:.3g}")
        near = min(self._fits, key=lambda other: abs(other - power), default=None)
        starts = [None] * len(self._parts) if near is None else self._fits[near]
        n_rows, loss, n_right, fits = 0, 0.0, 0, []
        for part, start in zip(self._parts, starts, strict=True):
            fitted = fit(part.rows, decay, start, SCORING_TOLERANCE, self._tick)
            logits = part.turned.double() @ fitted.theta.T
            exchanged = torch.nn.functional.cross_entropy(logits + part.exchange, part.label, reduction="sum")
            loss += float(exchanged)
            n_right += int((logits.argmax(1) == part.label).sum())
            n_rows += len(part.label)
            fits.append(fitted.theta)
        self._fits[power] = fits
        self.scores[power] = Score(decay, loss / n_rows, n_right / n_rows)


def against_val(train: FitRows, train_label: np.ndarray, val: tuple[np.ndarray, np.ndarray]) -> list[HeldOut]:
    """The training rows, to be scored on the pooled features and labels of the validation split."""
    pooled, label = (torch.from_numpy(np.array(of)).to(train.device) for of in val)
    counts = [np.bincount(of, minlength=train.n_classes) for of in (train_label, val[1])]
    here, there = (np.maximum(n, 1) / n.sum() for n in counts)
    exchange = torch.from_numpy(np.log(there / here)).to(train.device)
    return [HeldOut(train, train.turned(pooled), label.long(), exchange)]


def by_folds(folded: FoldedRows, view: np.ndarray) -> list[HeldOut]:
    """The training rows in folds, each to be scored by a fit of the others; of an image's views, view 0.

    Args:
        folded: the rows.
        view: (N,) of each row, before they were put in the order of folds.
    """
    rows, parts = folded.rows, []
    scored = torch.from_numpy(view[folded.order] == 0).to(rows.device)
    alike = torch.zeros(rows.n_classes, dtype=torch.float64, device=rows.device)
    for start, stop in folded.ranges:
        turned, label = (of[scored[start:stop]] for of in rows.rows(start, stop))
        if len(label):
            parts.append(HeldOut(rows.without(start, stop), turned, label, alike))
    return parts
