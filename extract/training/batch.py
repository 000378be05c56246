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
        partner: (B,) int64 positions of the images whose pooled features are mixed in; None where none are.
        feature_share: (B,) float32 weight of an image's own pooled features; None where none are mixed in.
    """

    images: torch.Tensor
    labels: torch.Tensor
    others: torch.Tensor | None = None
    share: torch.Tensor | None = None
    partner: torch.Tensor | None = None
    feature_share: torch.Tensor | None = None

    def n_correct(self, predicted: torch.Tensor) -> torch.Tensor:
        """() images whose class (B,) is predicted; a mixed image counts by the share of that label."""
        hits = (predicted == self.labels).float()
        if self.others is None:
            return hits.sum()
        return (self.share * hits + (1 - self.share) * (predicted == self.others)).sum()
