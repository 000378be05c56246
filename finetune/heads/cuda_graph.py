"""The steps of a window as one CUDA graph: recorded once for each shape, then replayed in one launch.

A step is a dozen small kernels, so launching them one by one would take longer than they do.
"""

from collections.abc import Callable
from functools import partial
from threading import Lock

import torch

from store.notes import note

Steps = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
Record = Callable[[Callable[[], None]], Callable[[], None]]

# Held while a graph is recorded and while a window is made: what one thread asks of a GPU may spoil what
# another records on it.
RECORDING = Lock()


class RecordedSteps:
    """Steps of heads, recorded on their first window of a shape and replayed from then on.

    Replaying does not run Python again, so the steps may depend on nothing but their arguments and on their
    state. It keeps no reference to heads, which may own it: all of it ends with its last owner.
    """

    def __init__(self, record: Record):
        """Record nothing yet.

        Args:
            record: returns what repeats the work given to it; before that, it may run it on trial.
        """
        self._record = record
        self._recorded: dict[tuple, tuple[list[torch.Tensor], Callable[[], None]]] = {}
        self._pooled: dict[torch.Size, torch.Tensor] = {}  # heads that take the same windows share one
        self._gave_up = False

    def __call__(self, steps: Steps, state: list[torch.Tensor], arguments: list[torch.Tensor]) -> None:
        """Take the steps of a window; one by one where they cannot be recorded.

        Args:
            steps: takes pooled, label and rate of a window, and writes log p into the fourth.
            state: what steps change besides; the same tensors at every call for the same heads.
            arguments: the four.
        """
        key = (state[0].data_ptr(), *(argument.shape for argument in arguments))
        if key not in self._recorded and not self._gave_up:
            self._try_to_record(key, steps, state, arguments)
        if self._gave_up:
            steps(*arguments)
            return
        own, replay = self._recorded[key]
        for mine, given in zip(own[:3], arguments[:3], strict=True):
            mine.copy_(given)
        replay()
        arguments[3].copy_(own[3])

    def clear(self) -> None:
        """Forget what is recorded, and free the memory that it works in."""
        self._recorded.clear()
        self._pooled.clear()

    def _try_to_record(
        self, key: tuple, steps: Steps, state: list[torch.Tensor], arguments: list[torch.Tensor]
    ) -> None:
        before = [part.clone() for part in state]
        try:
            own = [argument.clone(memory_format=torch.contiguous_format) for argument in arguments]
            own[0] = self._pooled.setdefault(own[0].shape, own[0])
            self._recorded[key] = own, self._record(lambda: steps(*own))
        except RuntimeError as error:  # no memory, or a driver that cannot
            self.clear()
            self._gave_up = True
            reason = str(error).partition("\n")[0]
            note(f"steps could not be recorded as a CUDA graph and are taken one by one, slowly: {reason}")
        finally:
            for part, earlier in zip(state, before, strict=True):
                part.copy_(earlier)


def recorded_on(device: torch.device) -> RecordedSteps | None:
    """Steps to be recorded on a GPU; None for a CPU, which launches nothing."""
    return RecordedSteps(partial(record_on_gpu, device=device)) if device.type == "cuda" else None


_streams: dict[torch.device, torch.cuda.Stream] = {}  # one of each device, to record on


def record_on_gpu(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Run work once on a CUDA device, then record it there; returns what replays it.

    It is run for the workspaces that libraries allocate on first use, which they may not while recorded.
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
        # Other threads, whatever they are, may go on allocating.
        recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        with torch.cuda.stream(current), recording:  # one that fails does not go back to it by itself
            work()
    return graph.replay
