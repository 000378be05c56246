"""AutoAugment (Cubuk et al. 2019), RandAugment (Cubuk et al. 2020), TrivialAugment (Müller and Hutter 2021).

torchvision's classes draw once for a whole batch. Here every image has draws of its own; images that drew the
same operation and magnitude go through torchvision's operation together.
"""

from collections import defaultdict
from functools import lru_cache

import numpy as np
import torch
from torchvision.transforms import AutoAugmentPolicy, v2

from extract.images.preparation import IN_MEMORY_SIZE
from extract.inference.transfer import to_device

PLACES = 2  # operations that an image goes through, at most
N_DRAWS = 1 + 3 * PLACES  # of the policy, then for each place: operation, magnitude, sign
LEVELS_OF_AUTOAUGMENT = 10  # as torchvision has it; the other classes know their own
MAGNITUDE_OF_RANDAUGMENT = v2.RandAugment().magnitude  # 9 of 31
Operation = tuple[str, float]  # torchvision's name and magnitude
Colour = tuple[int, ...]


def augmented(images: torch.Tensor, augment: str, draws: np.ndarray, fill: Colour) -> torch.Tensor:
    """Images after the operations that each of them drew.

    Args:
        images: uint8 (B, 3, H, W) on any device.
        augment: "autoaugment", "randaugment" or "trivialaugment".
        draws: (B, N_DRAWS) float64 in [0, 1), on the CPU.
        fill: 8-bit colour of what shears, shifts and rotations leave empty.

    Returns:
        uint8 (B, 3, H, W), new.
    """
    images, (height, width) = images.clone(), images.shape[2:]
    drawn = [operations(augment, of_image, height, width) for of_image in draws.tolist()]
    for place in range(PLACES):
        rows: dict[Operation, list[int]] = defaultdict(list)
        for row, of_image in enumerate(drawn):
            if of_image[place] is not None:
                rows[of_image[place]].append(row)
        for operation, alike in rows.items():
            index = to_device(torch.tensor(alike), images.device)
            images[index] = operated(images[index], operation, fill)
    return images


def operations(augment: str, draws: list[float], height: int, width: int) -> list[Operation | None]:
    """What an image of this size goes through, None where nothing happens.

    Args:
        augment: as for `augmented`.
        draws: N_DRAWS numbers in [0, 1).
        height, width: of the image, in pixels; above 64, AutoAugment's policy is ImageNet's, else CIFAR-10's.
    """
    found: list[Operation | None] = [None] * PLACES
    policies = _autoaugment(max(height, width) > IN_MEMORY_SIZE)._policies
    policy = policies[int(draws[0] * len(policies))]
    for place in range(1 if augment == "trivialaugment" else PLACES):
        which, level, sign = draws[1 + 3 * place : 4 + 3 * place]
        magnitudes = _magnitudes(augment, height, width)
        if augment == "autoaugment":
            name, probability, number = policy[place]
            if which >= probability:
                continue
        else:
            name = list(magnitudes)[int(which * len(magnitudes))]
        values, signed = magnitudes[name]
        if augment == "randaugment":
            number = MAGNITUDE_OF_RANDAUGMENT
        elif augment == "trivialaugment":
            number = None if values is None else int(level * len(values))
        magnitude = 0.0 if values is None else values[number]
        found[place] = (name, -magnitude if signed and sign < 0.5 else magnitude)
    return found


def operated(images: torch.Tensor, operation: Operation, fill: Colour) -> torch.Tensor:
    """Images (B, 3, H, W) after one of torchvision's operations, which treats each by itself."""
    name, magnitude = operation
    of_torchvision = _autoaugment(False, fill)
    nearest = v2.InterpolationMode.NEAREST
    filled = of_torchvision._fill
    return of_torchvision._apply_image_or_video_transform(images, name, magnitude, nearest, filled)


@lru_cache
def _autoaugment(large: bool, fill: Colour | None = None) -> v2.AutoAugment:
    policy = AutoAugmentPolicy.IMAGENET if large else AutoAugmentPolicy.CIFAR10
    return v2.AutoAugment(policy, fill=None if fill is None else list(fill))


@lru_cache
def _magnitudes(augment: str, height: int, width: int) -> dict[str, tuple[list[float] | None, bool]]:
    """Magnitudes of each operation, weakest first (None if it has none), and whether they have a sign."""
    kinds = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}
    if augment == "autoaugment":
        space, n_levels = v2.AutoAugment._AUGMENTATION_SPACE, LEVELS_OF_AUTOAUGMENT
    else:
        space, n_levels = kinds[augment]._AUGMENTATION_SPACE, kinds[augment]().num_magnitude_bins
    found = {}
    for name, (values, signed) in space.items():
        levels = values(n_levels, height, width)
        found[name] = (None if levels is None else [float(level) for level in levels], signed)
    return found
