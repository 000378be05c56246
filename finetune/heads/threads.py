"""Threads of our own around single-threaded arithmetic.

A matrix product that a library splits among threads is cut, and rounded, in another way for another number of
them. Here every product is one call on one thread, always of the same shape; threads take different heads, or
different classes of one, so their number changes no bit.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import torch

from finetune.settings import SWITCH_INTERVAL, set_threads_here

Item = TypeVar("Item")
# Seconds that a thread which makes windows may keep the interpreter while another wants to take a step. Steps
# are a dozen calls of microseconds each; Python's own 5 ms after each of them would be most of the time.
SWITCH = 1e-4


class Threads:
    """A few threads, the caller's among them, each with single-threaded arithmetic.

    Attributes:
        n: how many.
    """

    def __init__(self, n: int):
        self.n = n
        self._others = ThreadPoolExecutor(n - 1, "steps", one_thread) if n > 1 else None

    def each(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """`work` on every item, in any order; the first error is raised once all have ended."""
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
    """Single-threaded arithmetic in the calling thread, with the smallest numbers taken for 0.

    Probabilities of confident heads are below 1e-38 here and there, where processors are a hundred times
    slower.
    """
    set_threads_here(1)
    torch.set_flush_denormal(True)


@contextmanager
def single_threaded() -> Iterator[Threads]:
    """Single-threaded arithmetic in the calling thread; yields as many threads as torch would have used."""
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
    """Whether this thread takes numbers below 10⁻³⁸ for 0; torch has no question for it."""
    return (torch.tensor([1e-40]) * 1).item() == 0
