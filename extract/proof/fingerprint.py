"""Fingerprints of a data set as listed: of the images in use, and of those that a subset was drawn from."""

import hashlib

from extract.images.image_set import ImageSet
from extract.sources.listing import Listing

NAMES_AT_ONCE = 1 << 16  # as Python objects, which take five times their characters


def fingerprint(class_names: list[str], splits: dict[str, ImageSet]) -> str:
    """SHA-256 over class names, image names (bytes, in memory), labels and membership in splits."""
    digest = hashlib.sha256(repr(class_names).encode())
    for name, split in sorted(splits.items()):
        _add_rows(digest, name, split)
        if split.in_memory:
            digest.update(split.images.numpy().tobytes())
        else:
            _add_names(digest, split)
    return digest.hexdigest()


def source_fingerprint(listing: Listing) -> str:
    """SHA-256 over everything that a long-tailed subset is drawn from, the same for each of its seeds.

    Args:
        listing: before the subset is taken; images in memory have their digests, files their names.
    """
    digest = hashlib.sha256(repr(listing.class_names).encode())
    for name, split in sorted(listing.splits.items()):
        _add_rows(digest, name, split)
        if split.in_memory:
            digest.update(split.digest.tobytes())
        else:
            _add_names(digest, split)
    return digest.hexdigest()


def _add_rows(digest: "hashlib._Hash", name: str, split: ImageSet) -> None:
    digest.update(f"{name} {len(split)}".encode())
    digest.update(split.label.tobytes())
    digest.update(split.sample_index.tobytes())


def _add_names(digest: "hashlib._Hash", split: ImageSet) -> None:
    for start in range(0, len(split), NAMES_AT_ONCE):
        names = split.name[start : start + NAMES_AT_ONCE].tolist()
        digest.update((b"\n" if start else b"") + b"\n".join(names))
