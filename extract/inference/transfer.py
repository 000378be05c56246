"""Copies between host and GPU that do not hold it up: through pinned memory, while it computes.

A copy from or to ordinary memory waits for everything that was asked of the GPU before, and is ten times
slower.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

Place, Copy, Result = TypeVar("Place"), TypeVar("Copy"), TypeVar("Result")
Tensors = dict[str, torch.Tensor]
AHEAD = 2  # batches that the GPU is asked for before the first of them is waited for


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A host tensor on the device, which may still be on its way; a tensor that is there itself."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)


def to_host(
    batches: Iterable[tuple[Place, Tensors]], device: torch.device
) -> Iterator[tuple[Place, Tensors]]:
    """The same batches in the same order, their tensors on the host.

    A GPU computes the next batches while one is copied and used; then `AHEAD` more are in memory, pinned.

    Args:
        batches: any mark of each, and its tensors on the device.
        device: where they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = PinnedCopies(device)
    yield from kept_ahead(batches, copies.begin, copies.end)


def kept_ahead(
    batches: Iterable[tuple[Place, Tensors]],
    begin: Callable[[Tensors], Copy],
    end: Callable[[Copy], Result],
    n_ahead: int = AHEAD,
) -> Iterator[tuple[Place, Result]]:
    """What `end` makes of each batch, in order, once `n_ahead` more have begun."""
    begun: deque[tuple[Place, Copy]] = deque()
    for place, tensors in batches:
        begun.append((place, begin(tensors)))
        if len(begun) > n_ahead:
            yield _ended(begun, end)
    while begun:
        yield _ended(begun, end)


def _ended(begun: deque[tuple[Place, Copy]], end: Callable[[Copy], Result]) -> tuple[Place, Result]:
    """The first of them, which nothing here holds while it is used."""
    place, copy = begun.popleft()
    return place, end(copy)


class PinnedCopies:
    """Copies from a GPU on a stream of their own, each into pinned memory that torch keeps and reuses."""

    def __init__(self, device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)

    def begin(self, tensors: Tensors) -> tuple[Tensors, torch.cuda.Event]:
        """Begin to copy what the GPU computes next before anything else; returns at once."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            copies = {}
            for name, tensor in tensors.items():
                copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                copies[name].copy_(tensor, non_blocking=True)
                tensor.record_stream(self._stream)  # else its memory could be taken for the next batch
            return copies, self._stream.record_event()

    def end(self, begun: tuple[Tensors, torch.cuda.Event]) -> Tensors:
        """Wait until the copies of one batch are complete, and return them."""
        copies, complete = begun
        complete.synchronize()
        return copies
