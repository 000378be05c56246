"""Images of one split: files not yet opened, or RGB uint8 arrays in memory; reading and checking files."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from torchvision.transforms.v2 import functional as TF

from store.errors import UserError

IN_MEMORY_SIZE = 64  # images up to this many pixels a side live decoded in memory
EVALUATION = -1  # in place of a view's seed: the evaluation transform, which draws nothing


@dataclass(frozen=True)
class ImageSet:
    """The images of one split.

    Attributes:
        images: paths of image files, or uint8 (N, 3, H, W) decoded images.
        label: (N,) int64 class of each.
        sample_index: (N,) int64 position in the source's listing, by which a row is found again.
        seeds: (N, V) int64, what each view of an image is drawn from, or EVALUATION; None for one view of
            each under the evaluation transform.
    """

    images: Sequence[Path] | torch.Tensor
    label: np.ndarray
    sample_index: np.ndarray
    seeds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def in_memory(self) -> bool:
        return isinstance(self.images, torch.Tensor)

    @property
    def n_views(self) -> int:
        """V, views of each image."""
        return 1 if self.seeds is None else self.seeds.shape[1]

    def take(self, index: np.ndarray) -> "ImageSet":
        """The images at `index`, in that order."""
        images = self.images[index] if self.in_memory else [self.images[i] for i in index]
        seeds = None if self.seeds is None else self.seeds[index]
        return ImageSet(images, self.label[index], self.sample_index[index], seeds)


def read_image(path: Path) -> Image.Image:
    """Open one file as an RGB image: grey is repeated, palettes are looked up, alpha is dropped.

    Raises:
        UserError: the file cannot be decoded to its end.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("I", "F") and image.format not in ("PNG", "PPM"):
                raise ValueError("32-bit pixels, of no fixed range: convert it to 8 or 16 bits")
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to white
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: not a readable image ({reason}); "
            "mend or remove it, or train with --skip-bad-images to go on without it"
        ) from error


def resize_and_crop(image: Image.Image, resize: int, crop: int) -> torch.Tensor:
    """Shorter side to `resize` (bilinear, antialiased), then the central crop; uint8 (3, crop, crop)."""
    tensor = TF.pil_to_tensor(image)
    if tensor.shape[1:] != (crop, crop) or resize != crop:
        tensor = TF.center_crop(TF.resize(tensor, [resize], antialias=True), [crop, crop])
    return tensor


def decode(image_set: ImageSet, size: int, progress: Progress, what: str) -> ImageSet:
    """Read every file of a set into memory as uint8 (N, 3, size, size)."""
    images = torch.empty(len(image_set), 3, size, size, dtype=torch.uint8)
    decoded = _parallel(lambda path: resize_and_crop(read_image(path), size, size), image_set.images)
    task = progress.add_task(f"reading {what} images", total=len(image_set), status="")
    for row, image in enumerate(decoded):
        images[row] = image
        progress.advance(task)
    return replace(image_set, images=images)


def find_unreadable(paths: Sequence[Path], progress: Progress) -> dict[Path, str]:
    """Decode every file; return those that cannot be, each with what is wrong."""

    def complaint(path: Path) -> str | None:
        try:
            read_image(path)
        except UserError as error:
            return str(error)
        return None

    task = progress.add_task("checking images", total=len(paths), status="")
    bad = {}
    for path, wrong in zip(paths, _parallel(complaint, paths), strict=True):
        if wrong is not None:
            bad[path] = wrong
        progress.advance(task)
    return bad


def _parallel(function, items: Iterable) -> Iterator:
    # Decoding releases the interpreter lock, so threads keep all cores busy.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)
