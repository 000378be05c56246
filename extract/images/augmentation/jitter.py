"""Brightness, contrast and saturation, changed at random: torchvision's `ColorJitter`, for each image."""

from itertools import permutations

import numpy as np
import torch

from extract.inference.transfer import to_device

GREY = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision has it
CHANGES = ("brightness", "contrast", "saturation")
ORDERS = list(permutations(range(len(CHANGES))))
N_DRAWS = 1 + len(CHANGES)  # of the order, then of each factor


def jittered(images: torch.Tensor, strength: float, draws: np.ndarray) -> torch.Tensor:
    """Images with brightness, contrast and saturation times factors from [1 − strength, 1 + strength].

    The three follow each other in a random order, and are rounded to 8 bits after each.

    Args:
        images: uint8 (B, 3, H, W) on any device.
        strength: 0 to 1.
        draws: (B, N_DRAWS) float64 in [0, 1), on the CPU.
    """
    orders = np.array(ORDERS)[(draws[:, 0] * len(ORDERS)).astype(np.int64)]  # (B, 3)
    factors = torch.from_numpy((1 + strength * (2 * draws[:, 1:] - 1)).astype(np.float32))
    images = images.clone()
    for place in range(len(CHANGES)):
        for number, change in enumerate(CHANGES):
            rows = np.flatnonzero(orders[:, place] == number)
            if len(rows):
                index = to_device(torch.from_numpy(rows), images.device)
                factor = to_device(factors[rows, number], images.device)[:, None, None, None]
                images[index] = _blended(images[index].float(), change, factor)
    return images


def _blended(images: torch.Tensor, change: str, factor: torch.Tensor) -> torch.Tensor:
    """Between an image and black, its mean grey, or its grey version; rounded, so that grey ones stay."""
    if change == "brightness":
        other = torch.zeros((), device=images.device)
    else:
        red, green, blue = images.unbind(1)
        grey = (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None]
        other = grey.mean(dim=(1, 2, 3), keepdim=True) if change == "contrast" else grey
    return (images * factor + other * (1 - factor)).round().clamp(0, 255).to(torch.uint8)
