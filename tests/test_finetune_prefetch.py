"""Windows made ahead: in order, bounded in number, errors in their places, and no thread left behind."""

import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest

from finetune.loading.prefetch import prefetched

DEPTHS = [0, 1, 2, 5, 100]
WAIT = 60  # seconds


def makers() -> list[threading.Thread]:
    """Threads that make windows."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("windows")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    assert makers() == []
    yield
    assert makers() == []


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_every_window_comes_once_and_in_order(depth, n):
    assert list(prefetched(str, list(range(n)), depth)) == [str(i) for i in range(n)]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_so_many_windows_wait_and_one_more_is_made(depth):
    """After a windows are taken, window a + depth is started without waiting for it, and none beyond it."""
    n, asked, too_early = 40, 0, []
    begun = [threading.Event() for _ in range(n)]

    def make(i: int) -> int:
        if i > asked + depth:
            too_early.append(i)
        begun[i].set()
        return i

    windows = prefetched(make, list(range(n)), depth)
    for i in range(n):
        asked = i + 1
        assert next(windows) == i
        assert begun[min(asked + depth, n - 1)].wait(WAIT)
    assert too_early == []
    assert list(windows) == []


def test_without_depth_each_is_made_when_it_is_asked_for_and_by_who_asks():
    made = []

    def make(i: int) -> threading.Thread:
        made.append(i)
        return threading.current_thread()

    windows = prefetched(make, [0, 1, 2], 0)
    for i in range(3):
        assert next(windows) is threading.current_thread()
        assert made == list(range(i + 1))
        assert makers() == []
    windows.close()


def test_with_depth_they_are_made_by_another_thread():
    threads = set(prefetched(lambda _: threading.current_thread(), [0, 1, 2], 1))
    assert [thread.name for thread in threads] == ["windows_0"]


@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("depth", DEPTHS)
def test_an_error_comes_where_its_window_was_to_come(depth, error):
    made, taken = [], []

    def make(i: int) -> int:
        made.append(i)
        if i == 3:
            raise error("of window 3")
        return i

    with pytest.raises(error, match="of window 3"):
        taken.extend(prefetched(make, list(range(10)), depth))
    assert taken == [0, 1, 2]
    assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("n_taken", [1, 2, 7])
@pytest.mark.parametrize("depth", [1, 2, 5, 100])
def test_closing_early_ends_the_thread(depth, n_taken):
    """In the middle of a window; the remaining ones are not made."""
    going, making = threading.Event(), threading.Event()
    begun = []

    def make(i: int) -> int:
        begun.append(i)
        if i >= n_taken:
            making.set()
            going.wait(WAIT)
        return i

    windows = prefetched(make, list(range(200)), depth)
    assert [next(windows) for _ in range(n_taken)] == list(range(n_taken))
    assert making.wait(WAIT)
    assert len(makers()) == 1
    going.set()
    windows.close()
    assert makers() == []
    assert len(begun) <= n_taken + depth + 1


def test_closing_waits_for_the_window_that_is_being_made():
    """Making it reads a store, which the user may close next."""
    making, going, closed = threading.Event(), threading.Event(), threading.Event()
    begun, done = [], []

    def make(i: int) -> int:
        begun.append(i)
        if i == 1:
            making.set()
            going.wait(WAIT)
        done.append(i)
        return i

    windows = prefetched(make, list(range(10)), 1)

    def take_one_and_close() -> None:
        next(windows)
        making.wait(WAIT)
        windows.close()
        if begun == done:
            closed.set()

    user = threading.Thread(target=take_one_and_close)
    user.start()
    assert making.wait(WAIT)
    assert not closed.is_set()
    going.set()
    user.join(WAIT)
    assert closed.is_set()
    assert 1 in done


def test_an_error_of_the_user_ends_the_thread():
    def use() -> None:
        with closing(prefetched(str, list(range(200)), 2)) as windows:
            next(windows)
            assert len(makers()) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert makers() == []


def test_an_iterator_that_is_not_begun_makes_nothing():
    made = count()
    prefetched(lambda _: next(made), [0, 1], 2).close()
    assert next(made) == 0


def test_a_thread_that_cannot_make_windows_is_told(monkeypatch):
    """Whatever the cause: nobody waits for its windows forever."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            list(prefetched(lambda item: item, [1, 2], 1))
    monkeypatch.setattr("finetune.loading.prefetch._make", lambda *_: sys.exit("gone"))
    with pytest.raises(SystemExit, match="gone"):
        list(prefetched(lambda item: item, [1, 2], 1))


def test_windows_that_were_made_are_used_before_the_end_is_told():
    assert list(prefetched(lambda item: item, list(range(50)), 3)) == list(range(50))
