"""Leaving out images that cannot be decoded, from training and every later phase."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import Progress

from extract.config import DatasetConfig
from extract.images.image_set import ImageSet, find_unreadable
from extract.sources.listing import Listing
from extract.sources.registry import find_source
from store.errors import UserError
from store.names import composed, shown


def without_bad_images(
    listing: Listing, config: DatasetConfig, root: Path, progress: Progress | None
) -> tuple[Listing, DatasetConfig]:
    """Leave out images that cannot be decoded, if the description says so.

    Args:
        listing: the images with their names.
        config: the description; images that it lists as skipped are left out again, even if readable now.
        root: what names are relative to.
        progress: shows the search; None if it was made before.

    Returns:
        The rest, numbered as if all images were listed, including skipped ones that no longer exist; and the
        description with `skipped`.

    Raises:
        UserError: a class or a split without any readable image.
    """
    if not config.skip_bad_images or "skip_bad_images" not in find_source(config.source).options:
        return listing, config
    splits, skipped = dict(listing.splits), set(config.skipped)
    if progress is not None and not skipped:
        for name, split in splits.items():
            bad, found = find_unreadable(split.images, progress)
            skipped |= {split.name[row].decode() for row in bad}
            splits[name] = replace(split, **found)
    for name, split in splits.items():
        folder = listing.folders.get(name)
        left_out = {path.encode() for path in skipped if folder is None or path.startswith(folder)}
        splits[name] = _without(split, left_out, listing.class_names, folder)
    emptied = set(range(len(listing.class_names))) - set(splits["train"].label.tolist())
    if emptied:
        name = listing.class_names[min(emptied)]
        of_class = root / listing.folders["train"] / name if listing.folders else f"{root}: class {name}"
        raise UserError(f"{shown(str(of_class))}: no readable image is left in this class; add some")
    for name, split in splits.items():
        if not len(split):
            where = root / listing.folders[name] if listing.folders else f"{root}: {name}"
            raise UserError(f"{where}: no readable image is left in this split; add some")
    return replace(listing, splits=splits), replace(config, skipped=tuple(sorted(skipped)))


def _without(split: ImageSet, skipped: set[bytes], class_names: list[str], folder: str | None) -> ImageSet:
    """The split without the skipped images; the others keep their numbers.

    Args:
        split: all images.
        skipped: names, also of images that no longer exist, and for a table those of other splits.
        class_names: K names.
        folder: what names of the split begin with; None for a table, which also lists images that are gone.
    """
    left_out = np.fromiter((name in skipped for name in split.name), bool, len(split))
    gone = set() if folder is None else skipped - set(split.name[left_out].tolist())
    if not all(map(bytes.isascii, gone)):  # a copy may have them in another Unicode form
        respelt = {composed(name.decode()): name for name in gone}
        for row, name in enumerate(split.name):
            if (known := respelt.get(composed(name.decode()))) is not None:
                left_out[row] = True
                gone.discard(known)
    places = sorted(place for name in gone if (place := _place(split, name, class_names, folder)) is not None)
    before = np.searchsorted(places, np.arange(len(split)), side="right")
    split = replace(split, sample_index=split.sample_index + before)
    return split.take(np.flatnonzero(~left_out))


def _place(split: ImageSet, name: bytes, class_names: list[str], folder: str) -> int | None:
    """How many listed images come before one that is not listed; None if its class does not exist."""
    n_above = folder.count("/")  # 0 for classes directly below the root
    class_name, below = name.split(b"/", n_above + 1)[n_above:]
    in_form = [composed(class_name) for class_name in class_names]
    if composed(class_name.decode()) not in in_form:
        return None
    class_id = in_form.index(composed(class_name.decode()))
    first, end = np.searchsorted(split.label, [class_id, class_id + 1])
    of_class = split.name[first:end]
    if len(of_class):  # with this folder's Unicode form
        name = b"/".join([*of_class[0].split(b"/")[: n_above + 1], below])
    return int(first + np.searchsorted(of_class, np.bytes_(name)))
