"""Distances between pooled features, and losses of them beside cross-entropy."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from extract.training.losses.cross_entropy import smoothed_cross_entropy
from extract.training.losses.kind import Loss

if TYPE_CHECKING:
    from torch import Tensor


def distances(vectors: "Tensor") -> "Tensor":
    """(B, B) Euclidean distances of (B, C) vectors; the gradient at 0 is 0.

    Centred first: torch takes those of many vectors from products, which lose digits far from the origin.
    """
    import torch

    centred = vectors - vectors.mean(dim=0).detach()
    return torch.cdist(centred, centred)


def beside_cross_entropy(loss: "Callable[[Tensor, Tensor, float], Tensor]", config: Any) -> Loss:
    """Cross-entropy + --metric-weight times a loss of (B, C) pooled features, (B,) labels and a margin."""
    weight, margin = config.metric_weight, config.metric_margin
    return replace(smoothed_cross_entropy(), beside=lambda x, y: weight * loss(x, y, margin))
