"""Killing a process that writes a store to a bucket, each time followed by a resume and a comparison.

Run as a program, because it must never talk to S3 itself: it forks a child for every attempt. It prints the
number of kills.
"""

import itertools
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import obstore
from made_store import WITHOUT_VAL, contents, stopped_clock
from made_store import make_store as make_any_store

import store.layout
from store.errors import StoreError
from store.reader import FeatureStore
from store.storage.location import locate

make_store = partial(make_any_store, sizes=WITHOUT_VAL)  # fewer requests
CHANGES = ("put", "put_async", "delete")  # requests that change the bucket


def forked(action: Callable[[], object], die_at: int | None = None) -> int:
    """Run in a child, killed before its `die_at`-th change of the bucket; the signal, or 0."""
    child = os.fork()
    if child == 0:
        n_calls = itertools.count(1)  # of several threads

        def counting(call: Callable) -> Callable:
            def counted(*args, **kwargs):
                if next(n_calls) == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return counted

        try:
            for name in CHANGES:
                setattr(obstore, name, counting(getattr(obstore, name)))
            action()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"killed before change {die_at}"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def readable(url: str) -> bool:
    """Whether a reader accepts what is there as a store."""
    try:
        FeatureStore(locate(url))
    except StoreError:
        return False
    return True


def check_and_resume(url: str, whole: dict[str, bytes], overwrite: bool) -> None:
    """What a reader accepts is the whole store, and so is the resumed store.

    Nothing else is left behind; it is removed for the next kill.
    """
    bucket = locate(url)
    if readable(url):
        assert bucket.read_all(bucket.sizes()) == whole
    make_store(bucket, resume=True, overwrite=overwrite)
    assert bucket.read_all(bucket.sizes()) == whole
    assert not bucket.beside(".unfinished").sizes()
    if not overwrite:
        bucket.delete(bucket.sizes())


def campaign(url: str, step: int, overwrite: bool) -> int:
    """Kill before every `step`-th change that a writer makes; the number of kills."""
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder, "s.zarr"))
        whole = contents(Path(folder, "s.zarr"))
    if overwrite:
        forked(lambda: make_store(locate(url)))
    n_kills = 0
    while forked(lambda: make_store(locate(url), overwrite=overwrite), die_at=1 + n_kills * step):
        n_kills += 1
        forked(lambda: check_and_resume(url, whole, overwrite))
    return n_kills


if __name__ == "__main__":
    store.layout.BLOCK_BYTES = 2048
    with stopped_clock():
        print(campaign(sys.argv[1], *json.loads(sys.argv[2])))
