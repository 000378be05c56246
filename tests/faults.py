"""Writers of stores that are killed at any moment or run on a full disk, and what must hold afterwards.

The tests run a fixed number, and `make soak` as many as it is told. Every case is drawn from its own seed, so
that a failure can be reproduced.
"""

import errno
import gc
import itertools
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from made_store import contents, make_store

from store.arrays.gather import gather
from store.arrays.raw import StoredArray
from store.drafts.journal import Commit, CommitLog
from store.drafts.lifecycle import draft_folder
from store.errors import StoreError
from store.reader import FeatureStore

ROOM = str(Path(__file__).parent.parent / "store")
CODEC_OF = {"s.zarr": "none", "s.h5": "none", "packed.zarr": "zstd", "packed.h5": "zstd"}  # codec, by name
HUNG = 500  # seconds after which a forked process is killed, less than what pytest allows its test
SCENARIOS = ("new", "resumed", "started over", "replacing")


class ViolationError(AssertionError):
    """A condition that must hold does not."""


def must(holds: bool, what: str) -> None:
    """Raise ViolationError unless it holds."""
    if not holds:
        raise ViolationError(what)


def end_if_hung() -> None:
    """In a forked process: let it not outlive a test that hangs, with pipes through which pytest talks."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(HUNG)


def forked(action: Callable[[], None]) -> tuple[int, int]:
    """Run in a forked process; its id, and a pipe that gives a byte at its start and ends with it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    end_if_hung()
    gc.disable()  # a garbage collection would copy every page that the two share
    code = 1
    try:
        os.write(writing, b"!")
        action()
        code = 0
    except BaseException:
        traceback.print_exc()  # else the child would print the test process's output
    finally:
        os._exit(code)


def ended(child: int, pipe: int) -> int:
    """Wait for a process; minus the signal that killed it, or its exit code."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(pipe)
    return code


def refused_after_fork(array: StoredArray) -> bool:
    """Whether a forked child that reads its parent's array is told to open the store again."""

    def read() -> None:
        try:
            gather(array, np.array([0]))
        except StoreError as error:
            os._exit(7 if "open the store again in this one" in str(error) else 1)

    return ended(*forked(read)) == 7


def killed_after(action: Callable[[], None], seconds: float) -> int:
    """Kill a process from outside, some time after its start, unless it ends before."""
    child, pipe = forked(action)
    os.read(pipe, 1)
    if not select.select([pipe], [], [], seconds)[0]:
        os.kill(child, signal.SIGKILL)
    return ended(child, pipe)


def killed_at_line(action: Callable[[], None], line: int) -> int:
    """Make a process kill itself before the n-th line of `store/` that any of its threads runs."""

    def traced() -> None:
        _count_lines(line)
        action()

    return ended(*forked(traced))


def number_of_lines(action: Callable[[], None]) -> int:
    """How many lines of `store/` a process runs that is not killed."""
    reading, writing = os.pipe()

    def traced() -> None:
        passed = _count_lines(0)
        action()
        os.write(writing, str(next(passed)).encode())

    must(ended(*forked(traced)) == 0, "an undisturbed writer failed")
    n_lines = int(os.read(reading, 100))
    os.close(reading)
    os.close(writing)
    return n_lines


def _count_lines(last: int) -> Iterator[int]:
    """Count the lines of `store/` in this thread and all later ones; die before the last."""
    passed = itertools.count(1)

    def trace(frame: FrameType, event: str, _: object) -> Callable | None:
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        if event == "line" and next(passed) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    return passed


class KillCampaign:
    """Kills writers of a store at `path` at random moments, and resumes each.

    Attributes:
        n_kills: writers that were killed before they ended.
    """

    def __init__(self, path: Path):
        self.path, self.n_kills = path, 0
        make_store(path)
        self.whole = contents(path)
        self.clear()
        make_store(path, precision="older")
        self.older = contents(path)
        self.clear()
        self._lines = number_of_lines(partial(make_store, self.path))
        self.clear()
        self._seconds = self._duration()
        self.clear()

    def one(self, generator: np.random.Generator) -> str:
        """Kill one writer and resume; returns what was done.

        Raises:
            ViolationError: a reader could see something other than a whole store, the older one or none, or
                the resumed store differs from an uninterrupted writer's.
        """
        scenario = str(generator.choice(SCENARIOS))
        by_line = bool(generator.integers(2))
        when = float(generator.random())
        case = f"{scenario}, killed at {when:.0%} of its {'lines' if by_line else 'time'}"
        self._prepare(scenario, generator)
        overwrite = scenario in ("started over", "replacing")
        code = self._kill(
            partial(make_store, self.path, resume=scenario == "resumed", overwrite=overwrite), by_line, when
        )
        must(code in (0, -signal.SIGKILL), f"{case}: ended with {code}")
        self.n_kills += code < 0
        self.check_killed(case, self.older if scenario == "replacing" else None)
        self.check_resumed(case, overwrite)
        self.clear()
        return case

    def many(self, seeds: Iterable[int]) -> None:
        """A killed writer for every seed, however many end before they are killed."""
        for seed in seeds:
            n_kills, generator = self.n_kills, np.random.default_rng(seed)
            while self.n_kills == n_kills:
                self.one(generator)

    def check_killed(self, case: str, older: dict[str, bytes] | None) -> None:
        """Only a whole store may look finished."""
        if self.path.exists():
            must(contents(self.path) in (older, self.whole), f"{case}: another store under its name")
        for tree in draft_folder(self.path).glob(f"{self.path.name}*"):
            if tree.suffix == self.path.suffix and readable(tree):
                must(contents(tree) == self.whole, f"{case}: an unfinished tree says that it is complete")

    def check_resumed(self, case: str, overwrite: bool = False) -> None:
        """Resuming leads to the same bytes, and leaves nothing else behind."""
        try:
            make_store(self.path, resume=True, overwrite=overwrite)
        except (StoreError, OSError, ValueError, KeyError) as error:
            raise ViolationError(f"{case}: cannot be resumed ({error!r})") from error
        must(contents(self.path) == self.whole, f"{case}: the resumed store is another")
        must(not draft_folder(self.path).exists(), f"{case}: something is left behind")

    def _prepare(self, scenario: str, generator: np.random.Generator) -> None:
        if scenario == "replacing":
            make_store(self.path, precision="older")
        elif scenario != "new":
            self._kill(partial(make_store, self.path), bool(generator.integers(2)), generator.random())
            if self.path.exists() and scenario == "started over":
                self.clear()

    def _kill(self, action: Callable[[], None], by_line: bool, when: float) -> int:
        if by_line:
            return killed_at_line(action, 1 + int(when * self._lines))
        return killed_after(action, when * self._seconds)

    def _duration(self) -> float:
        started = time.perf_counter()
        must(killed_after(partial(make_store, self.path), 600) == 0, "an undisturbed writer failed")
        return time.perf_counter() - started

    def clear(self) -> None:
        """Remove the store, finished or not."""
        for path in (self.path, draft_folder(self.path)):
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def readable(path: Path) -> bool:
    """Whether a finished store can be read there; any error but a UserError fails the test."""
    try:
        FeatureStore(path)
    except StoreError:
        return False
    return True


@contextmanager
def full_disk(n_commits: int) -> Iterator[None]:
    """A disk that is full once this many blocks are recorded, whichever thread comes first."""
    sync, append, is_full = os.fsync, CommitLog.append, threading.Event()

    def synced(file: int) -> None:
        if is_full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    def counted(log: CommitLog, commit: Commit) -> None:
        append(log, commit)
        if len(log.commits) >= n_commits:
            is_full.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        patch.setattr(CommitLog, "append", counted)
        yield
