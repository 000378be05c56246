"""Head-to-tail fusion (H2T, Li et al. 2024): channels of a row replaced by those of another row.

Swapping whole channels of feature maps commutes with average pooling, so pooled features are enough.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from finetune.sampling.arrays import Array
from finetune.sampling.philox import below
from finetune.sampling.plan import PlanInputs

if TYPE_CHECKING:  # the command line imports this for the methods' names and must not wait for torch
    import torch

    from finetune.loading.features import Features
    from finetune.loading.residency import Maps


@dataclass(frozen=True)
class ChannelSwap:
    """Samples that are each a row with some channels of a partner; see `Mix`.

    Attributes:
        row: (T, A) int64 rows.
        partner: (T, A) int64 rows that lend channels.
        channels: (T, n) int64 the channels that they lend, the same for all samples of a batch.
        is_mixed: (T, A) bool, which samples are needed; None for all.
    """

    row: Array
    partner: Array
    channels: Array
    is_mixed: Array | None

    @property
    def n_samples(self) -> int:
        """A."""
        return self.row.shape[1]

    @property
    def n_empty(self) -> np.ndarray:
        """See `Mix`."""
        return np.zeros(2, np.int64)

    def write(self, places: "torch.Tensor", features: "Features", maps: "Maps | None") -> None:
        """See `Mix`."""
        import torch

        from finetune.mixing.mix import blend

        partner, channels, is_mixed = (
            None if part is None else torch.as_tensor(part, device=places.device)
            for part in (self.partner, self.channels, self.is_mixed)
        )
        lent = torch.zeros(len(partner), 1, places.shape[2], device=places.device)
        blend(places, features, partner, lent.scatter_(2, channels[:, None], 1), is_mixed)


def swapped(
    inputs: PlanInputs, start: int, stop: int, row: Array, is_mixed: Array | None, batch: Array
) -> ChannelSwap:
    """Partners drawn uniformly from all rows, and floor(ρ · C) channels of each batch, all sets alike."""
    partner = below(inputs.draws.uniform("partner row", start, stop, row.shape[1]), len(inputs.label))
    keys = inputs.draws.uniform("order of channels", start, stop, inputs.mixing.n_channels)
    order = array_namespace(keys).argsort(keys, axis=-1, stable=True)
    return ChannelSwap(row, partner, order[:, : inputs.mixing.n_swapped], is_mixed)
