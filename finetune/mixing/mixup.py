"""Mixup of pooled features: each new sample is a mean of two rows, and has both their labels.

Mixup is by Zhang et al. 2018; in front of the FC layer, see Zhang et al. 2021 ("Bag of Tricks"). Remix (Chou
et al. 2020) mixes features alike, and gives a rare class that is mixed with a frequent one all of the label.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from finetune.mixing.pooled import Partnered
from finetune.sampling.arrays import Array, picked
from finetune.sampling.philox import below
from finetune.sampling.plan import PlanInputs
from finetune.sampling.rows import RowSampling

if TYPE_CHECKING:  # the command line imports this for the methods' names and must not wait for torch
    import torch

STEPS = 4096  # equal parts of a Beta distribution between which shares are interpolated
KAPPA, TAU = 3, 0.5  # Remix: a class that has κ times the images of the other, with a share below τ


@dataclass(frozen=True)
class Blend(Partnered):
    """Samples that are each a weighted mean of a row and a partner, with both their labels; see `Partnered`.

    Attributes:
        share: (T, A) float64 weight of the row's features; the partner's is the rest.
        label_share: (T, A) float64 weight of the row's label; 1 where nothing is mixed.
    """

    share: Array
    label_share: Array

    def weight_of_partner(self, places: "torch.Tensor") -> "torch.Tensor":
        """(T, A, 1)."""
        import torch

        return (1 - torch.as_tensor(self.share, device=places.device)).float()[..., None]


def share_quantiles(alpha: float) -> np.ndarray:
    """(STEPS + 1,) float64: where Beta(α, α) is cut into equal parts."""
    from scipy.special import betaincinv  # not while the command line reads the methods' names

    lower = betaincinv(alpha, alpha, np.arange(STEPS // 2) / STEPS)
    lower = np.maximum.accumulate(lower)  # where they are as good as 0, scipy's are not in order
    return np.concatenate([lower, [0.5], 1 - lower[::-1]])  # as symmetrical as the distribution is


def mixed_up(
    inputs: PlanInputs, start: int, stop: int, row: Array, is_mixed: Array | None, batch: Array
) -> Blend:
    """Rows (T, A) mixed with partners from their own batches (T, B), each with a share from Beta(α, α)."""
    return _blend(inputs, start, stop, row, is_mixed, batch, _unrelated)


def remixed(
    inputs: PlanInputs, start: int, stop: int, row: Array, is_mixed: Array | None, batch: Array
) -> Blend:
    """The same features, with the labels of Remix."""
    return _blend(inputs, start, stop, row, is_mixed, batch, _by_frequency)


def _blend(
    inputs: PlanInputs,
    start: int,
    stop: int,
    row: Array,
    is_mixed: Array | None,
    batch: Array,
    relation: Callable[[Array, Array], Array],
) -> Blend:
    xp = array_namespace(row)
    place = below(inputs.draws.uniform("partner place", start, stop, row.shape[1]), batch.shape[1])
    partner = xp.take_along_axis(batch, place, axis=1)
    position = inputs.draws.uniform("mixup share", start, stop, row.shape[1]) * STEPS
    step = xp.astype(position, xp.int64)
    low, high = (picked(inputs.mixing.share_quantiles, cut) for cut in (step, step + 1))
    share = low + (position - xp.astype(step, xp.float64)) * (high - low)
    counts = inputs.row_counts
    of_label = _label_share(relation(counts[inputs.label[row]], counts[inputs.label[partner]]), share)
    if is_mixed is not None:
        of_label = xp.where(is_mixed, of_label, xp.ones_like(of_label))
    return Blend(row, is_mixed, partner, share, of_label)


ALIKE, FREQUENT, RARE = 0, 1, 2  # a class, beside its partner's


def _unrelated(own: Array, other: Array) -> Array:
    return array_namespace(own).zeros_like(own + other)


def _by_frequency(own: Array, other: Array) -> Array:
    """What a class is beside another, from the numbers of rows of both."""
    return FREQUENT * (own >= KAPPA * other) + RARE * (KAPPA * own <= other)


def _label_share(relation: Array, share: Array) -> Array:
    """The share of a row's label in that of a new sample, from its share of the features."""
    xp = array_namespace(share)
    gives_all, takes_all = (relation == FREQUENT) & (share < TAU), (relation == RARE) & (1 - share < TAU)
    return xp.where(gives_all, xp.zeros_like(share), xp.where(takes_all, xp.ones_like(share), share))


def prior_of_mixup(rows: RowSampling) -> Callable[[PlanInputs], np.ndarray]:
    """The class distribution of batches with mixed labels."""
    return partial(_mean_labels, rows, _unrelated)


def prior_of_remix(rows: RowSampling) -> Callable[[PlanInputs], np.ndarray]:
    """The same, with the labels of Remix."""
    return partial(_mean_labels, rows, _by_frequency)


def _mean_labels(
    rows: RowSampling, relation: Callable[[Array, Array], Array], inputs: PlanInputs
) -> np.ndarray:
    """(K,) mean share of each class in the labels of a batch.

    A partner is the row itself once in B times. In halves, all others of a row are one fewer of its own half.
    """
    prior, mixing, counts = rows.prior(inputs), inputs.mixing, inputs.row_counts
    middle = (mixing.share_quantiles[:-1] + mixing.share_quantiles[1:]) / 2  # each as likely as any other
    given = 1 - _label_share(np.arange(3)[:, None], np.tile(middle, (3, 1))).mean(axis=1)  # by relation
    mean, size = prior.copy(), inputs.batch_size
    for n_places, of_place in _places(rows, inputs, prior):
        replaced, partner = n_places / size * of_place * inputs.replaced, prior - of_place / size
        for c in np.flatnonzero(
            replaced
        ):  # not all pairs at once: of ten thousand classes they fill a memory
            to_each = replaced[c] * partner * given[relation(counts[c], counts)]
            mean += to_each
            mean[c] -= to_each.sum()
    return mean


def _places(rows: RowSampling, inputs: PlanInputs, prior: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """How many places at the end of a batch are alike, and the (K,) class distribution of their rows."""
    n_places = inputs.mixing.n_places(inputs.batch_size)
    if not rows.in_halves:
        return [(n_places, prior)]
    tail = inputs.is_tail
    return [(n_places // 2, 2 * prior * tail), (n_places - n_places // 2, 2 * prior * ~tail)]
