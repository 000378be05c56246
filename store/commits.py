"""What was written and is on the disk: a record a block, appended and synced after the block itself.

A record that a kill cut short, or that does not check, ends the log: what it told of is written again.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from store.checksum import crc32c
from store.errors import StoreError


@dataclass(frozen=True)
class Commit:
    """One block of one split (or of what is known beforehand), with the CRC-32C of each of its arrays."""

    group: str
    block: int
    checksums: dict[str, int]


class CommitLog:
    """The records of one unfinished store."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = Lock()
        self.commits = list(self._read())

    def _read(self) -> Iterator[Commit]:
        sound = 0
        if self.path.exists():
            for line in self.path.read_bytes().splitlines(keepends=True):
                content, _, check = line.rstrip(b"\n").rpartition(b" ")
                if not line.endswith(b"\n") or check != b"%08x" % crc32c(content):
                    break
                sound += len(line)
                yield Commit(**json.loads(content))
            os.truncate(self.path, sound)

    def append(self, commit: Commit) -> None:
        """Record that a block lies on the disk."""
        content = json.dumps(asdict(commit)).encode()
        with self._lock, self.path.open("ab", buffering=0) as file:
            record = content + b" %08x\n" % crc32c(content)
            while record:  # a disk that is nearly full takes a part
                record = record[file.write(record) :]
            os.fsync(file.fileno())
            self.commits.append(commit)


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold the lock file of an unfinished store.

    Raises:
        StoreError: another process holds it.
    """
    finished = f"{path.parent}: another process has just finished this store; run it again"
    try:
        file = path.open("a")
    except FileNotFoundError as error:
        raise StoreError(finished) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(
                f"{path.parent}: another process is writing this store; wait for it, or stop it"
            ) from error
        if not _is_at(path, os.fstat(file.fileno())):
            raise StoreError(finished)
        yield


def _is_at(path: Path, file: os.stat_result) -> bool:
    """Whether an open file still has its name: whoever held the lock before may have removed it."""
    try:
        return os.path.samestat(path.stat(), file)
    except FileNotFoundError:
        return False
