"""Images of one split: files not yet opened, or RGB uint8 arrays in memory; reading and checking files."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from rich.progress import Progress
from torchvision.transforms.v2 import functional as TF

from extract.digest import DIGEST_BYTES, as_rows, digest_of, refuse_other_content
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
        name: (N,) bytes, the path of each relative to the data set's root, in UTF-8; None where images are
            no files.
        digest: (N, 16) uint8, of what each file held when it was first read, or of each image in memory;
            None where they have not been read yet.
    """

    images: Sequence[Path] | torch.Tensor
    label: np.ndarray
    sample_index: np.ndarray
    seeds: np.ndarray | None = None
    name: np.ndarray | None = None
    digest: np.ndarray | None = None

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
        rows = (self.label, self.sample_index, self.seeds, self.name, self.digest)
        return ImageSet(images, *(None if values is None else values[index] for values in rows))

    def expected(self, row: int) -> bytes | None:
        """The digest of one image, where it is known."""
        return None if self.digest is None else self.digest[row].tobytes()


def read_image(path: Path, expected: bytes | None = None) -> Image.Image:
    """Open one file as an RGB image: grey is repeated, palettes are looked up, alpha is dropped.

    Args:
        path: the file.
        expected: the digest of what it should hold, where that is known.

    Raises:
        UserError: the file cannot be decoded to its end, or holds another image.
    """
    return read_digested(path, expected)[0]


def read_digested(path: Path, expected: bytes | None = None) -> tuple[Image.Image, bytes]:
    """As `read_image`, with the file's digest; its bytes are read once for both."""
    try:
        content = path.read_bytes()
        image, digest = _as_rgb(io.BytesIO(content)), digest_of(content)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow would name the buffer, not the file.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else " ".join(str(error).split())
        raise UserError(
            f"{path}: not a readable image ({reason}); "
            "mend or remove it, or train with --skip-bad-images to go on without it"
        ) from error
    refuse_other_content(path, digest, expected)
    return image, digest


def _as_rgb(file: io.BytesIO) -> Image.Image:
    with Image.open(file) as image:
        if image.mode in ("I", "F") and image.format not in ("PNG", "PPM"):
            raise ValueError("32-bit pixels, of no fixed range: convert it to 8 or 16 bits")
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to white
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return image.convert("RGB")


def resize_and_crop(image: Image.Image, resize: int, crop: int) -> torch.Tensor:
    """Shorter side to `resize` (bilinear, antialiased), then the central crop; uint8 (3, crop, crop)."""
    tensor = TF.pil_to_tensor(image)
    if tensor.shape[1:] != (crop, crop) or resize != crop:
        tensor = TF.center_crop(TF.resize(tensor, [resize], antialias=True), [crop, crop])
    return tensor


def decode(image_set: ImageSet, size: int, progress: Progress, what: str) -> ImageSet:
    """Read every file of a set into memory as uint8 (N, 3, size, size), with its digest."""

    def read(row: int) -> tuple[torch.Tensor, bytes]:
        image, digest = read_digested(image_set.images[row], image_set.expected(row))
        return resize_and_crop(image, size, size), digest

    images, digests = torch.empty(len(image_set), 3, size, size, dtype=torch.uint8), []
    task = progress.add_task(f"reading {what} images", total=len(image_set), status="")
    for row, (image, digest) in enumerate(_parallel(read, range(len(image_set)))):
        images[row] = image
        digests.append(digest)
        progress.advance(task)
    return replace(image_set, images=images, digest=as_rows(digests))


def find_unreadable(paths: Sequence[Path], progress: Progress) -> tuple[dict[Path, str], np.ndarray]:
    """Decode every file.

    Returns:
        Those that cannot be decoded, each with what is wrong, and (N, 16) uint8 digests of all, zeros of
        those.
    """

    def look(path: Path) -> tuple[str | None, bytes]:
        try:
            return None, read_digested(path)[1]
        except UserError as error:
            return str(error), bytes(DIGEST_BYTES)

    task = progress.add_task("checking images", total=len(paths), status="")
    bad, digests = {}, []
    for path, (wrong, digest) in zip(paths, _parallel(look, paths), strict=True):
        if wrong is not None:
            bad[path] = wrong
        digests.append(digest)
        progress.advance(task)
    return bad, as_rows(digests)


def _parallel(function, items: Iterable) -> Iterator:
    # Decoding releases the interpreter lock, so threads keep all cores busy.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)
