"""The steps of a window as one CUDA graph: recorded once per shape, then replayed in one launch.

A step is a dozen small kernels; launching them one by one takes longer than running them.
"""

from collections.abc import Callable
from functools import partial
from threading import Lock

import torch

from store.notes import note

Steps = Callable[..., None]
Record = Callable[[Callable[[], None]], Callable[[], None]]

POOLED, FIT = 0, 3  # the argument that heads share, and the one that steps write

# Held while a graph is recorded and while a window is made: GPU calls of one thread can spoil a recording
# of another.
RECORDING = Lock()


class RecordedSteps:
    """Steps of heads, recorded on the first window of each shape and replayed from then on.

    A replay runs no Python, so steps must depend on their arguments and state only. Holds no reference to
    the heads, which may own it: its memory is freed with its last owner.
    """

    def __init__(self, record: Record):
        """Record nothing yet.

        Args:
            record: records the work given to it and returns its replay; may run the work first.
        """
        self._record = record
        self._recorded: dict[tuple, tuple[list[torch.Tensor], Callable[[], None]]] = {}
        self._pooled: dict[torch.Size, torch.Tensor] = {}  # heads trained on the same windows share one
        self._gave_up = False

    def __call__(self, steps: Steps, state: list[torch.Tensor], arguments: list[torch.Tensor]) -> None:
        """Run the steps of a window; without a graph if recording fails.

        Args:
            steps: reads pooled, label and rate of a window and whatever follows, and writes each row's fit to
                its fourth argument.
            state: tensors that the steps update; the same ones at every call for the same heads.
            arguments: its arguments.
        """
        key = (state[0].data_ptr(), *(argument.shape for argument in arguments))
        if key not in self._recorded and not self._gave_up:
            self._try_to_record(key, steps, state, arguments)
        if self._gave_up:
            steps(*arguments)
            return
        own, replay = self._recorded[key]
        for i, (mine, given) in enumerate(zip(own, arguments, strict=True)):
            if i != FIT:
                mine.copy_(given)
        replay()
        arguments[FIT].copy_(own[FIT])

    def clear(self) -> None:
        """Drop all recordings and free their memory."""
        self._recorded.clear()
        self._pooled.clear()

    def _try_to_record(
        self, key: tuple, steps: Steps, state: list[torch.Tensor], arguments: list[torch.Tensor]
    ) -> None:
        before = [part.clone() for part in state]
        try:
            own = [argument.clone(memory_format=torch.contiguous_format) for argument in arguments]
            own[POOLED] = self._pooled.setdefault(own[POOLED].shape, own[POOLED])
            self._recorded[key] = own, self._record(lambda: steps(*own))
        except RuntimeError as error:  # out of memory, or not supported by the driver
            self.clear()
            self._gave_up = True
            reason = str(error).partition("\n")[0]
            note(f"cannot record training steps as a CUDA graph, so they run more slowly: {reason}")
        finally:
            for part, earlier in zip(state, before, strict=True):
                part.copy_(earlier)


def recorded_on(device: torch.device) -> RecordedSteps | None:
    """An empty `RecordedSteps` for a GPU; None for a CPU, which launches no kernels."""
    return RecordedSteps(partial(record_on_gpu, device=device)) if device.type == "cuda" else None


_streams: dict[torch.device, torch.cuda.Stream] = {}  # to record on, one per device


def record_on_gpu(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Run work once on a CUDA device, then record it there; returns its replay.

    The first run lets libraries allocate their workspaces, which they cannot do while recording.
    """
    with torch.cuda.device(device), RECORDING:
        if device not in _streams:
            _streams[device] = torch.cuda.Stream(device)
        current, stream, graph = torch.cuda.current_stream(), _streams[device], torch.cuda.CUDAGraph()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            work()
        current.wait_stream(stream)
        torch.cuda.synchronize()
        # thread_local: other threads may allocate meanwhile.
        recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        with torch.cuda.stream(current), recording:  # restores the stream, which a failed capture does not
            work()
    return graph.replay
