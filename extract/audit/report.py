"""What is wrong with a data set, found by reading every image that training would use."""

from dataclasses import dataclass, replace
from heapq import nsmallest

import numpy as np
from rich.progress import Progress

from extract.audit.copies import Copies, find_copies
from extract.audit.reading import EMPTY, GOOD, MISSING, UNREADABLE, ReadImages, read_all
from extract.config import DatasetConfig
from extract.dataset import Dataset, list_dataset
from store.names import shown

SHOWN = 3  # of each kind of fault
NO_IMAGES = "classes without images"
OF_FILES = {MISSING: "missing", EMPTY: "empty files", UNREADABLE: "unreadable"}
OF_COPIES = {
    "repeated": "copies of an earlier image of the split",
    "in_two_splits": "same content in another split",
    "in_two_classes": "same content in another class",
}


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        kind: in words.
        counts: by split, how many images have it; of NO_IMAGES, how many classes.
        examples: the first few in words; of copies, each names all images with one content.
        n_examples: how many there are in all.
    """

    kind: str
    counts: dict[str, int]
    examples: list[str]
    n_examples: int


@dataclass(frozen=True)
class DataReport:
    """The faults of a data set.

    Attributes:
        place: the root, or the source.
        n_classes: K.
        n_images: by split, with links to nothing.
        faults: every kind, whether found or not; NO_IMAGES first.
        n_bad: how many images have any.
    """

    place: str
    n_classes: int
    n_images: dict[str, int]
    faults: list[Fault]
    n_bad: int

    @property
    def n_lacking(self) -> int:
        """How often a class has no images in a split."""
        return self.faults[0].n_examples

    @property
    def is_sound(self) -> bool:
        """Whether there is no fault."""
        return not any(fault.n_examples for fault in self.faults)


def check_data(config: DatasetConfig, progress: Progress) -> DataReport:
    """Read every image that training would use, and look for faults; images are not kept, digests are.

    Images that `skip_bad_images` would leave out are reported all the same. Copies are files with the same
    bytes (or, in memory, the same pixels), not images that look alike.

    Args:
        config: the description.
        progress: shows the reading.

    Raises:
        UserError: the data set cannot be listed.
    """
    dataset = list_dataset(replace(config, skip_bad_images=False), progress, with_missing=True)
    images = read_all(dataset, progress)
    good = np.flatnonzero(images.state == GOOD)
    copies = find_copies(images.digest[good], images.label[good], images.split[good])
    bad = images.state != GOOD
    for name in OF_COPIES:
        bad[good] |= getattr(copies, name)
    return DataReport(
        dataset.config.root or dataset.config.source,
        len(dataset.class_names),
        {name: len(split) + len(dataset.broken.get(name, ())) for name, split in dataset.splits.items()},
        [
            _without_images(dataset),
            *(_of_files(images, state) for state in OF_FILES),
            *(_of_copies(images, copies, good, name) for name in OF_COPIES),
        ],
        int(bad.sum()) + sum(map(len, dataset.broken.values())),
    )


def _without_images(dataset: Dataset) -> Fault:
    empty = {
        name: np.setdiff1d(np.arange(len(dataset.class_names)), split.label)
        for name, split in dataset.splits.items()
    }
    words = [
        f"{shown(dataset.class_names[k])} ({name})" for name, of_split in empty.items() for k in of_split
    ]
    counts = {name: len(of_split) for name, of_split in empty.items()}
    return Fault(NO_IMAGES, counts, words[:SHOWN], len(words))


def _of_files(images: ReadImages, state: int) -> Fault:
    found = np.flatnonzero(images.state == state)
    first = nsmallest(SHOWN, found.tolist(), key=images.name)  # the order of training images is random
    words = [images.reason.get(index, images.name(index)) for index in first]
    counts = _by_split(images, found)
    if state == MISSING:
        broken = images.dataset.broken
        words += [f"{shown(name)} (a broken link)" for names in broken.values() for name in names]
        counts = {split: n + len(broken.get(split, ())) for split, n in counts.items()}
    return Fault(OF_FILES[state], counts, words[:SHOWN], sum(counts.values()))


def _of_copies(images: ReadImages, copies: Copies, good: np.ndarray, name: str) -> Fault:
    which = getattr(copies, name)
    groups = copies.groups(which)
    words = [_group_in_words(images, good[group]) for group in groups[:SHOWN]]
    return Fault(OF_COPIES[name], _by_split(images, good[which]), words, len(groups))


def _group_in_words(images: ReadImages, group: np.ndarray) -> str:
    first = nsmallest(SHOWN, group.tolist(), key=lambda index: (images.split[index], images.name(index)))
    names = [images.name_in_class(index) for index in first]
    more = len(group) - len(names)
    return " = ".join(names) + (f" = {more:,} more" if more else "")


def _by_split(images: ReadImages, found: np.ndarray) -> dict[str, int]:
    counts = np.bincount(images.split[found], minlength=len(images.dataset.splits))
    return dict(zip(images.dataset.splits, counts.tolist(), strict=True))
