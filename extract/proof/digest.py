"""A digest of every image: which image a file holds, whatever the file is called.

XXH3 of 128 bits: it runs at the speed of memory, and two different images do not share one by chance. It does
not withstand somebody who makes an image to fit.
"""

from pathlib import Path

import numpy as np
import torch
import xxhash

from store.arrays.image_names import DIGEST_BYTES
from store.errors import UserError
from store.names import shown


def digest_of(content: bytes | np.ndarray) -> bytes:
    """The 16 bytes of one image, of a file's bytes as they are."""
    return xxhash.xxh3_128_digest(content)


def digests_of(images: torch.Tensor) -> np.ndarray:
    """(N, 16) uint8 of images in memory, uint8 (N, 3, H, W): of the bytes of each, channel by channel."""
    rows = np.empty((len(images), DIGEST_BYTES), np.uint8)
    for row, image in zip(rows, images.numpy(), strict=True):
        row[:] = np.frombuffer(digest_of(np.ascontiguousarray(image)), np.uint8)
    return rows


def check_same_content(path: Path, digest: bytes, expected: bytes | None) -> None:
    """Raise UserError for a file that holds another image than it did; without `expected`, any passes."""
    if expected is not None and digest != expected:
        raise UserError(
            f"{shown(str(path))}: holds another image than when the network was trained; put that one back, "
            "point --root at the data set it was trained on, or train anew with the images as they are now"
        )
