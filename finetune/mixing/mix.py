"""The interface of a mix: new samples made from drawn rows."""

from typing import Protocol

import numpy as np
import torch

from finetune.loading.features import Features
from finetune.loading.residency import Maps


class Mix(Protocol):
    """The new samples of a window of T iterations, A in each batch; all random choices are made.

    If it also has `partner`, (T, A) int64 rows, and `label_share`, (T, A) float64, each new sample has two
    labels: that of its row with this weight, and that of its partner with the rest.

    Attributes:
        n_samples: A.
        n_empty: (2,) samples with an empty set of class-specific and of class-generic positions; zeros for a
            mix without such sets.
    """

    n_samples: int
    n_empty: np.ndarray

    def write(self, places: torch.Tensor, features: Features, maps: Maps | None) -> None:
        """Turn rows into new samples.

        Args:
            places: (T, A, C) float32 features of the last A rows of each batch; overwritten where these are
                replaced.
            features: the train split, on the same device.
            maps: its feature maps; None if the sampling does not read them.

        Raises:
            StoreError: feature maps cannot be read.
        """
