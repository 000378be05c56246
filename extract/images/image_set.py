"""The images of one split, as files or as RGB uint8 arrays in memory; reading and checking files."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import UnidentifiedImageError
from rich.progress import Progress
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from extract.images.decode import FULL, TODAY, Depth, Reading, decode_image, find_white, scaled_by
from extract.images.embedded import is_embedded
from extract.proof.digest import check_same_content, digest_of
from store.arrays.image_names import DIGEST_BYTES
from store.errors import UserError
from store.names import shown
from store.notes import note

ITEMS_AT_ONCE = 4096  # items queued for threads: queueing ten million would take gigabytes
ADVICE = "; fix or remove it, or leave it out with --skip-bad-images (`train`, `extract`, `predict`)"
EVALUATION = -1  # instead of a view's seed: the evaluation transform, which draws nothing


@dataclass(frozen=True)
class ImageSet:
    """The images of one split.

    Attributes:
        images: paths of image files (or images inside of Parquet files, which read like paths), or uint8
            (N, 3, H, W) decoded images.
        label: (N,) int64 class of each image.
        sample_index: (N,) int64 position in the source's listing, which identifies the image.
        seeds: (N, V) int64, the seed of each view of an image, or EVALUATION; None for one view of each under
            the evaluation transform.
        name: (N,) bytes, path of each file relative to the data set's root, in UTF-8; None without files.
        digest: (N, 16) uint8, of the content of each file when first read, or of each image in memory; None
            before files are read.
        depth: (N, 2) int32, significant bits and largest value of each file's 16-bit pixels (`Depth`), zeros
            for 8-bit pixels; None before files are read, or without files.
        group: (N,) bytes, what images of one track, patient or burst share, in UTF-8; None if not asked for.
    """

    images: Sequence[Path] | torch.Tensor
    label: np.ndarray
    sample_index: np.ndarray
    seeds: np.ndarray | None = None
    name: np.ndarray | None = None
    digest: np.ndarray | None = None
    depth: np.ndarray | None = None
    group: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def in_memory(self) -> bool:
        """Whether the images are decoded."""
        return isinstance(self.images, torch.Tensor)

    @property
    def n_views(self) -> int:
        """V, views of each image."""
        return 1 if self.seeds is None else self.seeds.shape[1]

    def take(self, index: np.ndarray) -> "ImageSet":
        """The images at `index`, in that order."""
        images = self.images[index] if self.in_memory else [self.images[i] for i in index]
        rows = (self.label, self.sample_index, self.seeds, self.name, self.digest, self.depth, self.group)
        return ImageSet(images, *(None if values is None else values[index] for values in rows))

    def expected(self, row: int) -> bytes | None:
        """The digest of one image, None if unknown."""
        return None if self.digest is None else self.digest[row].tobytes()


def read_image(path: Path, expected: bytes | None = None, reading: Reading = TODAY) -> torch.Tensor:
    """Read one file as RGB, uint8 (3, H, W): see `decode_image`.

    Args:
        path: the file.
        expected: the digest that it should have, if known.
        reading: how its pixels become 8-bit RGB.

    Raises:
        UserError: the file cannot be fully decoded, or holds another image.
    """
    return read_digested(path, expected, reading)[0]


def read_digested(
    path: Path, expected: bytes | None = None, reading: Reading = TODAY
) -> tuple[torch.Tensor, Depth, bytes]:
    """Like `read_image`, with the file's depth and digest; its bytes are read only once."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    digest = digest_of(content)
    check_same_content(path, digest, expected)  # first: an image damaged since is not one to fix or skip
    try:
        return *decode_image(content, reading), digest
    except MemoryError:
        raise
    except Exception as error:  # other bytes can fail anywhere in Pillow's readers
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    # Pillow would name the buffer, not the file.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "unknown format" if unknown else " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{shown(str(path))}: not a readable image ({reason}){ADVICE}")


def resize_and_crop(
    image: torch.Tensor, resize: int, crop: int, interpolation: str = "bilinear"
) -> torch.Tensor:
    """Resize the shorter side of (3, H, W) (antialiased), then crop the centre; uint8 (3, crop, crop)."""
    if image.shape[1:] == (crop, crop) and resize == crop:
        return image
    resized = TF.resize(image, [resize], InterpolationMode(interpolation), antialias=True)
    return TF.center_crop(resized, [crop, crop])


def decode(image_set: ImageSet, size: int, progress: Progress, what: str, reading: Reading) -> ImageSet:
    """Read every file of a set into memory as uint8 (N, 3, size, size), with its digest and depth."""

    def read(row: int) -> tuple[torch.Tensor, Depth, bytes]:
        image, *known = read_digested(image_set.images[row], image_set.expected(row), reading)
        return resize_and_crop(image, size, size), *known

    images = torch.empty(len(image_set), 3, size, size, dtype=torch.uint8)
    digest, depth = _empty_digests(len(image_set))
    task = progress.add_task(f"reading {what} images", total=len(image_set), status="")
    for row, (image, *known) in enumerate(_parallel(read, range(len(image_set)))):
        images[row] = image
        depth[row], digest[row] = known[0], np.frombuffer(known[1], np.uint8)
        progress.advance(task)
    return replace(image_set, images=images, digest=digest, depth=depth)


def _empty_digests(n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """`digest` and `depth` of an ImageSet, zeros to be filled in."""
    return np.zeros((n_images, DIGEST_BYTES), np.uint8), np.zeros((n_images, 2), np.int32)


def decode_training(image_set: ImageSet, size: int, progress: Progress) -> tuple[ImageSet, Reading]:
    """Like `decode`, and find how the images of all splits are read, which training images decide.

    16-bit images are read a second time if they turn out to need another scaling.
    """
    decoded = decode(image_set, size, progress, "train", TODAY)
    reading = replace(TODAY, white=find_white(decoded.depth))
    deep = np.flatnonzero(decoded.depth[:, 1])
    depths = [Depth(*of_image) for of_image in decoded.depth[deep].tolist()]
    changed = [scaled_by(depth, reading) != scaled_by(depth, TODAY) for depth in depths]
    again = deep[np.array(changed, bool)]
    if len(again):
        files = replace(image_set, digest=decoded.digest).take(again)
        decoded.images[again] = decode(files, size, progress, "16-bit", reading).images
    return decoded, reading


def white_of(splits: dict[str, ImageSet]) -> dict[int, int]:
    """`Reading.white` for 16-bit images, found from the training images; a note reports it."""
    depths = {name: split.depth for name, split in splits.items() if split.depth is not None}
    white = find_white(depths["train"]) if "train" in depths else {}
    lines = [
        f"those with {bits} significant bits by {value:,}"
        if bits
        else f"by {value:,}, the largest value in training"
        for bits, value in sorted(white.items())
    ]
    if lines:
        note(f"16-bit images are scaled {'; '.join(lines)}")
    for name, depth in depths.items():
        if 0 not in white and (depth[depth[:, 0] == 0, 1] > 0).any():
            note(f"{name} has 16-bit images, but train has none that show their range: scaled by {FULL:,}")
    return white


def find_unreadable(
    paths: Sequence[Path], progress: Progress
) -> tuple[dict[int, str], dict[str, np.ndarray]]:
    """Decode every file; those inside of Parquet files in the order in which they lie there.

    Returns:
        The indices of those that cannot be decoded, each with its error, and `digest` and `depth` of all, as
        in an ImageSet; zeros for the undecodable ones.
    """

    def look(path: Path) -> tuple[str | None, Depth, bytes]:
        try:
            return None, *read_digested(path)[1:]
        except UserError as error:
            return str(error), Depth(), bytes(DIGEST_BYTES)

    task = progress.add_task("checking images", total=len(paths), status="")
    bad, (digest, depth) = {}, _empty_digests(len(paths))
    order = sorted(range(len(paths)), key=lambda row: str(paths[row])) if is_embedded(paths) else None
    in_order = paths if order is None else [paths[row] for row in order]
    for position, (wrong, *known) in enumerate(_parallel(look, in_order)):
        row = position if order is None else order[position]
        if wrong is not None:
            bad[row] = wrong
        depth[row], digest[row] = known[0], np.frombuffer(known[1], np.uint8)
        progress.advance(task)
    return bad, {"digest": digest, "depth": depth}


def _parallel(function: Callable, items: Sequence) -> Iterator:
    # Decoding releases the interpreter lock, so threads keep all cores busy.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for start in range(0, len(items), ITEMS_AT_ONCE):
                yield from pool.map(function, items[start : start + ITEMS_AT_ONCE])
        finally:
            pool.shutdown(cancel_futures=True)
