"""What is changed of single images after they were cropped and mirrored, and in which order."""

from dataclasses import dataclass

import numpy as np
import torch

from extract.images.augmentation import jitter, policies
from extract.images.augmentation.boxes import (
    CUTOUT_DRAWS,
    ERASING_DRAWS,
    Colour,
    covered,
    erased,
    squares,
)

PARTS = (policies.N_DRAWS, jitter.N_DRAWS, CUTOUT_DRAWS, ERASING_DRAWS)
N_DRAWS = sum(PARTS)  # of every image, whatever is changed: so no option changes the draws of another


@dataclass(frozen=True)
class Changes:
    """What is changed; see AugmentConfig.

    Attributes:
        augment: "none", "autoaugment", "randaugment" or "trivialaugment".
        jitter: strength, 0 for none.
        cutout: side of the square in pixels, 0 for none.
        erasing: probability.
    """

    augment: str = "none"
    jitter: float = 0.0
    cutout: int = 0
    erasing: float = 0.0


NO_CHANGES = Changes()


def changed(images: torch.Tensor, changes: Changes, draws: np.ndarray, fill: Colour) -> torch.Tensor:
    """Images after all changes: a policy of operations, jitter, Cutout, random erasing.

    Args:
        images: uint8 (B, 3, H, W) on any device.
        changes: what is changed.
        draws: (B, N_DRAWS) float64 in [0, 1), on the CPU: an image depends on its row alone.
        fill: 8-bit colour of what is covered or left empty.
    """
    height, width = images.shape[2:]
    of_policy, of_jitter, of_cutout, of_erasing = np.split(draws, np.cumsum(PARTS)[:-1], axis=1)
    if changes.augment != "none":
        images = policies.augmented(images, changes.augment, of_policy, fill)
    if changes.jitter:
        images = jitter.jittered(images, changes.jitter, of_jitter)
    if changes.cutout:
        images = covered(images, squares(changes.cutout, of_cutout, height, width), fill)
    if changes.erasing:
        images = covered(images, erased(changes.erasing, of_erasing, height, width), fill)
    return images
