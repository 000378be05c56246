"""Steps that Ctrl-C does not interrupt: it takes effect when the current step is done."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from extract.training.together.ranks import ONE_PROCESS, Ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE_SIGNAL = 2.0  # seconds in which a second signal is the first again: torchrun hands on what all received


class WholeSteps:
    """Holds back Ctrl-C (and SIGTERM if handled like it) until the end of a step, but not a second one.

    Outside of the main thread, where Python delivers no signals, nothing is held back.
    """

    def __init__(self, ranks: Ranks = ONE_PROCESS) -> None:
        """Before the first step; several processes end after the same one, see `meet`."""
        self._ranks = ranks
        self._in_step = False
        self._since = 0.0
        self._waiting: tuple[int, FrameType | None] | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> "WholeSteps":
        if threading.current_thread() is threading.main_thread():
            found = {number: signal.getsignal(number) for number in SIGNALS}
            self._handlers = {number: handler for number, handler in found.items() if callable(handler)}
            for number in self._handlers:
                signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if (self._in_step or self._ranks.world > 1) and self._waiting is None:
            self._waiting, self._since = (number, frame), time.monotonic()
        elif self._ranks.world == 1 or time.monotonic() - self._since > ONE_SIGNAL:
            self._handlers[number](number, frame)

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step; a signal that was held back is delivered at its end."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
            if self._waiting is not None and self._ranks.world == 1:
                waiting, self._waiting = self._waiting, None
                self._handlers[waiting[0]](*waiting)

    def meet(self) -> None:
        """Between two steps: if any of several processes was told to end, all do, with KeyboardInterrupt.

        They wait for each other here; alone, a process does not wait to be told.
        """
        if self._ranks.world > 1 and self._ranks.any(self._waiting is not None):
            self._waiting = None
            raise KeyboardInterrupt
