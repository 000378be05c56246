"""Our own threads, each with single-threaded arithmetic.

A library that splits a matrix product among threads rounds differently for each number of threads. Here
every product is one call on one thread, always of the same shape; threads work on different heads, or on
different classes of one, so the number of threads changes no bit.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import torch

from extract.device import set_threads_here
from finetune.settings import SWITCH_INTERVAL

Item = TypeVar("Item")
# Seconds that a thread may keep the interpreter while another waits for it. A step is a dozen calls of
# microseconds; if each had to wait Python's default 5 ms for the thread that makes windows, that would be
# most of the time.
SWITCH = 1e-4


class Threads:
    """Some threads, the caller's included, each with single-threaded arithmetic.

    Attributes:
        n: number of threads.
    """

    def __init__(self, n: int):
        self.n = n
        self._others = ThreadPoolExecutor(n - 1, "steps", one_thread) if n > 1 else None

    def each(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Run `work` on every item, in any order; raise the first error once all threads are done."""
        items = list(items)
        cuts = [len(items) * i // self.n for i in range(self.n + 1)]
        shares = [items[start:stop] for start, stop in pairwise(cuts) if start < stop]
        others = [self._others.submit(_in_turn, work, share) for share in shares[1:]]
        try:
            for share in shares[:1]:
                _in_turn(work, share)
        finally:
            errors = [other.exception() for other in others]
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        """End the threads."""
        if self._others is not None:
            self._others.shutdown()


def _in_turn(work: Callable[[Item], None], items: list[Item]) -> None:
    for item in items:
        work(item)


def one_thread() -> None:
    """Make the calling thread's arithmetic single-threaded, with denormal numbers flushed to 0.

    Confident heads have some probabilities below 1e-38, where processors are a hundred times slower.
    """
    set_threads_here(1)
    torch.set_flush_denormal(True)


@contextmanager
def single_threaded() -> Iterator[Threads]:
    """Make torch single-threaded in the calling thread; yields as many `Threads` as torch would have used."""
    n, flushes = torch.get_num_threads(), _flushes_denormals()
    threads = Threads(n)
    try:
        with SWITCH_INTERVAL.borrowed():
            sys.setswitchinterval(SWITCH)
            one_thread()
            yield threads
    finally:
        threads.close()
        set_threads_here(n)
        torch.set_flush_denormal(flushes)


def _flushes_denormals() -> bool:
    """Whether this thread flushes denormal numbers to 0, which torch has no function for."""
    return (torch.tensor([1e-40]) * 1).item() == 0
