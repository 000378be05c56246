"""Steps that Ctrl-C does not interrupt: it takes effect when the current step is done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WholeSteps:
    """Holds back Ctrl-C (and SIGTERM if handled like it) until the end of a step, but not a second one.

    Outside of the main thread, where Python delivers no signals, nothing is held back.
    """

    def __init__(self) -> None:
        self._in_step = False
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
        if self._in_step and self._waiting is None:
            self._waiting = (number, frame)
        else:
            self._handlers[number](number, frame)

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step; a signal that was held back is delivered at its end."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
            if self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                self._handlers[waiting[0]](*waiting)
