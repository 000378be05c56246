"""Notes on a data set, for the user to read before training."""

from collections.abc import Sequence

import numpy as np

from extract.config import DatasetConfig
from extract.dataset import Dataset
from extract.sources.groups.options import is_grouped
from extract.sources.held_out import fractions_in_words
from extract.sources.registry import find_source
from store.names import shown
from store.notes import note

SHOWN = 5  # names in a note


def note_data(dataset: Dataset, with_mirroring: bool = True) -> None:
    """Note splits drawn by a fraction, empty classes, copies (if digests are known), and mirroring."""
    _note_fractions(dataset)
    _note_empty_classes(dataset)
    if dataset.train.digest is not None:
        note_copies(dataset)
    if with_mirroring:
        _note_mirroring(dataset.config)


def note_copies(dataset: Dataset) -> None:
    """Note held-out images with the content of training images, once all digests are known."""
    trained = np.ascontiguousarray(dataset.train.digest).view(np.uint64)
    for name, split in dataset.splits.items():
        if name != "train":
            digest = np.ascontiguousarray(split.digest).view(np.uint64)
            n_copies = int(np.logical_and(*(np.isin(digest[:, k], trained[:, k]) for k in (0, 1))).sum())
            if n_copies:
                note(
                    f"{n_copies:,} of {len(split):,} {name} images have the same content as training images, "
                    f"so accuracies on {name} are too high; `train --check-data` names them"
                )


def _note_mirroring(config: DatasetConfig) -> None:
    """Note that training images are mirrored, if only the user knows whether they may be."""
    if config.mirrored and find_source(config.source).mirrored is None:
        note(
            "half of the training images are mirrored; pass --no-flip if a mirror image is of another "
            "class or of none (signs, text, left and right)"
        )


def _note_fractions(dataset: Dataset) -> None:
    """Note how many images each split has, if a fraction of every class or whole groups were held out."""
    config = dataset.config
    asked, named = fractions_in_words(config), "images"
    if is_grouped(config) and config.val_per_class:
        asked = f"{asked} --val-per-class {config.val_per_class}".strip()
    if is_grouped(config):
        named = "groups, which stay whole,"
    if asked:
        what = {"train": "to train on", "val": "for validation", "test": "for testing"}
        parts = [f"{len(split):,} {what[name]}" for name, split in dataset.splits.items()]
        note(
            f"{asked}: {', '.join(parts)}; the names of {named} decide, so the held-out ones are the same "
            "for every seed"
        )


def note_skipped(skipped: Sequence[str], out: str) -> None:
    """Note the images that a training left out.

    Args:
        skipped: their names, relative to the data set's root.
        out: folder of the run, whose config.json lists them.
    """
    note_left_out(skipped, f"{out}/config.json lists")


def note_left_out(skipped: Sequence[str], listed: str) -> None:
    """Note images that were left out because they cannot be read; `listed` says what lists them all."""
    if skipped:
        where = f", … ({listed} all {len(skipped):,})" if len(skipped) > SHOWN else ""
        note(f"left out because they are unreadable: {', '.join(map(shown, skipped[:SHOWN]))}{where}")


def _note_empty_classes(dataset: Dataset) -> None:
    """Note the classes that have no images in a held-out split, where nothing is measured of them."""
    for name, split in dataset.splits.items():
        n_images = np.bincount(split.label, minlength=len(dataset.class_names))
        empty = [dataset.class_names[k] for k in np.flatnonzero(n_images == 0)]
        if empty:
            names = ", ".join(map(shown, empty[:SHOWN])) + (", …" if len(empty) > SHOWN else "")
            note(
                f"{len(empty)} of {len(n_images)} classes have no {name} images ({names}): accuracies on "
                f"{name} say nothing about them"
            )
