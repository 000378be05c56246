"""Images with the same content, found from digests alone, so that millions fit in memory."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Copies:
    """Which of N images have the same content as others.

    Attributes:
        content: (N,) int64, the same number for the same content.
        repeated: (N,) bool, whether an earlier image of the same split has the same content.
        in_two_splits: (N,) bool, whether an image of another split has the same content.
        in_two_classes: (N,) bool, whether an image of another class has the same content, in any split.
    """

    content: np.ndarray
    repeated: np.ndarray
    in_two_splits: np.ndarray
    in_two_classes: np.ndarray

    def groups(self, which: np.ndarray) -> list[np.ndarray]:
        """For each content of images in `which`, (N,) bool: the indices of all images that have it."""
        members = np.flatnonzero(np.isin(self.content, self.content[which]))
        members = members[np.argsort(self.content[members], kind="stable")]
        groups = np.split(members, np.flatnonzero(np.diff(self.content[members])) + 1)
        return sorted((group for group in groups if len(group)), key=lambda group: group[0])


def find_copies(digest: np.ndarray, label: np.ndarray, split: np.ndarray) -> Copies:
    """Compare images by digest.

    Args:
        digest: (N, 16) uint8.
        label: (N,) integers, the class of each image.
        split: (N,) integers, the split of each image.
    """
    halves = np.ascontiguousarray(digest).view(np.uint64)
    order = np.lexsort(halves.T)
    ordered = halves[order]
    content = np.empty(len(digest), np.int64)
    content[order] = np.cumsum(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)][: len(order)]) - 1
    n_contents = int(content.max()) + 1 if len(content) else 0
    by_split = np.lexsort((np.arange(len(split)), split, content))
    same = (np.diff(content[by_split]) == 0) & (np.diff(split[by_split]) == 0)
    repeated = np.zeros(len(digest), bool)
    repeated[by_split[1:][same]] = True
    return Copies(content, repeated, _differ(split, content, n_contents), _differ(label, content, n_contents))


def _differ(values: np.ndarray, content: np.ndarray, n_contents: int) -> np.ndarray:
    """(N,) bool, whether images with an image's content have different values."""
    least = np.full(n_contents, np.iinfo(np.int64).max)
    most = np.full(n_contents, -1, np.int64)
    np.minimum.at(least, content, values)
    np.maximum.at(most, content, values)
    return (least != most)[content]
