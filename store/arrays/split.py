"""What a split of a store holds besides its feature maps, in memory."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class SplitArrays:
    """What a split holds besides its maps, in memory.

    Attributes:
        label: (N,) int32, ascending.
        sample_index: (N,) int64.
        view: (N,) int16; 0 is the evaluation transform, others are augmented views of the same image.
        pooled: (N, C) float32.
        writeable_pooled: the same memory, for torch, which warns of any other; nobody writes to it.
    """

    label: np.ndarray
    sample_index: np.ndarray
    view: np.ndarray
    pooled: np.ndarray
    writeable_pooled: np.ndarray = field(repr=False)

    def class_counts(self, n_classes: int) -> np.ndarray:
        """(K,) images of each class, whatever the number of views of each."""
        return np.bincount(self.label[self.view == 0], minlength=n_classes)

    @property
    def n_views(self) -> int:
        """Views of each image."""
        return int(self.view.max()) + 1
