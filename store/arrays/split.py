"""A split of a store in memory, without its feature maps."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class SplitArrays:
    """A split in memory, without its feature maps.

    Attributes:
        label: (N,) int32, ascending.
        sample_index: (N,) int64.
        view: (N,) int16; 0 is the evaluation transform, others are augmented views of the same image.
        pooled: (N, C) float32.
        writeable_pooled: the same memory, writeable because torch warns about read-only arrays; nobody writes
            to it.
    """

    label: np.ndarray
    sample_index: np.ndarray
    view: np.ndarray
    pooled: np.ndarray
    writeable_pooled: np.ndarray = field(repr=False)

    def class_counts(self, n_classes: int) -> np.ndarray:
        """(K,) images of each class; views of one image count once."""
        return np.bincount(self.label[self.view == 0], minlength=n_classes)

    @property
    def n_views(self) -> int:
        """Views of each image."""
        return int(self.view.max()) + 1

    def take(self, rows: np.ndarray) -> "SplitArrays":
        """A copy of some rows, in the order of `rows`."""
        label, sample_index, view, pooled = (
            of[rows] for of in (self.label, self.sample_index, self.view, self.pooled)
        )
        taken = SplitArrays(label, sample_index, view, pooled.view(), pooled)
        for values in (label, sample_index, view, taken.pooled):
            values.setflags(write=False)
        return taken
