"""Registry of losses: by name, with the options that each depends on.

A new loss is a function (see `finetune/heads/losses.py`) and a line in LOSSES.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.heads.losses import Loss, balanced_softmax, class_balanced, class_balanced_binary, focal
from store.options import registered


@dataclass(frozen=True)
class LossKind:
    """A loss in the registry.

    Attributes:
        make: makes the loss from the (K,) class distribution of the batches, the number of training samples
            and, as keywords, the values of its options.
        options: options that it depends on.
    """

    make: Callable[..., Loss]
    options: tuple[str, ...] = ()


def make_loss(config: Any, prior: np.ndarray, n_samples: int) -> Loss:
    """The loss of a run.

    Args:
        config: resolved options of the run.
        prior: (K,) class distribution of the batches.
        n_samples: N, training samples.

    Raises:
        UserError: there is no such loss.
    """
    kind = find_loss(config.loss)
    return kind.make(prior, n_samples, **{name: getattr(config, name) for name in kind.options})


def _class_balanced(prior: np.ndarray, n_samples: int, beta: float, weighted_mean: str) -> Loss:
    return class_balanced(prior, n_samples, beta, weighted_mean == "weights")


LOSSES = {
    "ce": LossKind(lambda prior, n_samples: Loss()),
    "balanced-softmax": LossKind(lambda prior, n_samples, tau: balanced_softmax(prior, tau), ("tau",)),
    "class-balanced": LossKind(_class_balanced, ("beta", "weighted_mean")),
    "class-balanced-bce": LossKind(class_balanced_binary, ("beta",)),
    "focal": LossKind(lambda prior, n_samples, focal_gamma: focal(focal_gamma), ("focal_gamma",)),
}


def find_loss(name: str) -> LossKind:
    """The loss with a name.

    Raises:
        UserError: there is no such loss.
    """
    return registered("--loss", LOSSES, name)
