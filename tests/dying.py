"""A process that kills itself once so many blocks of a store are recorded, whichever thread comes first."""

import os
import signal
from threading import Lock

from store.drafts.journal import Commit, CommitLog
from store.drafts.s3 import S3CommitLog


def die_at_commit(n_commits: int, log: type[CommitLog] | type[S3CommitLog] = CommitLog) -> None:
    """Let this process die as soon as its log has so many records, and not one more.

    Two threads write blocks: without the lock another record may follow before the first thread counts.
    """
    append, alone = log.append, Lock()

    def append_or_die(self: CommitLog | S3CommitLog, commit: Commit) -> None:
        with alone:
            append(self, commit)
            if len(self.commits) == n_commits:
                os.kill(os.getpid(), signal.SIGKILL)

    log.append = append_or_die
