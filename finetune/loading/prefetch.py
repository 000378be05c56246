"""Windows made on a background thread while the ones before are used."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Window = TypeVar("Window")
LOOK = 0.1  # seconds between looks at whether anybody still wants a window


def prefetched(make: Callable[[Item], Window], items: list[Item], depth: int) -> Iterator[Window]:
    """`make` of every item, in order, up to `depth` of them ahead of their use.

    An error in `make` is raised where its window was to come. The thread ends with the iterator, also when
    that is closed early.

    Args:
        make: makes one window.
        items: what from.
        depth: windows that wait at most; 0 makes each when it is asked for.
    """
    if depth == 0:
        yield from map(make, items)
        return
    ready: Queue[tuple[Window | None, BaseException | None]] = Queue(depth)
    unwanted = Event()
    maker = Thread(target=_make, args=(make, items, ready, unwanted), name="windows", daemon=True)
    maker.start()
    try:
        for _ in items:
            window, error = _wait(ready, maker)
            if error is not None:
                raise error
            yield window
    finally:
        unwanted.set()
        while maker.is_alive():  # a window on its way is still put down: make room for it
            _take_any(ready)
            maker.join(LOOK)


def _make(make: Callable, items: list, ready: Queue, unwanted: Event) -> None:
    for item in items:
        try:
            made = (make(item), None)
        except BaseException as error:  # whatever it is, it belongs to who waits for the window
            made = (None, error)
        while not unwanted.is_set():
            try:
                ready.put(made, timeout=LOOK)
                break
            except Full:
                continue
        if unwanted.is_set() or made[1] is not None:
            return


def _wait(ready: Queue, maker: Thread) -> tuple:
    while True:
        lives = maker.is_alive()  # asked before the look, so that nothing is overlooked
        try:
            return ready.get(timeout=LOOK)
        except Empty:
            if not lives:
                raise RuntimeError("the thread that makes windows ended before its last one") from None


def _take_any(ready: Queue) -> None:
    with suppress(Empty):
        ready.get_nowait()
