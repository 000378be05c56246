"""Parts of images that are covered: Cutout (DeVries and Taylor 2017), random erasing (Zhong et al. 2020)."""

import math

import numpy as np
import torch

from extract.inference.transfer import to_device

CUTOUT_DRAWS = 2  # of the centre: row and column
TRIES = 10  # at a box that fits, as torchvision has it
ERASING_DRAWS = 1 + 2 * TRIES + 2  # whether; area and sides of each try; row and column
SCALE, RATIO = (0.02, 0.33), (0.3, 3.3)  # of the area; of height to width. The paper's and torchvision's
Colour = tuple[int, ...]


def squares(side: int, draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """(B, 4) int64 top, bottom, left and right of Cutout's squares, cut off at the borders.

    Args:
        side: of a square, in pixels.
        draws: (B, 2) float64 in [0, 1); every pixel is as likely to be the centre.
        height, width: of the images.
    """
    ends = []
    for drawn, length in zip(draws.T, (height, width), strict=True):
        first = (drawn * length).astype(np.int64) - side // 2
        ends += [first.clip(0), (first + side).clip(None, length)]
    return np.stack(ends, axis=1)


def erased(probability: float, draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """(B, 4) int64 top, bottom, left and right of what is erased; an empty box where nothing is.

    Args:
        probability: that an image has a box, which lies within it.
        draws: (B, ERASING_DRAWS) float64 in [0, 1).
        height, width: of the images.
    """
    of_area, of_sides = draws[:, 1 : 1 + TRIES], draws[:, 1 + TRIES : 1 + 2 * TRIES]
    area = height * width * (SCALE[0] + of_area * (SCALE[1] - SCALE[0]))
    low, high = map(math.log, RATIO)
    ratio = np.exp(low + of_sides * (high - low))
    heights, widths = np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))
    fits = (heights < height) & (widths < width)
    each, first = np.arange(len(draws)), fits.argmax(axis=1)
    has_box = (draws[:, 0] < probability) & fits.any(axis=1)
    tall, wide = (np.where(has_box, sides[each, first], 0) for sides in (heights, widths))
    top = np.floor(draws[:, -2] * (height - tall + 1))
    left = np.floor(draws[:, -1] * (width - wide + 1))
    return np.stack([top, top + tall, left, left + wide], axis=1).astype(np.int64)


def covered(images: torch.Tensor, boxes: np.ndarray, fill: Colour) -> torch.Tensor:
    """Images uint8 (B, 3, H, W) with boxes (B, 4) of one colour."""
    device = images.device
    top, bottom, left, right = to_device(torch.from_numpy(boxes), device).T[:, :, None]
    rows, columns = (torch.arange(length, device=device) for length in images.shape[2:])
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    inside = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
    return torch.where(
        inside, to_device(torch.tensor(fill, dtype=torch.uint8), device)[:, None, None], images
    )
