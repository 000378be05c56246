"""Worker processes that read images: how they begin, learn what to prepare, and end.

They end by being killed: all that they made is handed over by then, while one that is told to end may be too
busy to hear it, or so new that what it runs is still the code of the process from which it was forked.
"""

import atexit
import multiprocessing.process
import multiprocessing.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
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
# A process that gets one of these from itself cannot go on; all others can wait.
FAULTS = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP}

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
        self._owner: int | None = None
        try:
            self.gate = Gate(n_workers)
        except (RuntimeError, OSError) as error:
            raise UserError(f"{SHARED}: has no room for what workers share ({error}); {ADVICE}") from error
        self._loader = DataLoader(
            _Preparing(self.gate),
            batch_sampler=self._order,
            num_workers=n_workers,
            collate_fn=_as_it_is,
            worker_init_fn=partial(_become_worker, _blocked()),
            persistent_workers=waiting,
            timeout=LOOK,
            prefetch_factor=PREFETCH,
            generator=torch.Generator(),  # else DataLoader draws its workers' seed from the global one
        )

    def begin(self, files: ImageFiles, parts: list[range]) -> Iterator[torch.Tensor | str]:
        """Start the processes; returns what they prepare of each part."""
        self._order.files, self._order.parts = files, parts
        multiprocessing.util.get_temp_dir()  # of this process, which removes it: theirs would stay
        with _without_torchs_handler(), _signals_held():
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
        if self._owner != os.getpid():  # not begun, or a process that was forked meanwhile
            return
        try:
            _BEGUN.remove(self)
        except KeyError:
            return
        # torch has no public names for what follows. Its own way sets an event, and would wait forever for a
        # lock that a killed process had.
        loaded = self._loaded
        self._loaded = self._loader = None
        loaded._shutdown = True
        if loaded._worker_pids_set:
            # First: torch's handler, if another DataLoader has set it, takes them for workers that failed.
            signal_handling._remove_worker_pids(id(loaded))
            loaded._worker_pids_set = False
        _kill(loaded._workers)
        for queue in (*loaded._index_queues, loaded._worker_result_queue):
            _close(queue)


def end_all(those: Iterable[Workers]) -> None:
    """End each, even if an error or Ctrl-C comes in the middle of one."""
    with ExitStack() as ending:
        for workers in list(those):
            ending.callback(workers.end)


# At the end of the program; multiprocessing's own way would wait for one that is stuck as it starts.
atexit.register(end_all, _BEGUN)


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
def _signals_held() -> Iterator[None]:
    """Fork processes that no signal interrupts before they are workers.

    Until then they have the handlers of this process: an exception of theirs could go up the stack that a new
    process has from this one, through all that cleans up on the way.
    """
    if torch.multiprocessing.get_start_method() != "fork":  # a server that forks for others would keep them
        yield
        return
    before = _blocked()
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - FAULTS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _blocked() -> set[int]:
    """The signals that wait in this thread."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def _become_worker(blocked: set[int], _: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGBUS, signal.SIG_DFL)  # reported without torch's handler
    for number in signal.valid_signals() - FAULTS - {signal.SIGTERM}:  # torch has a handler for that
        if callable(signal.getsignal(number)):  # such as Ctrl-C's: for the process that the user started
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _kill(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    deadline = time.monotonic() + ENDING
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        if process.is_alive():
            multiprocessing.process._children.discard(process)  # nor does the end of the program wait for it
        else:
            process.close()


def _close(queue: Queue) -> None:
    """Close a queue to dead processes, and its pipe, which the thread that writes to it closes itself.

    The thread may wait for room in the pipe, so that what it writes is read here.
    """
    thread = queue._thread
    queue.cancel_join_thread()  # at the end of the program
    if thread is threading.current_thread():  # within a collection of garbage
        queue.close()
        return
    if thread is not None:
        deadline = time.monotonic() + ENDING
        with Connection(os.dup(queue._reader.fileno()), writable=False) as pipe:
            queue.close()
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(0.01)
                if pipe.poll(0):
                    os.read(pipe.fileno(), 2**20)
        if thread.is_alive():
            return
    queue._reader.close()
    queue._writer.close()


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
