"""A digest of every image: it identifies the content of a file, whatever its name.

128-bit XXH3 runs at the speed of memory, and two different images never share one by chance. It does not
resist somebody who constructs an image with a given digest.
"""

from pathlib import Path

import numpy as np
import torch
import xxhash

from store.arrays.image_names import DIGEST_BYTES
from store.errors import UserError
from store.names import shown


def digest_of(content: bytes | np.ndarray) -> bytes:
    """The 16-byte digest of one image, or of a file's bytes."""
    return xxhash.xxh3_128_digest(content)


def digests_of(images: torch.Tensor) -> np.ndarray:
    """(N, 16) uint8 digests of the bytes, channel by channel, of images in memory, uint8 (N, 3, H, W)."""
    rows = np.empty((len(images), DIGEST_BYTES), np.uint8)
    for row, image in zip(rows, images.numpy(), strict=True):
        row[:] = np.frombuffer(digest_of(np.ascontiguousarray(image)), np.uint8)
    return rows


def check_same_content(path: Path, digest: bytes, expected: bytes | None) -> None:
    """Raise UserError if a file's digest is not the expected one; None accepts any."""
    if expected is not None and digest != expected:
        raise UserError(
            f"{shown(str(path))}: holds another image than when the network was trained; put that one back, "
            "point --root at the data set it was trained on, or train again with the present images"
        )
