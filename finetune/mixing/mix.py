"""What makes new samples of drawn rows."""

from typing import Protocol

import numpy as np
import torch

from finetune.loading.features import Features
from finetune.loading.residency import Maps


class Mix(Protocol):
    """New samples in the batches of a window of T iterations, A in each, drawn already.

    Attributes:
        n_samples: A.
        n_empty: (2,) samples whose class-specific, and whose class-generic set of positions was empty; of a
            mix that has no such sets, zeros.
    """

    n_samples: int
    n_empty: np.ndarray

    def pooled(self, features: Features, maps: Maps | None) -> torch.Tensor:
        """(T, A, C) float32 features of the new samples, on the device or on the host.

        Raises:
            StoreError: feature maps cannot be read.
        """
