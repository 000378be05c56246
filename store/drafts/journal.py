"""The log of the blocks that are on disk: one record a block, appended and synced after the block itself.

A truncated record, or one with a wrong checksum, ends the log; its block is written again.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from store.arrays.checksum import crc32c
from store.errors import StoreError
from store.layout import ArrayLayout
from store.schema import CHECKSUM, FINISHED


@dataclass(frozen=True)
class Commit:
    """One block of a split (or of the arrays known beforehand), with the CRC-32C of each of its arrays."""

    group: str
    block: int
    checksums: dict[str, int]


class CommitLog:
    """The log of one draft, or of one part of it."""

    def __init__(self, path: Path, *of_parts: Path):
        """Read it, and the logs of parts beside it, which are only read."""
        self.path = path
        self._lock = Lock()
        self.commits = [*self._read(), *(commit for part in of_parts for commit in CommitLog(part).commits)]

    def _read(self) -> Iterator[Commit]:
        sound, content = 0, self.path.read_bytes() if self.path.exists() else b""
        for line in content.splitlines(keepends=True):
            commit = recorded(line)
            if commit is None:
                os.truncate(self.path, sound)
                return
            sound += len(line)
            yield commit

    def append(self, commit: Commit) -> None:
        """Record that a block is on disk."""
        with self._lock, self.path.open("ab", buffering=0) as file:
            rest = record(commit)
            while rest:  # a nearly full disk writes only a part
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
            self.commits.append(commit)


def record(commit: Commit) -> bytes:
    """A commit as a line that ends with its checksum."""
    content = json.dumps(asdict(commit)).encode()
    return content + b" %08x\n" % crc32c(content)


def recorded(line: bytes) -> Commit | None:
    """The commit in a line, None if the line is truncated or its checksum is wrong."""
    content, _, check = line.rstrip(b"\n").rpartition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % crc32c(content):
        return None
    return Commit(**json.loads(content))


def by_block(commits: list[Commit]) -> dict[tuple[str, int], int]:
    """CRC-32C of every block on the disk, by array and number."""
    return {(path, commit.block): value for commit in commits for path, value in commit.checksums.items()}


def check_all_written(where: Any, commits: list[Commit], layouts: dict[str, ArrayLayout]) -> None:
    """Raise StoreError if a block is missing, other than the time and the checksums, which come last."""
    found = by_block(commits)
    for path, layout in layouts.items():
        missing = [i for i in range(layout.n_blocks) if (path, i) not in found]
        if missing and path != FINISHED and not path.startswith(f"{CHECKSUM}/"):
            raise StoreError(f"{where}: {len(missing)} of {layout.n_blocks} blocks of {path} are missing")


def checksums_of(commits: list[Commit], layouts: dict[str, ArrayLayout]) -> dict[str, list[int]]:
    """CRC-32C of every block of every array, by array."""
    found = by_block(commits)
    return {
        path: [found[path, i] for i in range(layout.n_blocks)]
        for path, layout in layouts.items()
        if not path.startswith(f"{CHECKSUM}/")
    }
