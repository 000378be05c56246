"""What a checkpoint records of its images, to recognise them: names and digests, by split and in its order.

They are single tensors, so that ten million images stay practical: digests as (N, 16) uint8 and, for files,
their paths relative to the root, in UTF-8 and each ended by NUL, as one text compressed with zlib. For
training images also (K,) int64, the images of each class in the source, on which a random subset depends.
"""

import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from extract.checkpoints.checkpoint import Checkpoint, CheckpointError
from extract.images.image_set import ImageSet
from store.arrays.image_names import DIGEST_BYTES

Record = dict[str, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Recorded:
    """One split as it was in training.

    Attributes:
        digest: (N, 16) uint8.
        text: all names; empty if images were not files.
        per_class: (K,) int64 images of each class in the source; None if unknown.
    """

    digest: np.ndarray
    text: bytes
    per_class: np.ndarray | None = None

    @property
    def names(self) -> list[bytes]:
        """The N names."""
        return self.text.split(b"\0")[:-1]


def record_images(splits: dict[str, ImageSet], per_class: np.ndarray) -> Record | None:
    """The record of some splits; None if not all of their images have been read."""
    if any(split.digest is None for split in splits.values()):
        return None
    record = {
        name: {"digest": torch.from_numpy(split.digest.copy()), "name": _packed(text_of(split))}
        for name, split in splits.items()
    }
    record["train"]["per_class"] = torch.from_numpy(per_class.astype(np.int64))
    return record


def recorded_images(checkpoint: Checkpoint, where: Path | str) -> dict[str, Recorded]:
    """The recorded images by split; `where` is for the error message.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        return {name: _unpacked(**of_split) for name, of_split in checkpoint.images.items()}
    except (AttributeError, TypeError, ValueError, zlib.error) as error:
        raise CheckpointError(f"{where}: its record of the images is damaged; train again") from error


def content_fingerprint(checkpoint: Checkpoint) -> str | None:
    """SHA-256 over the fingerprint and all digests; None for a checkpoint without digests."""
    if checkpoint.images is None:
        return None
    digest = sha256(checkpoint.fingerprint.encode())
    for name, of_split in sorted(checkpoint.images.items()):
        digest.update(name.encode())
        digest.update(of_split["digest"].numpy())
    return digest.hexdigest()


def text_of(split: ImageSet) -> bytes:
    """All names of a split, each ended by NUL; empty if images are not files."""
    return b"" if split.name is None else b"\0".join([*split.name.tolist(), b""])


def _packed(text: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(zlib.compress(text)), dtype=torch.uint8)


def _unpacked(digest: torch.Tensor, name: torch.Tensor, per_class: torch.Tensor | None = None) -> Recorded:
    text = zlib.decompress(name.numpy().tobytes())
    if digest.dtype != torch.uint8 or digest.shape[1:] != (DIGEST_BYTES,):
        raise ValueError("no digests")
    if text and text.count(b"\0") != len(digest):
        raise ValueError("not a name each")
    if per_class is not None and (per_class.dtype != torch.int64 or per_class.ndim != 1):
        raise ValueError("no counts")
    return Recorded(digest.numpy(), text, None if per_class is None else per_class.numpy())
