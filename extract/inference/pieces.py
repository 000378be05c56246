"""Batches through a network: on CPUs in pieces, two at a time, each on half of the cores.

The threads of a layer wait for each other at its end. Beside processes that decode images one of them is
always late, and small layers are over before all threads have begun; two passes at a time keep cores at work.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from functools import partial
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn

from extract.device import MOST_MMAP_THRESHOLD, Compute, set_threads_here
from extract.networks.parts import Network

SIDE_BY_SIDE = 2
LEAST = 16  # images of a piece where more would fit: smaller ones take longer in all
Begun = torch.Tensor | list[Future[torch.Tensor]]


@contextmanager
def in_pieces(
    network: Network, compute: Compute, watched: AbstractContextManager | None = None
) -> Iterator["Pieces"]:
    """What takes batches of one size through a network; its threads live as long as the block.

    In evaluation no image is looked at with the rest of its batch, so the maps are those of the whole batch.

    Args:
        network: in evaluation, on the device.
        watched: entered while each batch runs through the network, all of its pieces and nothing else; they
            then run in turn, through the network itself, for hooks see one piece at a time.
    """
    pieces = Pieces(network, compute, watched)
    try:
        yield pieces
    finally:
        pieces.close()


class Pieces:
    """The threads of a pass, and a network for each; see `in_pieces`.

    Attributes:
        n_ahead: batches to begin before the first of them is asked for, so that cores are never idle.
    """

    def __init__(self, network: Network, compute: Compute, watched: AbstractContextManager | None):
        self._network, self._compute, self._watched = network, compute, watched
        self._n_cores, on_cpu = torch.get_num_threads(), compute.device.type == "cpu"
        self.n_ahead = int(on_cpu and self._n_cores > 1 and watched is None and network.is_known)
        self._most: int | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._free: SimpleQueue[nn.Module] = SimpleQueue()

    @torch.inference_mode()
    def begin(self, images: torch.Tensor) -> Begun:
        """Begin with normalised images (B, 3, H, W), which stay as they are until `end`."""
        images = images.contiguous(memory_format=self._compute.memory_format)
        pieces = images.tensor_split(self._n_pieces(images))
        if self._threads is not None:
            return [self._threads.submit(self._in_thread, piece) for piece in pieces]
        with nullcontext() if self._watched is None else self._watched:
            return _joined([self._through(self._network.features, piece) for piece in pieces])

    @torch.inference_mode()
    def end(self, begun: Begun) -> torch.Tensor:
        """The feature maps (B, C, H', W') of a batch that was begun."""
        return begun if isinstance(begun, torch.Tensor) else _joined([piece.result() for piece in begun])

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The feature maps of a batch."""
        return self.end(self.begin(images))

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _n_pieces(self, images: torch.Tensor) -> int:
        if self._compute.device.type != "cpu":
            return 1
        if self._most is None:
            self._start()
            look = partial(images_at_once, self._network, images, self._compute)
            # By a thread, if there are any: all cores would wait for each other longer than one image takes.
            self._most = look() if self._threads is None else self._threads.submit(look).result()
        return n_pieces(len(images), self._most)

    def _start(self) -> None:
        """Start threads, now that processes that decode images have been forked."""
        if self.n_ahead and self._threads is None:  # they are there if the first look failed
            self._free.put(self._network.features)
            self._free.put(_twin(self._network.features))
            share = -(-self._n_cores // SIDE_BY_SIDE)
            self._threads = ThreadPoolExecutor(SIDE_BY_SIDE, "features", set_threads_here, (share,))

    def _in_thread(self, piece: torch.Tensor) -> torch.Tensor:
        features = self._free.get()
        try:
            with torch.inference_mode():  # of this thread
                return self._through(features, piece)
        finally:
            self._free.put(features)

    def _through(self, features: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with self._compute.autocast():
            return features(images)


def _joined(maps: list[torch.Tensor]) -> torch.Tensor:
    return maps[0] if len(maps) == 1 else torch.cat(maps)


def n_pieces(n: int, most: int) -> int:
    """In how many pieces n images go, each of `most` or fewer: a power of two, which shares out evenly, or n.

    The same on every machine, since maps may depend on it in their last bit.
    """
    pieces = SIDE_BY_SIDE if n >= SIDE_BY_SIDE * LEAST else 1
    while -(-n // pieces) > most:
        pieces *= 2
    return min(pieces, n)  # an empty piece is refused by many networks


@torch.inference_mode()
def images_at_once(network: Network, images: torch.Tensor, compute: Compute) -> int:
    """How many images of a size a CPU passes through a network at a time.

    As many as make no tensor between two layers larger than the blocks that the C library keeps. Larger ones,
    of 128 photographs a hundred MB, would be new memory for each layer, which the kernel clears first.
    """
    largest = 1

    def look(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.nbytes)

    modules = (module for module in network.modules() if not isinstance(module, torch.jit.ScriptModule))
    hooks = [module.register_forward_hook(look) for module in modules]  # ScriptModules take none
    try:
        with compute.autocast():
            network.features(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, MOST_MMAP_THRESHOLD // largest)


def _twin(features: nn.Module) -> nn.Module:
    """The same network with modules of its own, for another thread; weights and statistics are shared."""
    tensors = (*features.parameters(), *features.buffers())
    return deepcopy(features, {id(tensor): tensor for tensor in tensors})
