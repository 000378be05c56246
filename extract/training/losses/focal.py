"""Focal loss (Lin et al. 2017) in its softmax form: (1 − p_y)^γ · −log p_y.

The original is binary, on a sigmoid per class, for detection; baselines for long tails use this form.
"""

from typing import TYPE_CHECKING, Any

from extract.training.losses.kind import Loss, LossKind, Setting
from extract.training.losses.weighting import deferred_weights

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-12  # of 1 − p: its power has an infinite slope at 0 if γ < 1


def focal_terms(logits: "Tensor", labels: "Tensor", gamma: float) -> "Tensor":
    """The (B,) focal losses of (B, K) logits."""
    from torch.nn.functional import cross_entropy

    own = cross_entropy(logits, labels, reduction="none")
    return (-(-own).expm1()).clamp_min(SMALLEST) ** gamma * own


def make_focal(config: Any, setting: Setting) -> Loss:
    """The focal loss of a resolved config."""
    gamma = config.focal_gamma
    return Loss(lambda z, y: focal_terms(z, y, gamma), weights=deferred_weights(config, setting))


KIND = LossKind(make_focal, {"focal_gamma": 1.0, "drw_epoch": None})
