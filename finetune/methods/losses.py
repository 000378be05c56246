"""Registry of losses: by name, with the options that each depends on.

A new loss is a function (see `finetune/heads/losses.py`) and a line in LOSSES.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.heads.losses import (
    Loss,
    balanced_softmax,
    class_balanced,
    class_balanced_binary,
    focal,
    isda,
    re_weighted,
)
from store.options import registered


@dataclass(frozen=True)
class LossKind:
    """A loss in the registry.

    Attributes:
        make: makes the loss from the (K,) class distribution of the batches, the (K,) training images of each
            class and, as keywords, the values of its options.
        options: options that it depends on.
        of_variance: whether it also takes, as `variance`, the (K, C) variances of the classes' features. Such
            a loss needs an FC layer that is trained, and samples of one label.
    """

    make: Callable[..., Loss]
    options: tuple[str, ...] = ()
    of_variance: bool = False


def make_loss(
    config: Any,
    prior: np.ndarray,
    class_counts: np.ndarray,
    variance: Callable[[], np.ndarray] | None = None,
) -> Loss:
    """The loss of a run.

    Args:
        config: resolved options of the run.
        prior: (K,) class distribution of the batches.
        class_counts: (K,) training images of each class.
        variance: computes the variances of the classes' features, for losses that take them.

    Raises:
        UserError: there is no such loss.
    """
    kind = find_loss(config.loss)
    values = {name: getattr(config, name) for name in kind.options}
    if kind.of_variance:
        values["variance"] = variance()
    return kind.make(prior, class_counts, **values)


def _balanced_softmax(prior: np.ndarray, class_counts: np.ndarray, tau: float) -> Loss:
    return balanced_softmax(prior, tau)


def _class_balanced(prior: np.ndarray, class_counts: np.ndarray, beta: float, weighted_mean: str) -> Loss:
    return class_balanced(prior, int(class_counts.sum()), beta, weighted_mean == "weights")


def _class_balanced_binary(prior: np.ndarray, class_counts: np.ndarray, beta: float) -> Loss:
    return class_balanced_binary(prior, int(class_counts.sum()), beta)


def _focal(prior: np.ndarray, class_counts: np.ndarray, focal_gamma: float) -> Loss:
    return focal(focal_gamma)


def _label_aware_smoothing(
    prior: np.ndarray, class_counts: np.ndarray, smooth_head: float, smooth_tail: float
) -> Loss:
    """Of the training images, not of the batches: what large classes made overconfident is Phase I."""
    import torch  # not while the command line reads the names

    from extract.training.losses.label_aware_smoothing import smoothing

    return Loss(
        smoothing=smoothing(torch.from_numpy(class_counts).double(), smooth_head, smooth_tail).numpy()
    )


def _re_weighted(prior: np.ndarray, class_counts: np.ndarray, frequency_power: float) -> Loss:
    return re_weighted(prior, frequency_power)


def _isda(
    prior: np.ndarray, class_counts: np.ndarray, variance: np.ndarray, isda_strength: float, tau: float
) -> Loss:
    return isda(prior, variance, isda_strength, tau)


LOSSES = {
    "ce": LossKind(lambda prior, class_counts: Loss()),
    "balanced-softmax": LossKind(_balanced_softmax, ("tau",)),
    "class-balanced": LossKind(_class_balanced, ("beta", "weighted_mean")),
    "class-balanced-bce": LossKind(_class_balanced_binary, ("beta",)),
    "focal": LossKind(_focal, ("focal_gamma",)),
    "isda": LossKind(_isda, ("isda_strength", "tau"), of_variance=True),
    "label-aware-smoothing": LossKind(_label_aware_smoothing, ("smooth_head", "smooth_tail")),
    "re-weighted": LossKind(_re_weighted, ("frequency_power",)),
}


def find_loss(name: str) -> LossKind:
    """The loss with a name.

    Raises:
        UserError: there is no such loss.
    """
    return registered("--loss", LOSSES, name)
