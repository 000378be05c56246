"""Where an array's rows lie: runs of raw rows in files, read without a container's library."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np

from store.errors import StoreError

OPEN_FILES = 256  # at most, of one array
MOST_TARGETS = 1024  # of one scattering read (POSIX's IOV_MAX on Linux)


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
    """One array of a store, read-only; its files are opened, and proved whole, at their first use.

    Every read is a `preadv` into memory of the caller's, without a position that threads would share.

    Attributes:
        name: its path in the store's tree.
        shape, dtype: as in numpy.
        extents: of equal row counts, but for the last.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype, extents: list[Extent]):
        self.name, self.shape, self.dtype, self.extents = name, shape, dtype, extents
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self.block_rows = extents[0].stop
        self._files: OrderedDict[int, int] = OrderedDict()
        self._lock = Lock()
        self._process = os.getpid()

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, all by default."""
        stop = self.shape[0] if stop is None else stop
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        target = memoryview(rows.reshape(-1).view(np.uint8))
        for first, last in self.runs(start, stop):
            part = target[(first - start) * self.row_bytes : (last - start) * self.row_bytes]
            self.read_into(first, [part])
        return rows

    def reads(self, rows: np.ndarray, places: np.ndarray, out: np.ndarray) -> Iterator[Callable[[], None]]:
        """The reads, in storage order, that put each row at its place.

        Args:
            rows: (R,) ascending, none twice.
            places: (R,) where in `out` each belongs.
            out: C-contiguous, of the array's dtype.
        """
        target = memoryview(out.reshape(-1).view(np.uint8)) if out.size else memoryview(b"")
        new_run = (np.diff(rows) != 1) | (np.diff(rows // self.block_rows) != 0)
        cuts = [0, *(np.flatnonzero(new_run) + 1).tolist(), len(rows)] if len(rows) else []
        for begin, end in pairwise(cuts):
            for start in range(begin, end, MOST_TARGETS):
                targets = _targets(places[start : min(start + MOST_TARGETS, end)], self.row_bytes, target)
                yield partial(self.read_into, int(rows[start]), targets)

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The run of rows cut where a file ends."""
        while start < stop:
            end = min(stop, (start // self.block_rows + 1) * self.block_rows)
            yield start, end
            start = end

    def read_into(self, start: int, targets: list[memoryview]) -> None:
        """Fill each target in turn with the rows that begin at `start`; none crosses a file's end.

        Raises:
            StoreError: the file is missing or damaged, or the array was opened in another process.
        """
        index = start // self.block_rows
        extent = self.extents[index]
        offset = extent.offset + (start - extent.start) * self.row_bytes
        wanted = sum(len(target) for target in targets)
        with self._opened(index) as file:
            n_read = os.preadv(file, targets, offset)
            if n_read != wanted:  # beyond 2 GiB a call reads less than asked for
                _read_rest(file, targets, offset, n_read, extent.path)

    def _opened(self, index: int) -> "_Borrowed":
        if os.getpid() != self._process:
            raise StoreError(f"{self.name}: was opened before this process was forked; open the store in it")
        with self._lock:
            file = self._files.pop(index, None)
        return _Borrowed(_open_whole(self.extents[index]) if file is None else file, index, self._give_back)

    def _give_back(self, index: int, file: int) -> None:
        with self._lock:
            surplus = [file] if index in self._files else []
            self._files.setdefault(index, file)
            if len(self._files) > OPEN_FILES:
                surplus.append(self._files.popitem(last=False)[1])
        for unused in surplus:
            os.close(unused)

    def __del__(self):
        for file in getattr(self, "_files", {}).values():
            os.close(file)


@dataclass
class _Borrowed:
    """A file that nobody else uses or closes meanwhile."""

    file: int
    index: int
    give_back: Callable[[int, int], None]

    def __enter__(self) -> int:
        return self.file

    def __exit__(self, *_: object) -> None:
        self.give_back(self.index, self.file)


def _open_whole(extent: Extent) -> int:
    try:
        file = os.open(extent.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise StoreError(f"{extent.path}: is missing") from error
    size = os.fstat(file).st_size
    if extent.file_bytes not in (size, None):
        os.close(file)
        raise StoreError(f"{extent.path}: has {size:,} bytes, expected {extent.file_bytes:,}")
    if extent.tail is not None and os.pread(file, len(extent.tail), size - len(extent.tail)) != extent.tail:
        os.close(file)
        raise StoreError(f"{extent.path}: its index of chunks is damaged")
    return file


def _targets(places: np.ndarray, row_bytes: int, target: memoryview) -> list[memoryview]:
    if (np.diff(places) == 1).all():  # neighbours in memory too
        begin = int(places[0]) * row_bytes
        return [target[begin : begin + len(places) * row_bytes]]
    return [target[begin : begin + row_bytes] for begin in (places * row_bytes).tolist()]


def read_exactly(file: int, n_bytes: int, offset: int, path: Path) -> bytes:
    """So many bytes of a file.

    Raises:
        StoreError: it ends too early.
    """
    content = os.pread(file, n_bytes, offset)
    while len(content) < n_bytes:  # beyond 2 GiB a call reads less than asked for
        more = os.pread(file, n_bytes - len(content), offset + len(content))
        if not more:
            raise StoreError(f"{path}: ends too early")
        content += more
    return content


def _read_rest(file: int, targets: list[memoryview], offset: int, n_read: int, path: Path) -> None:
    for target in targets:
        skip = min(n_read, len(target))
        n_read, offset, target = n_read - skip, offset + skip, target[skip:]
        while len(target):
            count = os.preadv(file, [target], offset)
            if count == 0:
                raise StoreError(f"{path}: ends too early")
            offset, target = offset + count, target[count:]
