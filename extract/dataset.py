"""A data set: its description, and the images that it describes.

The description is saved in every checkpoint and store; the same splits can be made from it again.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from extract.config import DatasetConfig
from extract.images.decode import Reading
from extract.images.image_set import ImageSet, decode, decode_training, find_unreadable
from extract.images.preparation import IN_MEMORY_SIZE
from extract.proof.digest import digests_of
from extract.proof.fingerprint import fingerprint, source_fingerprint
from extract.sources.class_order import in_order
from extract.sources.folders import broken_links
from extract.sources.fractions import with_fractions
from extract.sources.groups.drawing import with_groups_held_out
from extract.sources.groups.named import with_groups
from extract.sources.groups.options import is_grouped
from extract.sources.groups.tracks import note_of_tracks
from extract.sources.listing import (
    Listing,
    check_no_lookalikes,
    check_utf8_names,
    notes_of_alike_names,
)
from extract.sources.longtail import split_source, tail_order
from extract.sources.presence import check_images_exist, source_root
from extract.sources.registry import find_source
from extract.sources.skipped import without_bad_images
from store.errors import UserError
from store.notes import note
from store.schema import SPLITS


@dataclass(frozen=True)
class Dataset:
    """The splits of a described data set.

    Attributes:
        config: the description, with its source, `skipped` and `tail_order` filled in.
        class_names: K names.
        train, val, test: the splits; val may be None.
        fingerprint: SHA-256 over class names, image names or bytes, labels and split membership.
        per_class: (K,) training images of each class, before a long-tailed subset or `val_per_class`; None if
            they were not listed.
        broken: links to nothing in class folders, relative to the root, by split; empty if not asked for.
        source_fingerprint: of a long-tailed subset, SHA-256 over all images that it was drawn from, which is
            that of other subsets of the source too; else None.
        record: what a checkpoint saves about the images, once known (`extract.proof.record`).
    """

    config: DatasetConfig
    class_names: list[str]
    train: ImageSet
    val: ImageSet | None
    test: ImageSet
    fingerprint: str
    per_class: np.ndarray | None = None
    broken: dict[str, list[str]] = field(default_factory=dict)
    source_fingerprint: str | None = None
    record: dict[str, dict[str, torch.Tensor]] | None = None

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) training images of each class."""
        return np.bincount(self.train.label, minlength=len(self.class_names))

    @property
    def splits(self) -> dict[str, ImageSet]:
        """The existing splits, by name."""
        present = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in present.items() if split is not None}


def load_dataset(config: DatasetConfig, image_size: int, progress: Progress) -> Dataset:
    """Make the splits of a description: list the source, drop skipped images, take the long tail, decode.

    Images of up to 64 pixels a side are decoded; larger ones stay paths.

    Raises:
        UserError: the images or the description cannot be used; the message names the cause.
    """
    return decoded(list_dataset(config, progress), image_size, progress)


def decoded(
    dataset: Dataset,
    image_size: int,
    progress: Progress,
    only: Collection[str] = SPLITS,
    reading: Reading | None = None,
) -> Dataset:
    """The same, with images of up to 64 pixels a side decoded in some splits.

    Args:
        dataset: listed.
        image_size: side of the images in pixels.
        progress: shows the reading of images.
        only: names of splits to decode; must include train without `reading`.
        reading: how files become 8-bit RGB; None derives it from the training images.

    Raises:
        UserError: an image cannot be decoded, or does not match its digest.
    """
    if image_size > IN_MEMORY_SIZE:
        return dataset
    files = {name: split for name, split in dataset.splits.items() if name in only and not split.in_memory}
    if reading is None and "train" in files:
        files["train"], reading = decode_training(files["train"], image_size, progress)
    images = {
        name: split if split.in_memory else decode(split, image_size, progress, name, reading)
        for name, split in files.items()
    }
    return replace(dataset, **images)


def list_dataset(
    config: DatasetConfig, progress: Progress, listed_before: bool = False, with_missing: bool = False
) -> Dataset:
    """Like `load_dataset`, without decoding: image files stay paths.

    Args:
        config: the description.
        progress: shows the search for images that cannot be decoded, if they should be skipped.
        listed_before: whether the data set was listed before: then only images in `skipped` are left out.
        with_missing: list also files that are not there, instead of raising an error, and find links to
            nothing.

    Raises:
        UserError: as in `load_dataset`, except for images that cannot be decoded.
    """
    check_images_exist(config)
    root = source_root(config)
    config = replace(
        config.with_absolute_files(), dataset=config.source, root=str(root) if root.parts else None
    )
    listing = find_source(config.source).list(root, config)
    if listing.missing is not None and not with_missing:
        raise UserError(listing.missing)
    check_utf8_names(listing, root)
    listing, config = _in_order(listing, config)
    listing = replace(listing, splits={name: _named(split, root) for name, split in listing.splits.items()})
    listing = with_groups(listing, config)
    _check_listing(listing, config, root, listed_before)
    said = (*listing.notes, *notes_of_alike_names(listing), *note_of_tracks(listing, config))
    for line in () if listed_before else said:
        note(line)
    listing, config = without_bad_images(listing, config, root, None if listed_before else progress)
    listing = _with_held_out(listing, config)
    per_class = np.bincount(listing.splits["train"].label, minlength=len(listing.class_names))
    splits, config = _split(listing, config, per_class)
    splits = {name: _narrowed(split) for name, split in splits.items()}
    is_subset = config.imbalance_factor is not None
    return Dataset(
        config,
        listing.class_names,
        splits["train"],
        splits.get("val"),
        splits["test"],
        fingerprint(listing.class_names, splits),
        per_class,
        _broken(listing, root) if with_missing else {},
        source_fingerprint=source_fingerprint(listing) if is_subset else None,
    )


def _broken(listing: Listing, root: Path) -> dict[str, list[str]]:
    """Links to nothing in the folders of each split."""
    return {
        split: [below + name for name in broken_links(root / below)]
        for split, below in listing.folders.items()
    }


def _in_order(listing: Listing, config: DatasetConfig) -> tuple[Listing, DatasetConfig]:
    """The listing in the order of classes that the config has; the order that it found in a file is kept."""
    if config.class_order is not None:
        where = config.class_names or "the checkpoint's own list of classes"
        return in_order(listing, config.class_order, where), config
    if config.class_names is not None:
        config = replace(config, class_order=tuple(listing.class_names))
    return listing, config


def _check_listing(listing: Listing, config: DatasetConfig, root: Path, listed_before: bool) -> None:
    """Raise UserError for errors that the slow search for bad images would not fix, before it starts."""
    if config.val_per_class and "val" in listing.splits:
        where = str(root / listing.folders["val"]) if listing.folders else f"{config.source}'s val split"
        raise UserError(f"{where}: exists, so --val-per-class must be 0; remove one of the two")
    if listed_before:
        return
    check_no_lookalikes(listing, config.train or config.root or config.source)
    if config.skip_bad_images:  # leaving out images never makes more of these options valid
        listing = _with_held_out(listing, config)
        label, n_classes = listing.splits["train"].label, len(listing.class_names)
        _drawn(label, n_classes, config)


def _with_held_out(listing: Listing, config: DatasetConfig) -> Listing:
    """The listing with splits held out by a fraction and, of whole groups, by a number."""
    hold_out = with_groups_held_out if is_grouped(config) else with_fractions
    return hold_out(listing, config)


def _split(
    listing: Listing, config: DatasetConfig, per_class: np.ndarray
) -> tuple[dict[str, ImageSet], DatasetConfig]:
    """The splits after taking the long tail and validation images; the config with the tail's order."""
    everything = listing.splits["train"]
    asked, factor = config, config.imbalance_factor
    if factor is not None and config.tail_order is None:
        config = replace(config, tail_order=tail_order(per_class))
    train_index, val_index = _drawn(everything.label, len(per_class), config)
    if config != asked and config.tail_order == "frequency":  # the user did not choose it
        val = f", and {len(val_index):,} for validation" if len(val_index) else ""
        note(
            f"--imbalance-factor {factor:g} keeps {len(train_index):,} of {len(everything):,} training images"
            f"{val}: the data are long-tailed already, so the subset follows the order of frequency, from "
            f"the smallest class's {per_class.min():,} images down (the largest has {per_class.max():,}); "
            "leave the option out to train on all"
        )
    splits = dict(listing.splits, train=everything.take(train_index))
    if len(val_index):
        splits["val"] = everything.take(val_index)
    return splits, config


def _drawn(label: np.ndarray, n_classes: int, config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation images among the source's training images, as `split_source`."""
    n_val = 0 if is_grouped(config) else config.val_per_class  # whole groups were held out before
    factor, order, seed = config.imbalance_factor, config.tail_order, config.subset_seed
    return split_source(label, n_classes, factor, n_val, order, seed)


def _named(split: ImageSet, root: Path) -> ImageSet:
    """The same, with the names of image files, or the digests of images in memory."""
    if split.in_memory:
        return replace(split, digest=digests_of(split.images))
    below = len(str(root / "x")) - 1
    names = [str(path)[below:].replace(os.sep, "/").encode() for path in split.images]
    return replace(split, name=np.array(names, dtype=bytes))


def _narrowed(split: ImageSet) -> ImageSet:
    """The same, with names and groups padded to the split's own longest: stores keep that width."""
    texts = {"name": split.name, "group": split.group}
    own = {key: of.astype(f"S{np.char.str_len(of).max()}") for key, of in texts.items() if of is not None}
    return replace(split, **own)


def check_readable(dataset: Dataset, progress: Progress) -> Dataset:
    """Decode every image that stays a file, so that a bad one is found now and not hours later.

    Returns:
        The same, with the digest and depth of every image.

    Raises:
        UserError: an image cannot be read; the message names the first, and how many there are.
    """
    splits, bad = dict(dataset.splits), {}
    for name, split in splits.items():
        if split.digest is None:
            of_split, found = find_unreadable(split.images, progress)
            bad |= {split.images[row]: message for row, message in of_split.items()}
            splits[name] = replace(split, **found)
    if bad:
        others = f"; {len(bad) - 1} more cannot be read" if len(bad) > 1 else ""
        raise UserError(bad[min(bad)] + others)
    return replace(dataset, **splits)
