"""Losses for long-tailed data, with gradients written out.

All but binary cross-entropy are a row coefficient times cross-entropy of shifted logits, so that heads with
different losses train together. π is the class distribution of the batches, not of the data set: with
re-balanced batches, the data set's would correct twice.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Loss:
    """What a loss adds to cross-entropy.

    Attributes:
        shift: (K,) float32 added to the logits in training; None for no shift.
        class_weight: (K,) float32 weight of a row by its label; None for 1.
        divide_by_weights: divide by the sum of a batch's weights, as PyTorch's weighted cross-entropy does,
            instead of its size, as Cui et al. do.
        focal_gamma: exponent of the factor (1 − p) on the loss of a row, p the probability of its label;
            0 for no factor.
        against_rest: binary cross-entropy of every class's probability instead of cross-entropy.
        smoothing: (K,) float32 share of a label that is spread evenly over all classes, by the label's class;
            None for none. Not together with focal_gamma or against_rest.
        variance: (K, C) float32 variances of the classes' features, for ISDA; None for no ISDA.
        strength: λ of ISDA, which the variances are multiplied by at the end of the training.
    """

    shift: np.ndarray | None = None
    class_weight: np.ndarray | None = None
    divide_by_weights: bool = False
    focal_gamma: float = 0.0
    against_rest: bool = False
    smoothing: np.ndarray | None = None
    variance: np.ndarray | None = None
    strength: float = 0.0


def balanced_softmax(prior: np.ndarray, tau: float) -> Loss:
    """Cross-entropy of z + τ · log π: balanced softmax (Ren et al. 2020), the logit-adjusted loss at τ.

    A class that is never drawn takes no part in training, unless τ is 0.
    """
    shift = np.full(len(prior), -np.inf if tau else 0.0)
    drawn = prior > 0
    shift[drawn] = tau * np.log(prior[drawn])
    return Loss(shift=shift.astype(np.float32))


def class_balanced(prior: np.ndarray, n_samples: int, beta: float, divide_by_weights: bool) -> Loss:
    """Class weights (1 − β) / (1 − β^n), scaled to sum to K (Cui et al. 2019); n = N · π samples a class.

    Classes that are never drawn, whose weight is never used, get 0 and do not count.
    """
    drawn = prior > 0
    weight = np.zeros(len(prior))
    weight[drawn] = (1 - beta) / (1 - beta ** (n_samples * prior[drawn]))
    weight *= drawn.sum() / weight.sum()
    return Loss(class_weight=weight.astype(np.float32), divide_by_weights=divide_by_weights)


def re_weighted(prior: np.ndarray, power: float) -> Loss:
    """Class weights π^−ρ, scaled to sum to K (Zhang et al. 2021), divided by the batch's sum of weights.

    Classes that are never drawn get 0 and do not count.
    """
    drawn = prior > 0
    weight = np.zeros(len(prior))
    weight[drawn] = (prior[drawn] / prior.max()) ** -power  # by the largest, lest small numbers overflow
    weight *= drawn.sum() / weight.sum()
    return Loss(class_weight=weight.astype(np.float32), divide_by_weights=True)


def focal(gamma: float) -> Loss:
    """(1 − p)^γ · cross-entropy, with p the softmax probability of the label (Lin et al. 2017)."""
    return Loss(focal_gamma=gamma)


def isda(prior: np.ndarray, variance: np.ndarray, strength: float, tau: float) -> Loss:
    """Balanced softmax over all shifts of a row within its class's variance at once; see `isda.py`."""
    return replace(balanced_softmax(prior, tau), variance=variance.astype(np.float32), strength=strength)


def class_balanced_binary(prior: np.ndarray, n_samples: int, beta: float) -> Loss:
    """Binary cross-entropy on softmax outputs with the same weights, as in the code of weight balancing.

    Averaged over the K terms of each row too, as in PyTorch.
    """
    weighted = class_balanced(prior, n_samples, beta, divide_by_weights=False)
    return Loss(class_weight=weighted.class_weight / np.float32(len(prior)), against_rest=True)
