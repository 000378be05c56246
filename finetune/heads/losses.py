"""Losses whose gradient is written out, with a correction for the long tail.

Every one but binary cross-entropy is a row coefficient times cross-entropy of shifted logits, so that heads
with different losses take their steps together. π is the class distribution of what is drawn, not of the
data: with a re-balanced batch, the data's would correct twice.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Loss:
    """What a loss adds to cross-entropy.

    Attributes:
        shift: (K,) float32 added to the logits in training; None for nothing.
        class_weight: (K,) float32, of a row by its label; None for 1.
        divide_by_weights: divide by the sum of a batch's weights, as PyTorch's weighted cross-entropy does,
            and not by its size, as Cui et al. did.
        focal_gamma: exponent of (1 − p) before the loss of a row whose label has probability p; 0 for none.
        against_rest: binary cross-entropy of every class's probability, in place of cross-entropy.
    """

    shift: np.ndarray | None = None
    class_weight: np.ndarray | None = None
    divide_by_weights: bool = False
    focal_gamma: float = 0.0
    against_rest: bool = False


def balanced_softmax(prior: np.ndarray, tau: float) -> Loss:
    """Cross-entropy of z + τ · log π: balanced softmax (Ren et al. 2020), the logit-adjusted loss at τ."""
    return Loss(shift=(tau * np.log(prior)).astype(np.float32))


def class_balanced(prior: np.ndarray, n_samples: int, beta: float, divide_by_weights: bool) -> Loss:
    """Weights (1 − β) / (1 − β^n), scaled to sum to K (Cui et al. 2019); a class has n = N · π samples."""
    weight = (1 - beta) / (1 - beta ** (n_samples * prior))
    weight *= len(prior) / weight.sum()
    return Loss(class_weight=weight.astype(np.float32), divide_by_weights=divide_by_weights)


def focal(gamma: float) -> Loss:
    """(1 − p)^γ · cross-entropy, p the softmax probability of the label (Lin et al. 2017)."""
    return Loss(focal_gamma=gamma)


def class_balanced_binary(prior: np.ndarray, n_samples: int, beta: float) -> Loss:
    """Binary cross-entropy on softmax outputs with the same weights, as weight balancing's code takes it.

    Its mean is over the K terms of every row as well, as PyTorch's is.
    """
    weighted = class_balanced(prior, n_samples, beta, divide_by_weights=False)
    return Loss(class_weight=weighted.class_weight / np.float32(len(prior)), against_rest=True)
