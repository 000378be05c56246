"""Where an array's rows lie: runs of raw rows in files, read without a container's library.

For gathers, files are mapped into memory: copying from a map is faster than system calls that copy the same
pages. What a map shows is the page cache, which the kernel takes back as it likes. A complete store never
changes, so no map can lose its file's end.
"""

import mmap
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np

from store.errors import StoreError

MAPPED_FILES = 256  # at most, of one array, for each takes a file descriptor
READ_BYTES = 2 * 1024**2  # that one thread copies before another may take over
LARGE_ROW = 16 * 1024  # bytes: smaller rows are copied together


@dataclass(frozen=True)
class Extent:
    """A run of rows in a file.

    Attributes:
        path: the file.
        offset: of the first row, in bytes.
        start: number of the first row in the array.
        stop: the row after the last.
        file_bytes: what the file must have in all; None where compression decides.
        tail: bytes that must end it (the index of an uncompressed shard), None for no such thing.
        index: of compressed rows, offset and size (n, 2) of each chunk; None where the file's end tells.
        index_bytes: size of that end.
    """

    path: Path
    offset: int
    start: int
    stop: int
    file_bytes: int | None
    tail: bytes | None = None
    index: np.ndarray | None = None
    index_bytes: int = 0


class StoredArray:
    """One array of a store, read-only; its files are mapped, and proved whole, at their first use.

    Attributes:
        name: its path in the store's tree.
        shape, dtype: as in numpy.
        extents: of equal row counts, but for the last.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype, extents: list[Extent]):
        self.name, self.shape, self.dtype, self.extents = name, shape, dtype, extents
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self.block_rows = extents[0].stop
        self._files: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = Lock()
        self._process = os.getpid()

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, all by default, without maps: a bad disk is an error, not a signal.

        Raises:
            StoreError: a file is missing or damaged.
        """
        stop = self.shape[0] if stop is None else stop
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        target = memoryview(out.reshape(-1).view(np.uint8))
        for extent in self.extents[start // self.block_rows : -(-stop // self.block_rows)]:
            first, last = max(start, extent.start), min(stop, extent.stop)
            part = target[(first - start) * self.row_bytes : (last - start) * self.row_bytes]
            with _open_whole(extent) as file:
                file.seek(extent.offset + (first - extent.start) * self.row_bytes)
                if file.readinto(part) != len(part):
                    raise StoreError(f"{extent.path}: ends too early")
        return out

    def reads(self, rows: np.ndarray, places: np.ndarray, out: np.ndarray) -> Iterator[Callable[[], None]]:
        """The reads, in storage order, that put each row at its place.

        Args:
            rows: (R,) ascending, none twice.
            places: (R,) where in `out` each belongs.
            out: C-contiguous, of the array's dtype.
        """
        if not len(rows):
            return
        target = out.reshape(-1).view(np.uint8).reshape(len(out), self.row_bytes)
        block = rows // self.block_rows
        at_most = max(1, READ_BYTES // self.row_bytes)
        files = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(rows)]
        for first, last in pairwise(files):
            index = int(block[first])
            for start in range(first, last, at_most):
                part = slice(start, min(start + at_most, last))
                yield partial(self._copy, index, rows[part], places[part], target)

    def _copy(self, index: int, rows: np.ndarray, places: np.ndarray, target: np.ndarray) -> None:
        """Copy rows of one file to their places."""
        source, origin, n_rows = self._rows(index), self.extents[index].start, len(rows)
        first, place = int(rows[0]) - origin, int(places[0])
        if rows[-1] - rows[0] == n_rows - 1 and (np.diff(places) == 1).all():  # neighbours here and there
            target[place : place + n_rows] = source[first : first + n_rows]
        elif self.row_bytes >= LARGE_ROW:
            for row, place in zip(rows.tolist(), places.tolist(), strict=True):
                target[place] = source[row - origin]
        else:
            target[places] = source[rows - origin]

    def _rows(self, index: int) -> np.ndarray:
        """The rows of one file (n, row_bytes) uint8, mapped."""
        extent = self.extents[index]
        n_bytes = (extent.stop - extent.start) * self.row_bytes
        content = self._mapped(index)[extent.offset : extent.offset + n_bytes]
        return content.reshape(-1, self.row_bytes)

    def _mapped(self, index: int) -> np.ndarray:
        """The bytes of a file; they stay mapped as long as somebody holds them."""
        if os.getpid() != self._process:
            raise StoreError(f"{self.name}: was opened before this process was forked; open the store in it")
        with self._lock:
            if index not in self._files:
                self._files[index] = np.frombuffer(_map_whole(self.extents[index]), np.uint8)
                if len(self._files) > MAPPED_FILES:
                    self._files.popitem(last=False)
            self._files.move_to_end(index)
            return self._files[index]


@contextmanager
def _open_whole(extent: Extent) -> Iterator[BinaryIO]:
    """A file that has the size it should, and the end."""
    try:
        file = extent.path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise StoreError(f"{extent.path}: is missing") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        least = max(1, extent.index_bytes) if extent.file_bytes is None else extent.file_bytes
        if size < least or extent.file_bytes not in (size, None):
            raise StoreError(f"{extent.path}: has {size:,} bytes, expected {least:,}")
        if extent.tail is not None:
            file.seek(-len(extent.tail), os.SEEK_END)
            if file.read() != extent.tail:
                raise StoreError(f"{extent.path}: its index of chunks is damaged")
        yield file


def _map_whole(extent: Extent) -> mmap.mmap:
    with _open_whole(extent) as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
