"""Every image of a data set, read once: its digest, or why it has none."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from extract.dataset import Dataset
from extract.images.image_set import ADVICE, find_unreadable
from store.names import shown

GOOD, MISSING, EMPTY, UNREADABLE = range(4)


@dataclass(frozen=True)
class ReadImages:
    """The N images of all splits, one after the other.

    Attributes:
        dataset: the data set.
        split: (N,) int64, the position of each image's split among the data set's.
        label: (N,) int64 classes.
        digest: (N, 16) uint8, of the content; zeros for an image that is not good.
        state: (N,) int8, GOOD, MISSING, EMPTY or UNREADABLE.
        reason: why an image is UNREADABLE, by its index.
    """

    dataset: Dataset
    split: np.ndarray
    label: np.ndarray
    digest: np.ndarray
    state: np.ndarray
    reason: dict[int, str]

    def name(self, index: int) -> str:
        """The name of an image: its path below the root or, in memory, its split and number."""
        splits = self.dataset.splits
        row = index - int(np.searchsorted(self.split, self.split[index]))
        split_name = list(splits)[self.split[index]]
        split = splits[split_name]
        if split.name is None:
            return f"{split_name} image {split.sample_index[row]}"
        return shown(split.name[row].decode())

    def name_in_class(self, index: int) -> str:
        """The same with the names of its split and its class."""
        split_name = list(self.dataset.splits)[self.split[index]]
        class_name = shown(self.dataset.class_names[self.label[index]])
        return f"{self.name(index)} ({split_name}, {class_name})"


def read_all(dataset: Dataset, progress: Progress) -> ReadImages:
    """Read and decode every image; of files, only digests are kept."""
    digests, states, reason, start = [], [], {}, 0
    for split in dataset.splits.values():
        digest, state = split.digest, np.zeros(len(split), np.int8)
        if not split.in_memory:
            bad, found = find_unreadable(split.images, progress)
            digest = found["digest"]
            for row, message in bad.items():
                state[row] = _state(split.images[row])
                if state[row] == UNREADABLE:
                    reason[start + row] = message.removesuffix(ADVICE)
        digests.append(digest)
        states.append(state)
        start += len(split)
    sizes = [len(split) for split in dataset.splits.values()]
    return ReadImages(
        dataset,
        np.repeat(np.arange(len(sizes)), sizes),
        np.concatenate([split.label for split in dataset.splits.values()]),
        np.concatenate(digests),
        np.concatenate(states),
        reason,
    )


def _state(path: Path) -> int:
    """Why an image could not be read."""
    try:
        return UNREADABLE if path.read_bytes() else EMPTY
    except FileNotFoundError:
        return MISSING
    except OSError:
        return UNREADABLE
