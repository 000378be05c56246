"""The loss of a batch in Phase I."""

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from extract.training.batch import Batch


@dataclass(frozen=True)
class Objective:
    """What Phase I minimises: the mean over a batch of the loss of each image."""

    def mean(self, logits: torch.Tensor, pooled: torch.Tensor, batch: Batch, progress: float) -> torch.Tensor:
        """The loss of a batch.

        Args:
            logits: (B, K) float32.
            pooled: (B, C) float32 pooled features.
            batch: the labels, two for each image where images were mixed.
            progress: finished epochs, with fractions, as a share of all.

        Returns:
            () float32.
        """
        if batch.others is None:
            return cross_entropy(logits, batch.labels)
        own = cross_entropy(logits, batch.labels, reduction="none")
        other = cross_entropy(logits, batch.others, reduction="none")
        return (batch.share * own + (1 - batch.share) * other).mean()
