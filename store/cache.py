"""A bounded folder of copies of what lies far away; the least recently used go first.

Processes may share it. A copy that is dropped while somebody reads it stays readable to the end.
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from store.atomic import whole_file
from store.errors import MOST, StoreError, UserError

CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n"  # by which backups know that they may pass by
GIB = 2**30
ABANDONED = 24 * 3600  # seconds after which an unfinished copy is nobody's


def open_cache(folder: str | None, gib: float) -> "Cache | None":
    """The cache that a user asked for, None for no folder.

    Raises:
        UserError: it may hold nothing.
    """
    if not gib > 0:
        raise UserError(f"--cache-gib {gib:g}: must be above 0")
    return Cache(Path(folder), int(min(gib, MOST) * GIB)) if folder is not None else None


class Cache:
    """Copies in a folder, at most so many bytes of them."""

    def __init__(self, folder: Path, most_bytes: int):
        self.folder, self.most_bytes = folder, most_bytes

    def open(self, version: tuple[str, str], name: str, fetch: Callable[[], bytes]) -> BinaryIO:
        """An object's copy, which is fetched if it is not there.

        Args:
            version: what the object belongs to, and its version: another one is another copy.
            name: of the object.
            fetch: gives its content.

        Raises:
            StoreError: the object does not fit in the cache.
        """
        owner = hashlib.sha256(repr(version).encode()).hexdigest()[:16]
        path = self.folder / owner / name.replace("/", ".")
        while True:
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                self._add(path, fetch())  # and may be dropped again before it is opened
            else:
                now = time.time_ns()
                os.utime(file.fileno(), ns=(now, now))  # the kernel's own idea of now is a coarse one
                return file

    def _add(self, path: Path, content: bytes) -> None:
        if len(content) > self.most_bytes:
            raise StoreError(
                f"{self.folder}: a cache of {self.most_bytes / GIB:g} GiB cannot hold {path.name} with its "
                f"{len(content):,} bytes; raise --cache-gib"
            )
        if not (self.folder.exists() and os.listdir(self.folder)):
            with whole_file(self.folder / "CACHEDIR.TAG") as tag:
                tag.write_text(CACHEDIR_TAG)
        self._make_room(len(content))
        with whole_file(path) as unfinished:
            unfinished.write_bytes(content)

    def _make_room(self, n_bytes: int) -> None:
        copies = []
        for path in self.folder.glob("*/*"):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            kept = path.name.startswith(".") and found.st_mtime > time.time() - ABANDONED
            copies.append((kept, found.st_mtime_ns, found.st_size, path))
        total = n_bytes + sum(size for _, _, size, _ in copies)
        for kept, _, size, path in sorted(copies):
            if total <= self.most_bytes or kept:
                return
            path.unlink(missing_ok=True)
            total -= size
