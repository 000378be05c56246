"""Parts of batches of image files: what a process needs to know to prepare them, and how it does."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from extract.images.gate import Gate
from extract.images.image_set import ImageSet
from extract.images.transforms import Transform, image_views
from store.errors import UserError

AHEAD = 16 * 2**20  # bytes of files that a worker keeps while it waits


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


class _InMemory:
    """A file that was read before it is needed; it reads like its path."""

    def __init__(self, path: Path):
        self._path = path
        try:
            self._content: bytes | OSError = path.read_bytes()
        except OSError as error:
            self._content = error

    def __str__(self) -> str:
        return str(self._path)

    def __len__(self) -> int:
        return 0 if isinstance(self._content, OSError) else len(self._content)

    def read_bytes(self) -> bytes:
        if isinstance(self._content, OSError):
            raise self._content
        return self._content


def prepare(part: Part, gate: Gate | None = None) -> torch.Tensor | str:
    """The views of a part's images, uint8 (B, V, 3, H, W).

    If one cannot be read, the message of the first: the process that the user started is to raise it.

    Args:
        part: the images.
        gate: to pass before each image; files are read meanwhile, which needs no core. None for none.
    """
    images, paths = [], deque(part.paths)
    try:
        for seeds, expected in zip(part.seeds, part.expected, strict=True):
            if gate is not None and not gate.is_open:
                _read_ahead(paths)
                gate.wait()
            images.append(image_views(paths.popleft(), part.transform, seeds, expected))
    except UserError as error:
        return str(error)
    return torch.stack(images)


def _read_ahead(paths: deque[Path | _InMemory]) -> None:
    """Replace the first paths by files in memory, as many as AHEAD allows and one at least."""
    n_bytes = 0
    for place, path in enumerate(paths):
        if n_bytes >= AHEAD:
            return
        if not isinstance(path, _InMemory):
            path = paths[place] = _InMemory(path)
        n_bytes += len(path)
