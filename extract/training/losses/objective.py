"""The loss of a batch in Phase I."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from extract.config import TrainConfig
from extract.training.batch import Batch
from extract.training.losses.config import LossConfig
from extract.training.losses.cross_entropy import smoothed_cross_entropy
from extract.training.losses.kind import ClassWeights, Loss, Setting
from extract.training.losses.registry import find_loss
from extract.training.samplers import class_probabilities


@dataclass(frozen=True)
class Objective:
    """What Phase I minimises: the mean over a batch of the loss of each image, and what is added to it."""

    loss: Loss = field(default_factory=smoothed_cross_entropy)

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """What the network sees of a batch: (B, 3, H, W), or versions of them one after the other."""
        return images if self.loss.images is None else self.loss.images(images)

    def mean(self, logits: torch.Tensor, pooled: torch.Tensor, batch: Batch, progress: float) -> torch.Tensor:
        """The loss of a batch.

        Args:
            logits: (B, K) float32, or those of all versions that `images` made.
            pooled: (B, C) float32 pooled features, likewise.
            batch: the labels, two for each image where images were mixed.
            progress: finished epochs, with fractions, as a share of all.

        Returns:
            () float32.
        """
        outputs = logits if self.loss.outputs is None else self.loss.outputs(logits, pooled)
        weights = self.loss.weights
        if weights is not None and progress >= weights.since:
            mean = self._weighted_mean(outputs, batch, weights)
        else:
            mean = self._plain_mean(outputs, batch)
        return mean if self.loss.beside is None else mean + self.loss.beside(pooled, batch.labels)

    def _plain_mean(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        if batch.others is None and self.loss.mean is not None:
            return self.loss.mean(outputs, batch.labels)
        own = self.loss.terms(outputs, batch.labels)
        if batch.others is None:
            return own.mean()
        return (batch.share * own + (1 - batch.share) * self.loss.terms(outputs, batch.others)).mean()

    def _weighted_mean(self, outputs: torch.Tensor, batch: Batch, weights: ClassWeights) -> torch.Tensor:
        weight = weights.weight[batch.labels]
        terms = weight * self.loss.terms(outputs, batch.labels)
        if batch.others is not None:
            other = weights.weight[batch.others]
            terms = batch.share * terms + (1 - batch.share) * other * self.loss.terms(outputs, batch.others)
            weight = batch.share * weight + (1 - batch.share) * other
        return terms.sum() / weight.sum() if weights.by_weights else terms.mean()

    def constrain(self) -> None:
        """Hold the FC layer to what the loss requires; before the first step, and after each one."""
        if self.loss.constrain is not None:
            self.loss.constrain()


def make_objective(
    config: LossConfig, images: np.ndarray, delivered: np.ndarray, epochs: int, classifier: nn.Linear
) -> Objective:
    """What a training minimises.

    Args:
        config: resolved.
        images: (K,) training images of each class.
        delivered: (K,) images of each class in an epoch as the sampler delivers them, of any scale that sums
            to those of an epoch; the same as `images` where every image is taken once.
        epochs: of the training.
        classifier: the network's FC layer, on its device.
    """
    counts = (
        torch.as_tensor(c, dtype=torch.float64, device=classifier.weight.device) for c in (images, delivered)
    )
    return Objective(find_loss(config.loss).make(config, Setting(*counts, epochs, classifier)))


def objective_of_epoch(
    config: TrainConfig, class_counts: np.ndarray, epoch: int, classifier: nn.Linear
) -> Objective:
    """What an epoch minimises; the classes that its sampler delivers may differ from epoch to epoch.

    Args:
        config: resolved.
        class_counts: (K,) training images of each class.
        epoch: finished ones.
        classifier: the network's FC layer, on its device.
    """
    share = class_probabilities(config.sampler, class_counts, epoch / config.epochs)
    delivered = share * class_counts.sum()
    return make_objective(config.objective, class_counts, delivered, config.epochs, classifier)
