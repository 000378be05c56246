"""A gate that workers pass before each image: on CPUs they decode between steps, not during them.

All threads that compute a layer wait for the slowest one. A worker that takes a core from one of them stops
them all, so that its time counts once for every core.
"""

import os
from multiprocessing import parent_process

import torch
from torch.multiprocessing import get_context

LOOK = 5  # seconds between a waiting worker's checks that the process it works for is alive


class Gate:
    """Open at first. Nobody holds a lock that a killed process could take along.

    Args:
        n_workers: how many processes may wait in front of it.
    """

    def __init__(self, n_workers: int):
        with torch.inference_mode(False):  # workers may begin in an evaluation and go on in training
            self._is_open = torch.ones(1, dtype=torch.bool).share_memory_()
        self._woken = get_context().Semaphore(0)
        self._n_workers, self._parent = n_workers, 0

    @property
    def is_open(self) -> bool:
        """Whether workers go on."""
        return bool(self._is_open)

    def open(self) -> None:
        """Let workers go on."""
        self._is_open.fill_(True)
        for _ in range(self._n_workers):
            self._woken.release()

    def close(self) -> None:
        """Let each finish its image, and wait."""
        self._is_open.fill_(False)
        while self._woken.acquire(block=False):  # of workers that did not wait
            pass

    def wait(self) -> None:
        """Return once it is open, in a worker; also if the process that it works for is gone."""
        self._parent = self._parent or os.getppid()
        while not self.is_open and self._has_owner():
            self._woken.acquire(timeout=LOOK)

    def _has_owner(self) -> bool:
        # Python's own sign of a dead parent is held back by workers that were forked later. The number is
        # not, but is of use only if the first look at it was in time.
        owner = parent_process()
        return (owner is None or owner.is_alive()) and os.getppid() == self._parent
