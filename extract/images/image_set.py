"""Images of one split: files not yet opened, or RGB uint8 arrays in memory; reading and checking files."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from rich.progress import Progress
from torchvision.transforms.v2 import functional as TF

from extract.images.decode import FULL, TODAY, Depth, Reading, decode_image, find_white, scaled_by
from extract.proof.digest import check_same_content, digest_of
from store.arrays.image_names import DIGEST_BYTES
from store.errors import UserError
from store.names import shown
from store.notes import note

AT_ONCE = 4096  # images that wait for threads: ten million of them would take gigabytes
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
        depth: (N, 2) int32, significant bits and largest value of each file's pixels if they are of 16 bits
            (`Depth`), zeros if they are not; None where files have not been read yet, or are none.
    """

    images: Sequence[Path] | torch.Tensor
    label: np.ndarray
    sample_index: np.ndarray
    seeds: np.ndarray | None = None
    name: np.ndarray | None = None
    digest: np.ndarray | None = None
    depth: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def in_memory(self) -> bool:
        """Whether images are decoded already."""
        return isinstance(self.images, torch.Tensor)

    @property
    def n_views(self) -> int:
        """V, views of each image."""
        return 1 if self.seeds is None else self.seeds.shape[1]

    def take(self, index: np.ndarray) -> "ImageSet":
        """The images at `index`, in that order."""
        images = self.images[index] if self.in_memory else [self.images[i] for i in index]
        rows = (self.label, self.sample_index, self.seeds, self.name, self.digest, self.depth)
        return ImageSet(images, *(None if values is None else values[index] for values in rows))

    def expected(self, row: int) -> bytes | None:
        """The digest of one image, where it is known."""
        return None if self.digest is None else self.digest[row].tobytes()


def read_image(path: Path, expected: bytes | None = None, reading: Reading = TODAY) -> Image.Image:
    """Open one file as an RGB image: see `decode_image`.

    Args:
        path: the file.
        expected: the digest of what it should hold, where that is known.
        reading: how its pixels become RGB of 8 bits.

    Raises:
        UserError: the file cannot be decoded to its end, or holds another image.
    """
    return read_digested(path, expected, reading)[0]


def read_digested(
    path: Path, expected: bytes | None = None, reading: Reading = TODAY
) -> tuple[Image.Image, Depth, bytes]:
    """As `read_image`, with the file's depth and digest; its bytes are read once for all."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    digest = digest_of(content)
    check_same_content(path, digest, expected)  # what was damaged since is no image to mend or to leave out
    try:
        return *decode_image(content, reading), digest
    except MemoryError:
        raise
    except Exception as error:  # bytes that are no image can fail anywhere in Pillow's readers
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    # Pillow would name the buffer, not the file.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "of no known format" if unknown else " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{shown(str(path))}: not a readable image ({reason}); "
        "mend or remove it, or train with --skip-bad-images to go on without it"
    )


def resize_and_crop(image: Image.Image, resize: int, crop: int) -> torch.Tensor:
    """Shorter side to `resize` (bilinear, antialiased), then the central crop; uint8 (3, crop, crop)."""
    tensor = TF.pil_to_tensor(image)
    if tensor.shape[1:] != (crop, crop) or resize != crop:
        tensor = TF.center_crop(TF.resize(tensor, [resize], antialias=True), [crop, crop])
    return tensor


def decode(image_set: ImageSet, size: int, progress: Progress, what: str, reading: Reading) -> ImageSet:
    """Read every file of a set into memory as uint8 (N, 3, size, size), with its digest and depth."""

    def read(row: int) -> tuple[torch.Tensor, Depth, bytes]:
        image, *known = read_digested(image_set.images[row], image_set.expected(row), reading)
        return resize_and_crop(image, size, size), *known

    images = torch.empty(len(image_set), 3, size, size, dtype=torch.uint8)
    digest, depth = _nothing_known(len(image_set))
    task = progress.add_task(f"reading {what} images", total=len(image_set), status="")
    for row, (image, *known) in enumerate(_parallel(read, range(len(image_set)))):
        images[row] = image
        depth[row], digest[row] = known[0], np.frombuffer(known[1], np.uint8)
        progress.advance(task)
    return replace(image_set, images=images, digest=digest, depth=depth)


def _nothing_known(n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """`digest` and `depth` of an ImageSet, to be filled in: zeros."""
    return np.zeros((n_images, DIGEST_BYTES), np.uint8), np.zeros((n_images, 2), np.int32)


def decode_training(image_set: ImageSet, size: int, progress: Progress) -> tuple[ImageSet, Reading]:
    """As `decode`, and how the images of all splits are read, which training images alone decide.

    Those of 16 bits are read a second time where that turns out to be otherwise than at first.
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
    """What becomes white of 16-bit images, as of Reading: training images decide, and a note says so."""
    depths = {name: split.depth for name, split in splits.items() if split.depth is not None}
    white = find_white(depths["train"]) if "train" in depths else {}
    said = [
        f"those that tell {bits} significant bits by {value:,}"
        if bits
        else f"by {value:,}, the largest value in training"
        for bits, value in sorted(white.items())
    ]
    if said:
        note(f"16-bit images are scaled {'; '.join(said)}")
    for name, depth in depths.items():
        if 0 not in white and (depth[depth[:, 0] == 0, 1] > 0).any():
            note(f"{name} has 16-bit images and train has none that show their range: scaled by {FULL:,}")
    return white


def find_unreadable(
    paths: Sequence[Path], progress: Progress
) -> tuple[dict[Path, str], dict[str, np.ndarray]]:
    """Decode every file.

    Returns:
        Those that cannot be decoded, each with what is wrong, and `digest` and `depth` of all, as an
        ImageSet has them: zeros of those.
    """

    def look(path: Path) -> tuple[str | None, Depth, bytes]:
        try:
            return None, *read_digested(path)[1:]
        except UserError as error:
            return str(error), Depth(), bytes(DIGEST_BYTES)

    task = progress.add_task("checking images", total=len(paths), status="")
    bad, (digest, depth) = {}, _nothing_known(len(paths))
    for row, (wrong, *known) in enumerate(_parallel(look, paths)):
        if wrong is not None:
            bad[paths[row]] = wrong
        depth[row], digest[row] = known[0], np.frombuffer(known[1], np.uint8)
        progress.advance(task)
    return bad, {"digest": digest, "depth": depth}


def _parallel(function: Callable, items: Sequence) -> Iterator:
    # Decoding releases the interpreter lock, so threads keep all cores busy.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for start in range(0, len(items), AT_ONCE):
                yield from pool.map(function, items[start : start + AT_ONCE])
        finally:
            pool.shutdown(cancel_futures=True)
