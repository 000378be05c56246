"""Whether predictions say anything about labels, and whether they would under other names of the classes."""

import math

import numpy as np

SIGNIFICANT = 0.01  # probability with which chance alone does as well
SURE = 1e-3  # the same, of what another order gains
LEAST_GAIN = 0.02  # share of images


def is_at_chance(label: np.ndarray, predicted: np.ndarray) -> bool:
    """Whether predictions are right no more often than the same ones given to images at random.

    That covers guessing one class for all images. The chance of agreement is Cohen's (1960): the sum over
    classes of the share of labels times the share of predictions. The test is one-sided; few images of which
    most are right are not called chance, though they prove little.

    Args:
        label, predicted: (N,) classes, from 0 on; N is at least 1.
    """
    n, n_correct = len(label), int((label == predicted).sum())
    n_classes = 1 + int(max(label.max(), predicted.max()))
    of_label, of_predicted = (np.bincount(one, minlength=n_classes) / n for one in (label, predicted))
    by_chance = float(of_label @ of_predicted)
    if n_correct / n > (1 + by_chance) / 2:
        return False
    return binomial_tail(n_correct, n, by_chance) > SIGNIFICANT


def better_order(label: np.ndarray, predicted: np.ndarray, n_classes: int) -> tuple[float, np.ndarray] | None:
    """The order of classes under which predictions would be right much more often; None if there is none.

    It is found on every other image, by assigning classes to outputs one to one, and measured on the rest, so
    that it does not gain by chance.

    Args:
        label, predicted: (N,) classes, in the order of images, sorted by label or not.
        n_classes: K.

    Returns:
        The accuracy on the rest under that order, in %, and (K,) the class of each output.
    """
    from scipy.optimize import linear_sum_assignment

    confusion = np.zeros((n_classes, n_classes))  # outputs × classes
    np.add.at(confusion, (predicted[::2], label[::2]), 1)
    confusion[np.diag_indices(n_classes)] += 0.5  # of several best orders, one near the present
    class_of = linear_sum_assignment(confusion, maximize=True)[1]
    label, predicted = label[1::2], predicted[1::2]
    now, then = predicted == label, class_of[predicted] == label
    won, lost = int((then & ~now).sum()), int((now & ~then).sum())
    if won - lost <= LEAST_GAIN * len(label) or binomial_tail(won, won + lost, 0.5) > SURE:
        return None
    return 100 * float(then.mean()), class_of


def binomial_tail(least: int, n: int, p: float) -> float:
    """Probability of `least` or more successes in n trials, each with probability p."""
    if not 0 < p < 1:
        return float(p >= 1 or least <= 0)
    of_all = math.lgamma(n + 1)
    terms = (
        of_all - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(least, n + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))
