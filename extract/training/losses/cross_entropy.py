"""Cross-entropy, with label smoothing (Szegedy et al. 2016) if asked for.

Smoothing by e: (1 − e) · −log p_y + e · the mean over all K classes of −log p_k.
"""

from functools import partial
from typing import Any

from extract.training.losses.kind import ClassWeights, Loss, LossKind, Setting
from extract.training.losses.weighting import deferred_weights


def make_cross_entropy(config: Any, setting: Setting) -> Loss:
    """Cross-entropy of a resolved config."""
    return smoothed_cross_entropy(config.label_smoothing, deferred_weights(config, setting))


def smoothed_cross_entropy(label_smoothing: float = 0.0, weights: ClassWeights | None = None) -> Loss:
    """Cross-entropy; without smoothing and weights, torch's to the bit."""
    from torch.nn.functional import cross_entropy

    smoothed = partial(cross_entropy, label_smoothing=label_smoothing)
    return Loss(partial(smoothed, reduction="none"), smoothed, weights=weights)


KIND = LossKind(make_cross_entropy, {"label_smoothing": 0.0, "drw_epoch": None})
