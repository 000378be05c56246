"""Class-balanced loss (Cui et al. 2019): cross-entropy, or the focal loss, weighted by (1 − β) / (1 − β^n).

n are images as the sampler delivers them, so that re-balanced batches are not balanced twice.
"""

from dataclasses import replace
from typing import Any

from extract.training.losses.cross_entropy import smoothed_cross_entropy
from extract.training.losses.focal import focal_terms
from extract.training.losses.kind import Loss, LossKind, Setting
from extract.training.losses.weighting import always_weights


def make_class_balanced(config: Any, setting: Setting) -> Loss:
    """The class-balanced loss of a resolved config."""
    gamma = config.focal_gamma
    plain = Loss(lambda z, y: focal_terms(z, y, gamma)) if gamma else smoothed_cross_entropy()
    return replace(plain, weights=always_weights(config, setting))


KIND = LossKind(make_class_balanced, {"beta": 0.9999, "weighted_mean": "batch", "focal_gamma": 0.0})
