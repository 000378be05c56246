"""From uint8 images to what the network sees: evaluation and training transforms.

Small images are augmented as a batch on the training device (pad, random crop, flip: the CIFAR recipe);
large ones one by one in worker processes (random resized crop, flip: the ImageNet recipe). Every random
choice comes from a generator or seed given by the caller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from extract.images.augmentation.changes import N_DRAWS, NO_CHANGES, Changes, changed
from extract.images.decode import Reading
from extract.images.image_set import EVALUATION, ImageSet, read_image, resize_and_crop
from extract.images.preparation import IN_MEMORY_SIZE
from extract.images.views import draw_below
from extract.inference.transfer import to_device

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRACTIONS = 2**53  # of [0, 1), that float64 has exactly
IMAGES_AT_ONCE = 512  # converted to float64 at once
CROP_PADDING = 4  # of a 32-pixel image; He et al. 2016, sec. 4.2


@dataclass(frozen=True)
class Transform:
    """How images are prepared; saved in the checkpoint.

    Attributes:
        image_size: side of the square that the network sees, in pixels.
        mean, std: of each channel, in units of the [0, 1] range.
        flip: whether half of the training images are mirrored.
        upright, white: how files are read, see Reading; the defaults are version 0.1's.
        resize: shorter side of images above 64 pixels before the central crop; None for 256 of 224.
        interpolation: of resizing those, "bilinear" or "bicubic".
        augment, jitter, cutout, erasing: of training images, after crops and mirror images; see Changes.
    """

    image_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    flip: bool = True
    upright: bool = False
    white: Mapping[int, int] | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    augment: str = NO_CHANGES.augment
    jitter: float = NO_CHANGES.jitter
    cutout: int = NO_CHANGES.cutout
    erasing: float = NO_CHANGES.erasing

    @property
    def changes(self) -> Changes:
        """What is changed of training images after crops and mirror images."""
        return Changes(self.augment, self.jitter, self.cutout, self.erasing)

    def saved(self) -> dict[str, Any]:
        """The fields for a checkpoint; without changes, the very ones of checkpoints that know of none."""
        without = {f.name for f in fields(Changes)} if self.changes == NO_CHANGES else set()
        return {name: value for name, value in asdict(self).items() if name not in without}

    @property
    def reading(self) -> Reading:
        """How files become 8-bit RGB."""
        return Reading(self.upright, self.white)


def channel_statistics(train: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of a split; ImageNet's if it is not in memory."""
    if not train.in_memory:
        return IMAGENET_MEAN, IMAGENET_STD
    total, squares = torch.zeros(2, 3, dtype=torch.float64)
    for images in train.images.split(IMAGES_AT_ONCE):  # sums of whole numbers below 2^53 are exact
        pixels = images.permute(1, 0, 2, 3).flatten(1).double()
        total += pixels.sum(dim=1)
        squares += pixels.square_().sum(dim=1)
    n_pixels = train.images[:, 0].numel()
    mean = total / n_pixels
    std = ((squares - total * mean).clamp_min(0) / (n_pixels - 1)).sqrt() / 255
    # a channel of one value would divide by zero
    return tuple((mean / 255).tolist()), tuple(std.clamp_min(1e-3).tolist())


def normalise(images: torch.Tensor, transform: Transform, out: torch.Tensor | None = None) -> torch.Tensor:
    """uint8 (B, 3, H, W) to float32 with mean 0 and standard deviation 1 in each channel.

    Args:
        images: on any device.
        transform: has the means and standard deviations.
        out: float32 (B, 3, H, W) to write to, since fresh memory costs more than arithmetic; None for new.
    """
    mean, std = _per_channel(transform.mean, images.device), _per_channel(transform.std, images.device)
    if out is None:
        out = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    return out.copy_(images).div_(255).sub_(mean).div_(std)


def denormalise(images: torch.Tensor, transform: Transform) -> torch.Tensor:
    """The uint8 (B, 3, H, W) that `normalise` was given."""
    mean, std = _per_channel(transform.mean, images.device), _per_channel(transform.std, images.device)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


@lru_cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """float32 (1, 3, 1, 1), copied to a device only once: each such copy waits for a GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


def augment_batch(images: torch.Tensor, transform: Transform, generator: torch.Generator) -> torch.Tensor:
    """Pad, crop at random and flip a whole batch; then change each image as the transform says.

    Args:
        images: uint8 (B, 3, H, W) on any device.
        transform: says whether to flip, and what else to change.
        generator: on the CPU, so that the draws do not depend on the device.

    Returns:
        uint8 (B, 3, H, W), in channels-last memory if nothing else is changed.
    """
    n, padding = len(images), _padding(images)
    top, left = torch.randint(2 * padding + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < (0.5 if transform.flip else 0.0)
    cropped = _cropped(images, top, left, mirrored)
    if transform.changes == NO_CHANGES:
        return cropped
    draws = torch.rand(n, N_DRAWS, dtype=torch.float64, generator=generator)
    return changed(cropped, transform.changes, draws.numpy(), _mean_colour(transform))


def view_batch(images: torch.Tensor, transform: Transform, seeds: np.ndarray) -> torch.Tensor:
    """One view of each image of a batch, augmented as by `augment_batch`, but from a seed each.

    Args:
        images: uint8 (B, 3, H, W) on any device.
        transform: says whether to flip, and what else to change.
        seeds: (B,) int64; EVALUATION leaves an image unchanged.

    Returns:
        uint8 (B, 3, H, W).
    """
    augmented = seeds != EVALUATION
    if not augmented.any():
        return images
    padding = _padding(images)
    top, left = (np.where(augmented, draw_below(seeds, i, 2 * padding + 1), padding) for i in (0, 1))
    mirrored = augmented & transform.flip & (draw_below(seeds, 2, 2) == 1)
    views = _cropped(images, *(torch.from_numpy(drawn)[:, None] for drawn in (top, left, mirrored)))
    if transform.changes == NO_CHANGES:
        return views
    rows = np.flatnonzero(augmented)
    drawn = np.stack([draw_below(seeds[rows], 3 + k, FRACTIONS) for k in range(N_DRAWS)], axis=1)
    index = to_device(torch.from_numpy(rows), views.device)
    views[index] = changed(views[index], transform.changes, drawn / FRACTIONS, _mean_colour(transform))
    return views


def _mean_colour(transform: Transform) -> tuple[int, ...]:
    """What is 0 after normalisation, to 8 bits."""
    return tuple(round(255 * value) for value in transform.mean)


def _padding(images: torch.Tensor) -> int:
    return max(1, CROP_PADDING * images.shape[2] // 32)


def _cropped(
    images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, mirrored: torch.Tensor
) -> torch.Tensor:
    """Crops of padded images with one gather; top and left int64 (B, 1) within the padding, mirrored bool."""
    n, _, height, width = images.shape
    device, padding = images.device, _padding(images)
    top, left, mirrored = (to_device(drawn, device) for drawn in (top, left, mirrored))
    across = torch.arange(width, device=device)
    rows = top + torch.arange(height, device=device)  # (B, H)
    columns = left + torch.where(mirrored, width - 1 - across, across)  # (B, W)
    padded = torch.nn.functional.pad(images, [padding] * 4)
    batch = torch.arange(n, device=device)[:, None, None]
    cropped = padded[batch, :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, 3)
    return cropped.permute(0, 3, 1, 2)


def image_views(
    path: Path, transform: Transform, seeds: Sequence[int], expected: bytes | None = None
) -> torch.Tensor:
    """Views of one file, decoded once, each from a seed or EVALUATION; uint8 (V, 3, H, W).

    Raises:
        UserError: the file cannot be decoded, or has another digest than expected.
    """
    image = read_image(path, expected, transform.reading)
    views = [
        evaluation_image(image, transform) if seed == EVALUATION else training_image(image, transform, seed)
        for seed in seeds
    ]
    return torch.stack(views) if len(views) > 1 else views[0][None]  # indexing copies nothing


def evaluation_image(image: torch.Tensor, transform: Transform) -> torch.Tensor:
    """An image (3, H, W) as the network sees it in evaluation, uint8 (3, side, side)."""
    shorter_side, interpolation = evaluation_resize(transform)
    return resize_and_crop(image, shorter_side, transform.image_size, interpolation)


def evaluation_resize(transform: Transform) -> tuple[int, str]:
    """Shorter side in pixels to which images are resized before their central crop, and how."""
    size = transform.image_size
    if size <= IN_MEMORY_SIZE:
        return size, "bilinear"
    return transform.resize or round(size * 256 / 224), transform.interpolation


def training_image(image: torch.Tensor, transform: Transform, seed: int) -> torch.Tensor:
    """An image (3, H, W) cropped, flipped and changed at random from `seed`, uint8 (3, side, side)."""
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(
                transform.image_size,
                interpolation=v2.InterpolationMode(transform.interpolation),
                antialias=True,
            ),
            v2.RandomHorizontalFlip(0.5 if transform.flip else 0.0),
        ]
    )
    with torch.random.fork_rng(devices=[]):  # v2 draws from the global generator
        # Not torch.manual_seed, which formats the call stack for GPUs: a quarter of an image's time.
        torch.default_generator.manual_seed(seed)
        cropped = augment(image)
        if transform.changes == NO_CHANGES:
            return cropped
        draws = torch.rand(1, N_DRAWS, dtype=torch.float64).numpy()
    return changed(cropped[None], transform.changes, draws, _mean_colour(transform))[0]
