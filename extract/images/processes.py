"""Worker processes that read images: how they begin, learn what to prepare, and end.

They end by being killed: they hold nothing that outlasts them, while one that is told to end may be too busy
to hear it, or so new that what it runs is still the code of the process from which it was forked.
"""

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data._utils import signal_handling

from extract.images.gate import Gate
from extract.images.parts import ImageFiles, Part, prepare
from extract.images.shared_memory import ADVICE, SHARED
from store.errors import UserError

PREFETCH = 2  # parts of batches that each worker prepares ahead
LOOK = 5  # seconds between checks that the workers are alive
ENDING = 1  # seconds to wait for killed processes: the system may hold one
INTERRUPTS = {signal.SIGINT, signal.SIGTERM}

# Those that were begun and not ended. Batches that nobody goes on with, after an error, end their workers as
# they are collected as garbage. Were these garbage too, then their pipes would be closed at the same time as
# the threads that write to them close them: a second time, when the number may be another file's.
_BEGUN: set["Workers"] = set()


class Workers:
    """Worker processes that know nothing of the images but what each part tells them.

    Args:
        n_workers: how many.
        waiting: whether they wait for more parts after the last one; `end` ends them in any case.
    """

    def __init__(self, n_workers: int, waiting: bool):
        self._order = _Order()
        try:
            self.gate = Gate(n_workers)
        except (RuntimeError, OSError) as error:
            raise UserError(f"{SHARED}: has no room for what workers share ({error}); {ADVICE}") from error
        self._loader = DataLoader(
            _Preparing(self.gate),
            batch_sampler=self._order,
            num_workers=n_workers,
            collate_fn=_as_it_is,
            worker_init_fn=_become_worker,
            persistent_workers=waiting,
            timeout=LOOK,
            prefetch_factor=PREFETCH,
            generator=torch.Generator(),  # else DataLoader draws its workers' seed from the global one
        )

    def begin(self, files: ImageFiles, parts: list[range]) -> Iterator[torch.Tensor | str]:
        """Start the processes; returns what they prepare of each part."""
        self._order.files, self._order.parts = files, parts
        with _without_torchs_handler(), _interrupts_held():
            self._loaded = iter(self._loader)
        self._owner = os.getpid()
        _BEGUN.add(self)
        return self._loaded

    def resumed(self, files: ImageFiles, parts: list[range]) -> Iterator[torch.Tensor | str] | None:
        """Like `begin`, with the waiting processes; None if one has died or hangs, and all are ended."""
        self._order.files, self._order.parts = files, parts
        try:
            return iter(self._loader)
        except RuntimeError:
            self.end()
            return None

    def end(self) -> None:
        """End the processes, in whatever state; one that the system holds is left after a second."""
        if self not in _BEGUN or self._owner != os.getpid():  # as in a process that was forked meanwhile
            return
        _BEGUN.discard(self)
        # torch has no public names for what follows. Its own way sets an event, and would wait forever for a
        # lock that a killed process had.
        loaded = self._loaded
        loaded._shutdown = True
        for process in loaded._workers:
            process.kill()
        deadline = time.monotonic() + ENDING
        for process in loaded._workers:
            process.join(max(0, deadline - time.monotonic()))
        if loaded._worker_pids_set:
            signal_handling._remove_worker_pids(id(loaded))  # else torch takes them for workers that failed
            loaded._worker_pids_set = False
        for queue in loaded._index_queues:
            _close(queue)


@atexit.register
def _end_all() -> None:
    """At the end of the program; multiprocessing's own way would wait for one that is stuck as it starts."""
    for workers in list(_BEGUN):
        workers.end()


@contextmanager
def _without_torchs_handler() -> Iterator[None]:
    """Keep the handler of children that end: torch's would raise the error of a dead worker in any line."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where torch sets none
        return
    handler: Callable | int | None = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start processes that no signal interrupts before they are workers.

    Until then they have the handlers of this process: an exception of theirs could go up the stack that a new
    process has from this one, through all that cleans up on the way.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that the user started
    signal.signal(signal.SIGBUS, signal.SIG_DFL)  # reported without torch's handler
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)


def _close(queue: Queue) -> None:
    """Close a queue to a dead process once its thread has ended, which closes the pipe itself.

    The thread may wait for room in the pipe, so that what it writes is read here.
    """
    thread = queue._thread
    if thread is None or thread is threading.current_thread():
        queue.close()
        return
    with Connection(os.dup(queue._reader.fileno()), writable=False) as pipe:
        queue.close()
        while thread.is_alive():
            thread.join(0.01)
            if pipe.poll(0):
                os.read(pipe.fileno(), 2**20)


class _Order:
    """The parts, made one by one as workers take them."""

    files: ImageFiles
    parts: list[range]

    def __iter__(self) -> Iterator[Part]:
        files, parts = self.files, self.parts
        return (files.part(part) for part in parts)


class _Preparing(TorchDataset):
    """What workers do with each part."""

    def __init__(self, gate: Gate):
        self._gate = gate

    def __getitems__(self, part: Part) -> torch.Tensor | str:
        images = prepare(part, self._gate)
        try:
            # Here: an error in the queue's thread would be lost.
            return images.share_memory_() if isinstance(images, torch.Tensor) else images
        except (RuntimeError, OSError) as error:
            return f"{SHARED}: has no room for {images.nbytes / 2**20:.1f} MiB of images ({error}); {ADVICE}"


def _as_it_is(prepared: torch.Tensor | str) -> torch.Tensor | str:
    return prepared
