"""Windows made on a background thread while the ones before are used."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from finetune.heads.threads import one_thread

Item = TypeVar("Item")
Window = TypeVar("Window")


def prefetched(make: Callable[[Item], Window], items: list[Item], depth: int) -> Iterator[Window]:
    """`make` of every item, in order, up to `depth` of them ahead of their use.

    An error in `make` is raised where its window was to come, and no window is made after it. The thread ends
    with the iterator, also when that is closed early.

    Args:
        make: makes one window.
        items: what from.
        depth: windows that wait at most; 0 makes each when it is asked for.
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
        before.result()  # raises the error of the window before
    return make(item)
