"""Processes that kill themselves, at a record of a store or before a call with a lasting effect."""

import itertools
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from faults import ended, forked
from made_store import make_store

from store.drafts.journal import Commit, CommitLog
from store.drafts.s3 import S3CommitLog

DURABLE = ("fsync", "replace", "truncate")  # calls that change the state on disk


def die_at_commit(n_commits: int, log: type[CommitLog] | type[S3CommitLog] = CommitLog) -> None:
    """Make this process die as soon as its log has this many records, and not one more.

    Two threads write blocks: without the lock, another record may follow before the first thread counts.
    """
    append, alone = log.append, Lock()

    def append_or_die(self: CommitLog | S3CommitLog, commit: Commit) -> None:
        with alone:
            append(self, commit)
            if len(self.commits) == n_commits:
                os.kill(os.getpid(), signal.SIGKILL)

    log.append = append_or_die


def syncs_a_folder(where: int | Path, *_: object) -> bool:
    """Whether a call only syncs a folder, so that a kill before or after it makes no difference."""
    return isinstance(where, int) and stat.S_ISDIR(os.fstat(where).st_mode)


def in_child(action: Callable[[], None], die_at: int | None = None) -> int:
    """Run in a forked process, killed before its `die_at`-th durable call; the signal, or 0.

    The child counts the calls of both its threads, so that every step of the protocol is covered in turn.
    """

    def dying() -> None:
        n_calls = itertools.count(1)

        def counting(call: Callable) -> Callable:
            def counted(*args, **kwargs):
                if not syncs_a_folder(*args) and next(n_calls) == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return counted

        for name in DURABLE:
            setattr(os, name, counting(getattr(os, name)))
        action()

    code = ended(*forked(dying))
    assert code <= 0
    return -code


def begun(path: Path, n_commits: int = 4) -> None:
    """Leave the draft of a store whose writer was killed after this many commits."""

    def make() -> None:
        die_at_commit(n_commits)
        make_store(path)

    assert in_child(make) == signal.SIGKILL
