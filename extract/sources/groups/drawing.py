"""Held-out splits of whole groups, chosen by nothing but the names of groups.

As with single images (`extract.sources.fractions`), a fixed hash places a group between 0 and 1, and those
below the fraction are held out. Then groups are moved so that every class has images for training and, as far
as it has enough groups, in every held-out split. A group may hold images of several classes.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from extract.sources.fractions import places_of
from extract.sources.groups.options import groups_in_words
from extract.sources.held_out import fractions_in_words, fractions_of
from extract.sources.listing import Listing
from store.errors import UserError
from store.names import shown

TRAIN = 0  # the number of a split; held-out ones follow


class Groups:
    """The groups of a listing's training images, and the split that each is in.

    Attributes:
        names: (G,) bytes.
        of_image: (N,) int64, the group of each image.
        split: (G,) int64, numbers of splits.
    """

    def __init__(self, group: np.ndarray, label: np.ndarray, n_classes: int, n_splits: int):
        self.names, self.of_image = np.unique(group, return_inverse=True)
        self.places = places_of(self.names)
        self.split = np.zeros(len(self.names), np.int64)
        pairs, sizes = np.unique(self.of_image * n_classes + label, return_counts=True)
        self._classes: list[dict[int, int]] = [{} for _ in self.names]  # images by class, of each group
        self._groups: list[list[int]] = [[] for _ in range(n_classes)]  # of each class, in order of place
        for pair, n_images in zip(pairs.tolist(), sizes.tolist(), strict=True):
            self._classes[pair // n_classes][pair % n_classes] = n_images
        for group_id in np.argsort(self.places, kind="stable").tolist():
            for class_id in self._classes[group_id]:
                self._groups[class_id].append(group_id)
        self._n_groups = np.zeros((n_splits, n_classes), np.int64)
        self._n_groups[TRAIN] = [len(of_class) for of_class in self._groups]

    def of_class(self, class_id: int, split: int) -> list[int]:
        """The groups with images of a class in a split, in order of place."""
        return [group for group in self._groups[class_id] if self.split[group] == split]

    def n_of(self, class_id: int, split: int) -> int:
        """How many groups of a class are in a split."""
        return int(self._n_groups[split, class_id])

    def n_images(self, group: int, class_id: int) -> int:
        """Images of a class in a group."""
        return self._classes[group][class_id]

    def move(self, group: int, split: int) -> None:
        """Put a group into a split."""
        classes = list(self._classes[group])
        self._n_groups[self.split[group], classes] -= 1
        self._n_groups[split, classes] += 1
        self.split[group] = split

    def is_spare(self, group: int) -> bool:
        """Whether every class of a group has another group in its split."""
        return bool((self._n_groups[self.split[group], list(self._classes[group])] > 1).all())


def with_groups_held_out(listing: Listing, config: Any) -> Listing:
    """The listing with the held-out splits that the DatasetConfig `config` asks for, of whole groups.

    `--val-per-class` holds out the fewest groups that have as many images of a class.

    Args:
        listing: the images with their names and groups.
        config: the description.

    Raises:
        UserError: a split would be empty, or a class has too few groups for `--val-per-class`.
    """
    fractions = fractions_of(config)
    held_out = [*fractions, *(["val"] if config.val_per_class else [])]
    if not held_out:
        return listing
    train, n_classes = listing.splits["train"], len(listing.class_names)
    groups = Groups(train.group, train.label, n_classes, 1 + len(held_out))
    _hold_out_fractions(groups, list(fractions.values()), n_classes)
    if config.val_per_class:
        for class_id, class_name in enumerate(listing.class_names):
            _hold_out_number(groups, class_id, class_name, config, len(held_out))
    of_image = groups.split[groups.of_image]
    drawn = {
        name: train.take(np.flatnonzero(of_image == number))
        for number, name in enumerate(["train", *held_out])
    }
    for name, split in drawn.items():
        if not len(split):
            raise UserError(
                f"{fractions_in_words(config)} {groups_in_words(config)}: the {name} split would be empty, "
                f"for all {len(train):,} images are in {_counted(len(groups.names))}; name smaller groups, "
                "or leave the option out"
            )
    return replace(listing, splits=listing.splits | drawn)


def _counted(n_groups: int) -> str:
    return f"{n_groups:,} group{'s' * (n_groups != 1)}"


def _hold_out_fractions(groups: Groups, fractions: list[float], n_classes: int) -> None:
    bounds = np.cumsum(fractions)
    numbers = np.searchsorted(bounds, groups.places, side="right") + 1  # of the split, or one beyond
    for group in np.flatnonzero(numbers <= len(fractions)).tolist():
        groups.move(group, int(numbers[group]))
    for class_id in range(n_classes):
        if not groups.n_of(class_id, TRAIN):
            last = [g for split in range(1, len(fractions) + 1) for g in groups.of_class(class_id, split)][-1]
            groups.move(last, TRAIN)
    for split in range(1, len(fractions) + 1):
        for class_id in range(n_classes):
            if not groups.n_of(class_id, split):
                spare = next(_spare(groups, class_id, split, len(fractions)), None)
                if spare is not None:
                    groups.move(spare, split)


def _spare(groups: Groups, class_id: int, split: int, n_held_out: int) -> Iterator[int]:
    """Groups of a class that could go to a split, those for training first."""
    for other in range(n_held_out + 1):
        if other != split:
            yield from filter(groups.is_spare, groups.of_class(class_id, other))


def _hold_out_number(groups: Groups, class_id: int, class_name: str, config: Any, split: int) -> None:
    missing = config.val_per_class - sum(
        groups.n_images(group, class_id) for group in groups.of_class(class_id, split)
    )
    for group in groups.of_class(class_id, TRAIN):
        if missing > 0 and groups.is_spare(group):
            groups.move(group, split)
            missing -= groups.n_images(group, class_id)
    if missing > 0:
        found = [g for number in (TRAIN, split) for g in groups.of_class(class_id, number)]
        n_images = sum(groups.n_images(group, class_id) for group in found)
        raise UserError(
            f"--val-per-class {config.val_per_class} {groups_in_words(config)}: class {shown(class_name)} "
            f"has {n_images:,} images in {_counted(len(found))} for training and validation, and at least "
            "one group of every class must remain for training"
        )
