"""Views of training images: drawn one by one in plain Python, and stores of them."""

from pathlib import Path

import numpy as np
import torch

from extract.images.image_set import ImageSet, read_image
from extract.images.transforms import Transform, training_image
from store.reader import FeatureStore

V, BATCH = 3, 4  # 18 images in batches of 4 leave one of 2
OPTIONS = ["--views", V, "--batch-size", BATCH, "--device", "cpu"]


def splitmix(state: int, number: int) -> int:
    """One output of splitmix64, in Python integers."""
    z = (state + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def slow_seed(seed: int, sample_index: int, view: int) -> int:
    return splitmix(splitmix(splitmix(seed, 0) ^ view, 0) ^ sample_index, 0) >> 1


def slow_view(image: torch.Tensor, seed: int, padding: int, flip: bool) -> tuple[torch.Tensor, bool]:
    """A view (3, H, W) of one image from its seed, and whether it is mirrored."""
    _, height, width = image.shape
    top, left = (splitmix(seed, number) % (2 * padding + 1) for number in (0, 1))
    mirrored = flip and splitmix(seed, 2) % 2 == 1
    padded = torch.zeros(3, height + 2 * padding, width + 2 * padding, dtype=torch.uint8)
    padded[:, padding : padding + height, padding : padding + width] = image
    crop = padded[:, top : top + height, left : left + width]
    return (crop.flip(-1) if mirrored else crop), mirrored


def expected_view(images: ImageSet, row: int, transform: Transform, seed: int) -> torch.Tensor:
    """A view of one image, uint8 (3, H, W), using nothing under test but training's own transform."""
    if images.in_memory:
        return slow_view(images.images[row], seed, 2, transform.flip)[0]
    return training_image(read_image(images.images[row]), transform, seed)


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Every array of a store and its checksums, except those that depend on the time."""
    store, timely = FeatureStore(path), ("finished", "checksum/finished", "checksum/metadata")
    return {name: array.read() for name, array in store.arrays.items() if name not in timely}


def assert_same(path: Path, other: Path) -> None:
    ours, theirs = arrays_of(path), arrays_of(other)
    assert ours.keys() == theirs.keys()
    for name, rows in ours.items():
        np.testing.assert_array_equal(rows, theirs[name], strict=True, err_msg=name)


def command(ckpt: Path, store: str, *options: object) -> list[object]:
    return ["extract", "--ckpt", ckpt, "--store", store, *OPTIONS, *options]
