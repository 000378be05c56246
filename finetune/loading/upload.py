"""Windows are made beside the steps on a GPU: on a stream of their own, with copies from pinned memory.

On the stream of the steps, making a window would wait for all steps before it, and so would the thread that
makes it, in every copy from ordinary memory. A CPU has no streams and nothing to upload.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import prod

import torch

BUFFERS = 2  # one is written while a copy reads the other
WINDOWS_AHEAD = 2  # whose steps a GPU is asked for before those of an earlier one are complete


class Turns:
    """Buffers on the host that take turns: one is written again once the copies that read it are complete."""

    def __init__(self, allocate: Callable[[int], torch.Tensor]):
        """No memory yet; `allocate` makes a buffer of a number of float32."""
        self._allocate = allocate
        self._free: deque[tuple[torch.Tensor | None, torch.cuda.Event | None]] = deque(
            [(None, None)] * BUFFERS
        )
        self._taken: list[torch.Tensor] = []

    def take(self, shape: torch.Size) -> torch.Tensor:
        """A buffer of a shape, to write and then to copy from; waits until what reads it is complete.

        Whoever takes buffers calls `read_until` after asking for the copies.
        """
        buffer, is_read = self._free.popleft() if self._free else (None, None)
        if is_read is not None:
            is_read.synchronize()
        if buffer is None or len(buffer) < prod(shape):
            buffer = self._allocate(prod(shape))
        self._taken.append(buffer)
        return buffer[: prod(shape)].view(shape)

    def read_until(self, event: torch.cuda.Event) -> None:
        """Note that the buffers taken since the last call are read no more once an event is complete."""
        self._free.extend((buffer, event) for buffer in self._taken)
        self._taken.clear()


class Uploads:
    """The stream on which the windows for a GPU are made, and the pinned memory that it copies from.

    Attributes:
        buffers: the pinned memory.
    """

    def __init__(self, device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)
        self.buffers = Turns(partial(torch.empty, dtype=torch.float32, pin_memory=True))

    def own_stream(self) -> AbstractContextManager:
        """Ask the stream for everything that this thread asks the GPU for."""
        return torch.cuda.stream(self._stream)

    def sent(self) -> torch.cuda.Event:
        """An event that is complete once all that the stream was asked for is."""
        event = self._stream.record_event()
        self.buffers.read_until(event)
        return event

    @contextmanager
    def after_the_past(self) -> Iterator[None]:
        """Make windows after what the GPU was asked for before, and what it is asked for later after them.

        So memory that either stream frees may be used by the other one.
        """
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            yield
        finally:
            current.wait_stream(self._stream)


class StepsAhead:
    """Keeps the thread that asks a GPU for steps a few windows ahead of it, and no more.

    Nothing else holds it up, since losses stay there: windows would pile up in the GPU's memory.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._asked: deque[torch.cuda.Event] = deque()

    def asked(self) -> None:
        """Say that the steps of one more window were asked for; waits if they are too many. Not on a CPU."""
        if self._device.type == "cpu":
            return
        self._asked.append(torch.cuda.current_stream(self._device).record_event())
        if len(self._asked) > WINDOWS_AHEAD:
            self._asked.popleft().synchronize()


_of_devices: dict[torch.device, Uploads | None] = {}


def uploads_on(device: torch.device) -> Uploads | None:
    """Those of a GPU, always the same; None for a CPU."""
    if device not in _of_devices:
        _of_devices[device] = Uploads(device) if device.type == "cuda" else None
    return _of_devices[device]


def beside_steps(device: torch.device) -> AbstractContextManager:
    """In which windows for a device are made while steps are taken there."""
    uploads = uploads_on(device)
    return nullcontext() if uploads is None else uploads.after_the_past()


def arrive(event: torch.cuda.Event | None, tensors: list[torch.Tensor]) -> None:
    """Let the current stream wait for tensors that another one made; None if none did.

    They may be freed while the GPU still uses them: their memory is kept until it has.
    """
    if event is None:
        return
    stream = torch.cuda.current_stream(tensors[0].device)
    stream.wait_event(event)
    for tensor in tensors:
        tensor.record_stream(stream)
