"""Whether predictions say anything about labels."""

import math

import numpy as np

SIGNIFICANT = 0.01  # probability with which chance alone does as well


def is_at_chance(label: np.ndarray, predicted: np.ndarray) -> bool:
    """Whether predictions are right no more often than the same ones given to images at random.

    That covers guessing one class for all images. The chance of agreement is Cohen's (1960): the sum over
    classes of the share of labels times the share of predictions. The test is exact and one-sided; few images
    of which most are right are not called chance, though they prove little.

    Args:
        label, predicted: (N,) classes, from 0 on; N is at least 1.
    """
    n, n_correct = len(label), int((label == predicted).sum())
    shares = [
        np.bincount(classes, minlength=1 + max(label.max(), predicted.max())) / n
        for classes in (label, predicted)
    ]
    by_chance = float(shares[0] @ shares[1])
    if n_correct / n > (1 + by_chance) / 2:
        return False
    return binomial_tail(n_correct, n, by_chance) > SIGNIFICANT


def binomial_tail(least: int, n: int, p: float) -> float:
    """Probability of `least` or more successes in n trials, each with probability p."""
    if not 0 < p < 1:
        return float(p >= 1 or least <= 0)
    logarithm = math.lgamma(n + 1)
    terms = (
        logarithm - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(least, n + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))
