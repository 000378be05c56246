"""What a source holds: class names, and the images of every split."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from extract.images.image_set import ImageSet
from store.errors import UserError, check_utf8
from store.names import alike, lookalikes


@dataclass(frozen=True)
class Listing:
    """All that a source holds: class names in order of class index, and its splits by name.

    Attributes:
        class_names: K names.
        splits: "train", "test" and optionally "val", except those that fractions make later.
        folders: for class folders, what the names of a split's images begin with, such as "train/".
        notes: what the user should know when the images are first listed.
        missing: why the images cannot be used, if files that a table lists are not there.
    """

    class_names: list[str]
    splits: dict[str, ImageSet]
    folders: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: str | None = None


def listed_images(images: Sequence[Path] | torch.Tensor, label: Sequence[int] | np.ndarray) -> ImageSet:
    """The images of a split, numbered in the order in which they are listed.

    Args:
        images: N paths of files, or (N, 3, H, W) uint8 images.
        label: N classes.
    """
    label = np.asarray(label, dtype=np.int64)
    return ImageSet(images, label, np.arange(len(label)))


def check_utf8_names(listing: Listing, root: Path) -> None:
    """Raise UserError for a name that is not UTF-8, as checkpoints, stores and tables need."""
    check_utf8(str(root))
    for split in listing.splits.values():
        for path in () if split.in_memory else split.images:
            check_utf8(str(path))


def notes_of_alike_names(listing: Listing) -> tuple[str, ...]:
    """What to say of classes whose names differ in no more than case, spaces or invisible characters."""
    first: dict[str, str] = {}
    pairs = [
        (before, name)
        for name in listing.class_names
        if (before := first.setdefault(alike(name), name)) != name
    ]
    if not pairs:
        return ()
    more = f" ({len(pairs):,} such pairs in all)" if len(pairs) > 1 else ""
    return (
        f"the classes {pairs[0][0]!r} and {pairs[0][1]!r} differ only in case, spaces or invisible characters"
        f"{more}; each is a class of its own, so if they are one, write them alike",
    )


def check_no_lookalikes(listing: Listing, where: str) -> None:
    """Raise UserError for two classes whose names look the same; `where` is the table, root or source."""
    if (alike := lookalikes(listing.class_names)) is not None:
        advice = "put their images into one folder, or rename one"
        if not listing.folders:
            advice = "write both labels alike, or rename one"
        raise UserError(
            f"{where}: the classes {alike[0]!a} and {alike[1]!a} are the same name in two Unicode forms; "
            f"{advice}"
        )
