"""A bounded folder of local copies of remote objects; the least recently used are removed first.

Processes may share it. A copy that is removed while somebody reads it stays readable to the end.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from store.errors import UserError
from store.options import MOST
from store.storage.atomic import whole_file

CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n"  # tells backup programs to skip the folder
TAG = "CACHEDIR.TAG"
OWNER_DIGITS = 16
OWNER = re.compile(f"[0-9a-f]{{{OWNER_DIGITS}}}")  # names of the folders of copies
GIB = 2**30
ABANDONED = 24 * 3600  # seconds after which a partial copy counts as abandoned


class CacheError(UserError):
    """The cache's folder cannot be used; the store is fine."""


def open_cache(folder: str | None, gib: float) -> "Cache | None":
    """The cache that the user asked for, None if no folder is given.

    Raises:
        CacheError: the size is 0, or the folder is not a cache of this program, or cannot be written.
    """
    if not gib > 0:
        raise CacheError(f"--cache-gib {gib:g}: must be above 0")
    if folder is None:
        return None
    if not folder:
        raise CacheError("--cache '': is empty; name a folder, which may not exist yet")
    cache = Cache(Path(folder), int(min(gib, MOST) * GIB))
    cache.claim()
    return cache


class Cache:
    """Local copies in a folder, at most `most_bytes` in total."""

    def __init__(self, folder: Path, most_bytes: int):
        self.folder, self.most_bytes = folder, most_bytes
        self._fetched: dict[Path, int] = {}  # inodes of the copies that this process made

    def claim(self) -> None:
        """Create the folder and its tag; nothing is ever removed from a folder without the tag.

        Raises:
            CacheError: it holds something else, or cannot be written.
        """
        tag = self.folder / TAG
        try:
            if tag.is_file() and tag.read_text() == CACHEDIR_TAG:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            if found := next(self.folder.iterdir(), None):
                raise CacheError(
                    f"{self.folder}: is no tailcache cache (it holds {found.name}); name another --cache"
                )
            with whole_file(tag) as unfinished:
                unfinished.write_text(CACHEDIR_TAG)
        except (OSError, UnicodeDecodeError) as error:
            raise CacheError(
                f"{self.folder}: cannot be used as --cache ({error}); name another folder"
            ) from error

    def open(
        self, version: tuple[str, str], name: str, size: int | None, fetch: Callable[[], bytes]
    ) -> BinaryIO:
        """Open the local copy of an object; it is fetched if it is absent or truncated.

        Args:
            version: the store that the object belongs to, and its version, which has its own copies.
            name: of the object.
            size: of a whole copy, None if unknown.
            fetch: returns the content.

        Raises:
            CacheError: the object does not fit in the cache.
        """
        owner = hashlib.sha256(repr(version).encode()).hexdigest()[:OWNER_DIGITS]
        path = self.folder / owner / name.replace("/", ".")
        while True:
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                self._add(path, fetch())  # and may be removed again before it is opened
                continue
            if size not in (None, os.fstat(file.fileno()).st_size) and self._is_older(path, file):
                file.close()
                path.unlink(missing_ok=True)
                continue
            now = time.time_ns()
            os.utime(file.fileno(), ns=(now, now))  # the kernel's own timestamps are coarser
            return file

    def _is_older(self, path: Path, file: BinaryIO) -> bool:
        """Whether a copy of the wrong size is old; if this process fetched it, the store is damaged."""
        fetched = self._fetched.get(path)
        return fetched != os.fstat(file.fileno()).st_ino

    def _add(self, path: Path, content: bytes) -> None:
        if len(content) > self.most_bytes:
            raise CacheError(
                f"{self.folder}: a cache of {self.most_bytes / GIB:g} GiB cannot hold {path.name} with its "
                f"{len(content):,} bytes; raise --cache-gib"
            )
        self._make_room(len(content))
        try:
            with whole_file(path) as unfinished:
                unfinished.write_bytes(content)
                self._fetched[path] = unfinished.stat().st_ino
        except OSError as error:
            raise CacheError(
                f"{self.folder}: --cache cannot be written ({error.strerror}); make room"
            ) from error

    def _make_room(self, n_bytes: int) -> None:
        copies = []
        for path in self.folder.glob("*/*"):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            kept = path.name.startswith(".") and found.st_mtime > time.time() - ABANDONED
            if OWNER.fullmatch(path.parent.name) and path.is_file():
                copies.append((kept, found.st_mtime_ns, found.st_size, path))
        total = n_bytes + sum(size for _, _, size, _ in copies)
        for kept, _, size, path in sorted(copies):
            if total <= self.most_bytes or kept:
                return
            path.unlink(missing_ok=True)
            total -= size
