"""Parts of batches of image files: what a process needs to know to prepare them, and how it does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from extract.images.image_set import ImageSet
from extract.images.transforms import Transform, image_views
from store.errors import UserError


@dataclass(frozen=True)
class Part:
    """Some images of a batch, all that a worker needs to prepare them.

    Attributes:
        paths: the files.
        seeds: of each file's views.
        expected: their digests, None where unknown.
        transform: how they are prepared.
    """

    paths: list[Path]
    seeds: list[list[int]]
    expected: list[bytes | None]
    transform: Transform


@dataclass(frozen=True)
class ImageFiles:
    """Image files in the order in which they are needed.

    Attributes:
        split: the images.
        transform: how they are prepared.
        order: positions in the split.
        seeds: (N, V) int64, of the views of each image in this order.
    """

    split: ImageSet
    transform: Transform
    order: Sequence[int]
    seeds: np.ndarray

    def part(self, positions: range) -> Part:
        """The images at some positions of the order."""
        rows = [self.order[position] for position in positions]
        paths, expected = [self.split.images[row] for row in rows], [self.split.expected(row) for row in rows]
        seeds = self.seeds[positions.start : positions.stop]
        return Part(paths, seeds.tolist(), expected, self.transform)


def prepare(part: Part) -> torch.Tensor | str:
    """The views of a part's images, uint8 (B, V, 3, H, W).

    If one cannot be read, the message of the first: the process that the user started is to raise it.
    """
    images = []
    try:
        for path, seeds, expected in zip(part.paths, part.seeds, part.expected, strict=True):
            images.append(image_views(path, part.transform, seeds, expected))
    except UserError as error:
        return str(error)
    return torch.stack(images)
