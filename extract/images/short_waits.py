"""Threads of torch that give up their core while they wait, so that worker processes can use it.

Threads share every layer of a network, and wait for the slowest of them at its end. GNU's OpenMP, which torch
for Linux comes with, lets them wait in a busy loop of some milliseconds, unless the process has more such
threads than cores: then they sleep almost at once. Where workers keep one thread from its core, the loops of
the others took up to a fifth of the cores' time from a small network and its images. The library takes
this setting only from the environment, before it is loaded.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SHARED_OUT = 1 << 17  # values; torch computes so many in several threads


@contextmanager
def short_waits() -> Iterator[None]:
    """Within it, threads of torch sleep when they wait; what they compute, and how it is shared, stays.

    A second thread of Python has threads of torch of its own, and lets them sleep: so there are more of them
    than cores. With another OpenMP, or one thread, it changes nothing.
    """
    begun, done = threading.Event(), threading.Event()

    def keep_threads() -> None:
        try:
            torch.zeros(SHARED_OUT).add_(1)
        finally:
            begun.set()
        done.wait()

    thread = threading.Thread(target=keep_threads, name="short waits", daemon=True)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()
