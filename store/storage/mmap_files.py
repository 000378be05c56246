"""The files of a store on a local disk, mapped into memory for gathers.

Copying from a map is faster than system calls that copy the same pages. A map shows the page cache, which the
kernel can reclaim at any time. A complete store never changes, so a mapped file never gets shorter.
"""

import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np

from store.arrays.raw import Extent
from store.errors import StoreError, UnreadableError

MAPPED_FILES = 512  # at most, for one store: each takes a file descriptor
LARGE_ROW = 16 * 1024  # bytes: smaller rows are copied together
WORTH_A_THREAD = 2**20  # bytes: smaller gathers use one thread


class MappedFiles:
    """The files of a local store; each is checked for its size and end at its first use."""

    most_threads = 4  # beyond that, memory is the limit

    def __init__(self) -> None:
        self._maps: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._lock = Lock()
        self._process = os.getpid()

    def threads(self, n_bytes: int) -> int:
        """How many threads pay off for a gather of `n_bytes`."""
        if n_bytes < WORTH_A_THREAD:
            return 1
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def read(self, extent: Extent, offset: int, target: memoryview) -> None:
        """Fill `target` from `offset` on, without a map: a bad disk is then an error and not a signal.

        Raises:
            StoreError: the file is missing or damaged.
        """
        with self._open_whole(extent) as file:
            file.seek(offset)
            rest = target
            while len(rest):  # Linux reads at most 2 GiB at a time
                n_read = file.readinto(rest)
                if not n_read:
                    raise StoreError(f"{extent.path}: ends too early")
                rest = rest[n_read:]

    def contents(self, extent: Extent, ranges: list[tuple[int, int]]) -> list[np.ndarray]:
        """Bytes (stop − start,) uint8 of each range of a file, which stays mapped while they are held."""
        content = self._mapped(extent)
        return [content[start:stop] for start, stop in ranges]

    def end(self, extent: Extent, n_bytes: int) -> tuple[bytes, int]:
        """The last bytes of a file, and its size."""
        content = self._mapped(extent)
        return content[-n_bytes:].tobytes(), len(content)

    def copy_rows(self, extent: Extent, rows: np.ndarray, places: np.ndarray, target: np.ndarray) -> None:
        """Copy rows of a file to their places.

        Args:
            extent: the rows of the file.
            rows: (R,) ascending, none twice, counted as in the array.
            places: (R,) the place of each row in `target`.
            target: (n, row bytes) uint8.
        """
        n_rows, row_bytes, origin = len(rows), target.shape[1], extent.start
        end = extent.offset + (extent.stop - origin) * row_bytes
        source = self._mapped(extent)[extent.offset : end].reshape(-1, row_bytes)
        first, place = int(rows[0]) - origin, int(places[0])
        in_order = places[-1] - places[0] == n_rows - 1 and (np.diff(places) == 1).all()
        if in_order and rows[-1] - rows[0] == n_rows - 1:  # neighbours in both
            target[place : place + n_rows] = source[first : first + n_rows]
        elif in_order:  # no index is out of bounds: "clip" copies straight to the target
            np.take(source, rows - origin, axis=0, out=target[place : place + n_rows], mode="clip")
        elif row_bytes >= LARGE_ROW:
            for row, place in zip(rows.tolist(), places.tolist(), strict=True):
                target[place] = source[row - origin]
        else:
            target[places] = source[rows - origin]

    def _mapped(self, extent: Extent) -> np.ndarray:
        check_not_forked(self._process, extent)
        with self._lock:
            if extent.path in self._maps:
                self._maps.move_to_end(extent.path)
                return self._maps[extent.path]
        with self._open_whole(extent) as file:  # without the lock, since it may have to be fetched
            mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), np.uint8)
        with self._lock:
            self._maps[extent.path] = mapped
            if len(self._maps) > MAPPED_FILES:
                self._maps.popitem(last=False)
        return mapped

    def _open(self, extent: Extent) -> BinaryIO:
        return extent.path.open("rb", buffering=0)

    @contextmanager
    def _open_whole(self, extent: Extent) -> Iterator[BinaryIO]:
        """Open a file that has the expected size and end."""
        try:
            with self._open(extent) as file:
                size = os.fstat(file.fileno()).st_size
                check_not_cut(extent, size)
                if extent.tail is not None:
                    file.seek(-len(extent.tail), os.SEEK_END)
                    check_same_tail(extent, file.read())
                yield file
        except FileNotFoundError as error:
            raise StoreError(f"{extent.path}: is missing") from error
        except OSError as error:
            raise UnreadableError(
                f"{extent.path}: cannot be read ({error.strerror or error}); check its permissions, and the "
                "disk that it is on"
            ) from error


def check_not_forked(process: int, extent: Extent) -> None:
    """Raise StoreError in a forked child of the process that opened a store: handles do not survive."""
    if os.getpid() != process:
        raise StoreError(
            f"{extent.path}: was opened before this process was forked; open the store again in this one"
        )


def check_not_cut(extent: Extent, size: int) -> None:
    """Raise StoreError if a file does not have the size of its rows."""
    least = max(1, extent.index_bytes) if extent.file_bytes is None else extent.file_bytes
    if size < least or extent.file_bytes not in (size, None):
        raise StoreError(f"{extent.path}: has {size:,} bytes, expected {least:,}")


def check_same_tail(extent: Extent, tail: bytes) -> None:
    """Raise StoreError if a file does not end with the expected bytes."""
    if tail != extent.tail:
        raise StoreError(f"{extent.path}: its index of chunks is damaged")
