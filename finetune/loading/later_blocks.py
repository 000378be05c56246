"""The blocks of Phase I's network behind a layer: from maps of that layer to pooled features."""

from pathlib import Path

import numpy as np
import torch

from extract.checkpoints.checkpoint import Checkpoint
from extract.networks.parts import Network
from finetune.loading.residency import VectorMaps
from finetune.sampling.arrays import Array
from store.errors import UserError
from store.reader import FeatureStore

TRIED = 4  # maps of the store that must give the store's features
TOLERANCE = 0.05  # of the largest feature: maps in 8 bits are some 0.01 off, another network by much more


class LaterBlocks:
    """Runs a network from a layer on.

    The layer's output is replaced in a pass of one black image, so any network can be run this way in which
    nothing else from before the layer reaches what comes after it; `check` finds out.
    """

    def __init__(self, network: Network, layer: str, image_size: int, device: torch.device):
        from extract.inner_layers.found import module_of  # imports torchvision, which other runs do without

        self._network, self._layer, self._module = network.to(device), layer, module_of(network, layer)
        self._image = torch.zeros(1, 3, image_size, image_size, device=device)

    @torch.inference_mode()
    def pooled(self, maps: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, C) float32 of maps (B, H, W, C') of the layer, on the network's device."""
        given = maps.to(self._image.device, torch.float32).permute(0, 3, 1, 2)
        hook = self._module.register_forward_hook(lambda module, args, output: given)
        try:
            return self._network.pooled(self._image)
        finally:
            hook.remove()

    def check(self, store: FeatureStore) -> None:
        """Raise UserError if maps of the store do not give the features in it."""
        of_store = store.read("train").pooled
        rows = np.linspace(0, len(of_store) - 1, TRIED).astype(np.int64)
        maps = store.feature_map(rows, layer=self._layer).astype(np.float32)
        try:
            found = self.pooled(torch.from_numpy(maps)).cpu().numpy()
        except Exception as error:  # another program's network may fail in any way
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise self._refused(f"fails ({said[:100]})") from error
        if found.shape != (TRIED, of_store.shape[1]):
            raise self._refused("does not return one feature for each map")
        away = np.abs(found - of_store[rows]).max() / np.abs(of_store[rows]).max()
        if not away <= TOLERANCE:
            raise self._refused(f"gives features that are {100 * away:.3g} % off those in the store")

    def _refused(self, why: str) -> UserError:
        return UserError(
            f"--fuse-after {self._layer}: running the network from there {why}, so what comes later depends "
            "on more than its maps; fuse after another layer"
        )


def later_blocks(phase1: Checkpoint, layer: str, store: FeatureStore, device: torch.device) -> LaterBlocks:
    """The blocks of the network that a store was extracted with, behind one of the layers that it holds.

    Raises:
        UserError: the network cannot be run from there on.
    """
    from extract.checkpoints.restore import restore_network  # imports torchvision too

    network = restore_network(phase1, Path(str(store.path)))
    later = LaterBlocks(network, layer, phase1.transform["image_size"], device)
    later.check(store)
    return later


class MapsBeforeLaterBlocks:
    """Maps of an earlier layer, whose vectors are put in place and sent through the later blocks."""

    def __init__(self, maps: VectorMaps, later: LaterBlocks, shape: tuple[int, int, int]):
        """Maps of a layer, the blocks behind it, and the shape (H, W, C) of a map."""
        self._maps, self._later, self._shape = maps, later, shape

    def fused(self, vectors: Array, *rows: Array) -> torch.Tensor:
        """Pooled features (T, A, C) of maps that are made of vectors (T, A, L), by position; see `Maps`.

        Each batch goes through the network by itself, so that no bit depends on the window.
        """
        made = []
        for of_batch in zip(vectors, *rows, strict=True):
            maps = self._maps.picked(*of_batch)
            made.append(self._later.pooled(maps.reshape(len(maps), *self._shape)))
        return torch.stack(made)
