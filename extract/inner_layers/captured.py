"""Keeping what inner layers of a network return, as it is stored, while batches run through it."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn

from extract.inference.transfer import Tensors
from extract.inner_layers.found import module_of
from extract.networks.parts import Network
from store.errors import UserError
from store.schema import maps_name

EXTREMES = "extremes"  # the lowest and highest value of a batch's maps, which are not stored


class CapturedLayers(AbstractContextManager):
    """Keeps what some modules of a network return while it is entered; the network computes what it would.

    What is kept is a copy, made when a module returns: an activation behind it may work in place.
    """

    def __init__(self, network: Network, dtypes: Mapping[str, torch.dtype]):
        """The layers to keep of a network, and the dtypes to keep them in, by the layer's name."""
        self._network, self._dtypes = network, dtypes
        self._kept: dict[str, list[torch.Tensor]] = defaultdict(list)

    def __enter__(self) -> "CapturedLayers":
        self._hooks = [
            module_of(self._network, layer).register_forward_hook(partial(self._keep, layer, dtype))
            for layer, dtype in self._dtypes.items()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, layer: str, dtype: torch.dtype, module: nn.Module, args: Any, maps: torch.Tensor) -> None:
        name, channels_last = maps_name(layer), maps.detach().permute(0, 2, 3, 1)
        copy = channels_last.to(dtype, memory_format=torch.contiguous_format, copy=True)
        self._kept[name].append(copy)
        self._kept[extremes_of(name)].append(torch.stack(maps.aminmax()).double()[None])

    def take(self, n_images: int) -> Tensors:
        """What was kept of a batch that went through in one piece or in several.

        Returns:
            Maps (B, H, W, C) and their extremes (pieces, 2) of each layer, by name in the store.

        Raises:
            UserError: a layer did not run once for each image.
        """
        kept = {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in self._kept.items()}
        self._kept.clear()
        for layer in self._dtypes:
            found = len(kept.get(maps_name(layer), ()))
            if found != n_images:
                raise UserError(
                    f"--layers {layer}: returned maps of {found} images in a batch of {n_images}, so it does "
                    "not run once in each pass; leave it out"
                )
        return kept


def extremes_of(maps: str) -> str:
    """The name of the lowest and highest value of maps, by the name of the maps."""
    return f"{EXTREMES} of {maps}"
