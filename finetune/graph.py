"""The steps of a window as one CUDA graph: recorded once for each shape, then replayed in one launch.

A step is a dozen small kernels, so launching them one by one would take longer than they do.
"""

from collections.abc import Callable

import torch

Steps = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
Record = Callable[[Callable[[], None]], Callable[[], None]]


class RecordedSteps:
    """Steps that are recorded on their first window of a shape and replayed from then on.

    Replaying does not run Python again, so the steps may depend on nothing but their arguments and on what
    `state` holds.
    """

    def __init__(self, steps: Steps, state: list[torch.Tensor], record: Record):
        """Record nothing yet.

        Args:
            steps: takes pooled, label and rate of a window, and writes log p into the fourth.
            state: what steps change besides: it is put back after a trial run.
            record: runs nothing, and returns what repeats the work given to it.
        """
        self._steps, self._state, self._record = steps, state, record
        self._recorded: dict[tuple, tuple[list[torch.Tensor], Callable[[], None]]] = {}

    def __call__(
        self, pooled: torch.Tensor, label: torch.Tensor, rate: torch.Tensor, log_p: torch.Tensor
    ) -> None:
        """Take the steps of a window."""
        arguments = [pooled, label, rate, log_p]
        key = tuple(argument.shape for argument in arguments)
        if key not in self._recorded:
            own = [argument.clone(memory_format=torch.contiguous_format) for argument in arguments]
            self._recorded[key] = own, self._prepared(own)
        own, replay = self._recorded[key]
        for mine, given in zip(own[:3], arguments[:3], strict=True):
            mine.copy_(given)
        replay()
        log_p.copy_(own[3])

    def _prepared(self, own: list[torch.Tensor]) -> Callable[[], None]:
        before = [part.clone() for part in self._state]
        self._steps(*own)  # libraries allocate their workspaces on first use, which a recording may not
        for part, earlier in zip(self._state, before, strict=True):
            part.copy_(earlier)
        return self._record(lambda: self._steps(*own))


def record_on_gpu(work: Callable[[], None]) -> Callable[[], None]:
    """Record work on the current CUDA device; returns what replays it."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    # The thread that makes windows goes on allocating meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay
