"""Mixes of pooled features, which need no feature maps; among them those that move rows towards partners."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.sampling.arrays import Array

if TYPE_CHECKING:  # the command line imports this for the methods' names and must not wait for torch
    import torch

    from finetune.loading.features import Features
    from finetune.loading.residency import Maps


@dataclass(frozen=True)
class PooledMix(ABC):
    """Samples that are each made of the pooled feature of a row; see `Mix`.

    Attributes:
        row: (T, A) int64 rows.
        is_mixed: (T, A) bool, which samples are needed; None for all.
    """

    row: Array
    is_mixed: Array | None

    @property
    def n_samples(self) -> int:
        """A."""
        return self.row.shape[1]

    @property
    def n_empty(self) -> np.ndarray:
        """See `Mix`."""
        return np.zeros(2, np.int64)

    @abstractmethod
    def write(self, places: "torch.Tensor", features: "Features", maps: "Maps | None") -> None:
        """See `Mix`."""


@dataclass(frozen=True)
class Partnered(PooledMix):
    """Samples that are each a row moved towards a partner, by weights that a subclass has.

    Attributes:
        partner: (T, A) int64 rows that they are mixed with.
    """

    partner: Array

    @abstractmethod
    def weight_of_partner(self, places: "torch.Tensor") -> "torch.Tensor":
        """(T, A, 1) or (T, 1, C) float32, 0 to 1, on the device of the places; 0 and 1 are exact."""

    def write(self, places: "torch.Tensor", features: "Features", maps: "Maps | None") -> None:
        """See `Mix`."""
        import torch

        partner = torch.as_tensor(self.partner, device=places.device)
        weight = self.weight_of_partner(places)
        if self.is_mixed is None:
            places.lerp_(features.rows(partner), weight)
            return
        needed = torch.as_tensor(self.is_mixed, device=places.device)
        weight = weight.expand(*partner.shape, -1)[needed]
        places[needed] = places[needed].lerp_(features.rows(partner[needed]), weight)
