"""What was written and is on the disk: a record a block, appended and synced after the block itself.

A record that a kill cut short, or that does not check, ends the log: what it told of is written again.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from store.arrays.checksum import crc32c


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
                commit = recorded(line)
                if commit is None:
                    break
                sound += len(line)
                yield commit
            os.truncate(self.path, sound)

    def append(self, commit: Commit) -> None:
        """Record that a block lies on the disk."""
        with self._lock, self.path.open("ab", buffering=0) as file:
            rest = record(commit)
            while rest:  # a disk that is nearly full takes a part
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
            self.commits.append(commit)


def record(commit: Commit) -> bytes:
    """A commit as a line that checks itself."""
    content = json.dumps(asdict(commit)).encode()
    return content + b" %08x\n" % crc32c(content)


def recorded(line: bytes) -> Commit | None:
    """The commit of a record, None where it was cut short or does not check."""
    content, _, check = line.rstrip(b"\n").rpartition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % crc32c(content):
        return None
    return Commit(**json.loads(content))
