"""Head-to-tail fusion (H2T, Li et al. 2024): channels of a row replaced by those of another row.

Swapping whole channels of feature maps commutes with average pooling, so pooled features are enough.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from array_api_compat import array_namespace

from finetune.mixing.pooled import Partnered
from finetune.sampling.arrays import Array
from finetune.sampling.philox import below
from finetune.sampling.plan import PlanInputs

if TYPE_CHECKING:  # the command line imports this for the methods' names and must not wait for torch
    import torch


@dataclass(frozen=True)
class ChannelSwap(Partnered):
    """Samples that are each a row with some channels of a partner; see `Partnered`.

    Attributes:
        channels: (T, n) int64 the channels of the partner, the same for all samples of a batch.
    """

    channels: Array

    def weight_of_partner(self, places: "torch.Tensor") -> "torch.Tensor":
        """(T, 1, C): 1 for a channel of the partner, 0 for one of the row."""
        import torch

        channels = torch.as_tensor(self.channels, device=places.device)
        weight = places.new_zeros(len(channels), 1, places.shape[2])
        return weight.scatter_(2, channels[:, None], 1)


def swapped(
    inputs: PlanInputs, start: int, stop: int, row: Array, is_mixed: Array | None, batch: Array
) -> ChannelSwap:
    """Partners drawn uniformly from all rows, and floor(ρ · C) channels of each batch, all sets alike."""
    partner = below(inputs.draws.uniform("partner row", start, stop, row.shape[1]), len(inputs.label))
    keys = inputs.draws.uniform("order of channels", start, stop, inputs.mixing.n_channels)
    order = array_namespace(keys).argsort(keys, axis=-1, stable=True)
    return ChannelSwap(row, is_mixed, partner, order[:, : inputs.mixing.n_swapped])
