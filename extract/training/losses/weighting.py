"""Class weights (Cui et al. 2019), from the first epoch or from a later one (deferred, Cao et al. 2019)."""

import math
from typing import TYPE_CHECKING, Any

from extract.training.losses.kind import ClassWeights, Setting

if TYPE_CHECKING:
    from torch import Tensor


def class_weights(counts: "Tensor", beta: float) -> "Tensor":
    """(1 − β) / (1 − β^n), scaled to sum to K.

    Classes without images, whose weight is never used, get 0 and do not count.

    Args:
        counts: (K,) float64 images of each class, n.
        beta: β, from 0 (all weigh the same) to 1 (excluded: 1 / n).

    Returns:
        (K,) float32.
    """
    import torch

    present = counts > 0
    # expm1 and log1p: 1 − β^n loses all its digits where β is near 1 and n small.
    log_beta = math.log(beta) if beta else -math.inf
    weight = torch.where(present, (1 - beta) / -torch.expm1(counts * log_beta), 0)
    return (weight * (present.sum() / weight.sum())).float()


def deferred_weights(config: Any, setting: Setting) -> ClassWeights | None:
    """Class weights from --drw-epoch on; None without one."""
    if config.drw_epoch is None:
        return None
    return _weights(config, setting, config.drw_epoch / setting.epochs)


def always_weights(config: Any, setting: Setting) -> ClassWeights:
    """Class weights from the first step on."""
    return _weights(config, setting, 0.0)


def _weights(config: Any, setting: Setting, since: float) -> ClassWeights:
    by_weights = config.weighted_mean == "weights"
    return ClassWeights(class_weights(setting.delivered, config.beta), by_weights, since)
