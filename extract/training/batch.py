"""A batch of Phase I."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """Images as the network sees them, and their labels.

    Attributes:
        images: (B, 3, H, W) float32, normalised and augmented.
        labels: (B,) int64.
        others: (B,) int64 labels of the images that were mixed in; None where none were.
        share: (B,) float32 weight of `labels`, the rest is that of `others`; None where none were mixed in.
    """

    images: torch.Tensor
    labels: torch.Tensor
    others: torch.Tensor | None = None
    share: torch.Tensor | None = None
