"""Make windows on a background thread while earlier ones are used."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from finetune.heads.threads import one_thread

Item = TypeVar("Item")
Window = TypeVar("Window")


def prefetched(make: Callable[[Item], Window], items: list[Item], depth: int) -> Iterator[Window]:
    """`make(item)` for every item, in order, made up to `depth` ahead of their use.

    An error in `make` is raised in place of its window, and no further window is made. The thread ends with
    the iterator, even if that is closed early.

    Args:
        make: makes one window.
        items: arguments of `make`.
        depth: most windows that wait; 0 makes each window when it is needed, without a thread.
    """
    if depth == 0:
        yield from map(make, items)
        return
    ahead: deque[Future] = deque()
    maker = ThreadPoolExecutor(1, "windows", one_thread)
    try:
        for item in items:
            ahead.append(maker.submit(_make, make, item, ahead[-1] if ahead else None))
            if len(ahead) > depth + 1:  # one is being made while the others wait
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        maker.shutdown(cancel_futures=True)


def _make(make: Callable[[Item], Window], item: Item, before: Future | None) -> Window:
    if before is not None:
        before.result()  # raises the error of the previous window
    return make(item)
