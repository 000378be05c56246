"""Steps that Ctrl-C does not tear: it waits until the one on its way is whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WholeSteps:
    """Holds Ctrl-C, and SIGTERM where it is taken for one, back for the time of a step; a second one is not.

    Outside of the main thread, where Python delivers no signal, nothing is held back.
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
                signal.signal(number, self._come)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _come(self, number: int, frame: FrameType | None) -> None:
        if self._in_step and self._waiting is None:
            self._waiting = (number, frame)
        else:
            self._handlers[number](number, frame)

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step; what was held back comes at its end."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
            if self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                self._handlers[waiting[0]](*waiting)
