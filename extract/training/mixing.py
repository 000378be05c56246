"""Mixed images: mixup (Zhang et al. 2018), CutMix (Yun et al. 2019), mixup of pooled features (Verma et al.
2019), and Remix's labels (Chou et al. 2020).

Every image of a batch gets a partner, and a share of its own; the published codes draw one share for a batch.
The loss is the share of the image's label and the rest of its partner's.
"""

import hashlib
from dataclasses import replace

import numpy as np
import torch

from extract.images.augmentation.config import AugmentConfig
from extract.inference.transfer import to_device
from extract.training.batch import Batch

KAPPA, TAU = 3.0, 0.5  # Remix: a class that has κ times the images, with a share below τ


class Mixing:
    """What is mixed in a training.

    Args:
        config: the options.
        class_counts: (K,) training images of each class, for Remix.
        seed: of the run.
    """

    def __init__(self, config: AugmentConfig, class_counts: np.ndarray, seed: int):
        self._config, self._counts, self._seed = config, np.asarray(class_counts, np.float64), seed

    def mixed(self, batch: Batch, epoch: int, step: int) -> Batch:
        """A batch with its images mixed, or with what `mixed_features` needs.

        Draws depend on the seed, the epoch and the step alone: neither on the device nor on what was drawn
        before, so a resumed training mixes as an uninterrupted one.

        Args:
            batch: not mixed.
            epoch, step: finished ones.
        """
        config = self._config
        if not config.mixes:
            return batch
        digest = hashlib.sha256(f"mixing {self._seed} {epoch} {step}".encode()).digest()
        generator = np.random.default_rng(np.frombuffer(digest, np.uint32))
        n_images, device = len(batch.labels), batch.images.device
        partner = to_device(torch.from_numpy(generator.permutation(n_images)), device)
        cuts = bool(config.cutmix) and not (config.mixup and generator.random() < 0.5)
        alpha = config.cutmix if cuts else config.mixup or config.mixup_features
        share = generator.beta(alpha, alpha, n_images)
        if cuts:
            height, width = batch.images.shape[2:]
            boxes = _boxes(share, height, width, generator)
            share = 1 - _area(boxes) / (height * width)
            images = _cut_in(batch.images, batch.images[partner], to_device(torch.from_numpy(boxes), device))
        else:
            images = batch.images
        of_labels = to_device(torch.from_numpy(share.astype(np.float32)), device)
        mixed = replace(batch, others=batch.labels[partner], share=of_labels)
        if config.mixup_features:
            mixed = replace(mixed, partner=partner, feature_share=of_labels)
        elif not cuts:
            images = images.lerp(images[partner], (1 - of_labels)[:, None, None, None])
        mixed = replace(mixed, images=images)
        return replace(mixed, share=self._remixed(mixed)) if config.remix else mixed

    def _remixed(self, batch: Batch) -> torch.Tensor:
        """(B,) shares of labels: a rare class that is mixed with a frequent one has all of it."""
        counts = to_device(torch.from_numpy(self._counts), batch.labels.device)
        own, other, share = counts[batch.labels], counts[batch.others], batch.share
        to_other = (own >= KAPPA * other) & (share < TAU)
        to_own = (KAPPA * own <= other) & (1 - share < TAU)
        return torch.where(to_other, 0.0, torch.where(to_own, 1.0, share))


def mixed_features(pooled: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, C) pooled features as the FC layer is to see them: mixed with their partners', if they have any."""
    if batch.partner is None:
        return pooled
    return pooled.lerp(pooled[batch.partner], (1 - batch.feature_share)[:, None])


def _boxes(share: np.ndarray, height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """(B, 4) int64 top, bottom, left and right of boxes around even centres, cut off at the borders.

    Args:
        share: (B,) of the area that is left to the image, before boxes are cut off.
        height, width: of images, in pixels.
        generator: draws the centres.
    """
    sides = []
    for length in (height, width):
        half = (length * np.sqrt(1 - share)).astype(np.int64) // 2
        centre = generator.integers(0, length, len(share))
        sides += [np.clip(centre - half, 0, length), np.clip(centre + half, 0, length)]
    return np.stack(sides, axis=1)


def _area(boxes: np.ndarray) -> np.ndarray:
    top, bottom, left, right = boxes.T
    return (bottom - top) * (right - left)


def _cut_in(images: torch.Tensor, others: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) with boxes (B, 4) of others."""
    top, bottom, left, right = boxes.T[:, :, None]
    rows, columns = (torch.arange(length, device=images.device) for length in images.shape[2:])
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return torch.where((in_rows[:, :, None] & in_columns[:, None, :])[:, None], others, images)
