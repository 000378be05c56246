"""Where an array's rows are: runs of raw rows in files, read without zarr or HDF5."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

READ_BYTES = 2 * 1024**2  # of one read: a thread copies so much before it takes the next


@dataclass(frozen=True)
class Extent:
    """A run of rows in a file.

    Attributes:
        path: the file, or object in a bucket.
        offset: byte offset of the first row.
        start: number of the first row in the array.
        stop: the row after the last.
        file_bytes: expected size of the file; None if compression decides it.
        tail: expected last bytes of the file (the index of an uncompressed shard), None if not checked.
        index: of compressed rows, offset and size (n, 2) of each chunk; None if the index ends the file.
        index_bytes: size of the index that ends the file.
    """

    path: Path
    offset: int
    start: int
    stop: int
    file_bytes: int | None
    tail: bytes | None = None
    index: np.ndarray | None = None
    index_bytes: int = 0


class Files(Protocol):
    """Where a store's bytes come from: a local disk (`MappedFiles`) or a bucket (`S3Files`).

    Attributes:
        most_threads: the most threads that read in parallel.
    """

    most_threads: int

    def threads(self, n_bytes: int) -> int:
        """How many threads pay off for a read of `n_bytes`."""

    def read(self, extent: Extent, offset: int, target: memoryview) -> None:
        """Fill `target` with the bytes of an extent from `offset` on."""

    def contents(self, extent: Extent, ranges: list[tuple[int, int]]) -> list[np.ndarray]:
        """The bytes of ranges (start, stop) of an extent's file, each (n,) uint8."""

    def end(self, extent: Extent, n_bytes: int) -> tuple[bytes, int]:
        """The last bytes of an extent's file, and its length."""

    def copy_rows(self, extent: Extent, rows: np.ndarray, places: np.ndarray, target: np.ndarray) -> None:
        """Copy rows of an extent to their places in `target`."""


class StoredArray:
    """One array of a store, read-only.

    Attributes:
        name: its path in the store's tree.
        shape, dtype: as in numpy.
        extents: its runs of rows, equally long except for the last.
        files: what the extents are read from.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, extents: list[Extent], files: Files
    ):
        self.name, self.shape, self.dtype, self.extents, self.files = name, shape, dtype, extents, files
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self.block_rows = extents[0].stop

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.row_bytes

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, all by default.

        Raises:
            StoreError: a file is missing or damaged.
        """
        stop = self.shape[0] if stop is None else stop
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        target = memoryview(out.reshape(-1).view(np.uint8))
        for extent in self.extents[start // self.block_rows : -(-stop // self.block_rows)]:
            first, last = max(start, extent.start), min(stop, extent.stop)
            part = target[(first - start) * self.row_bytes : (last - start) * self.row_bytes]
            self.files.read(extent, extent.offset + (first - extent.start) * self.row_bytes, part)
        return out

    def reads(self, rows: np.ndarray, places: np.ndarray, out: np.ndarray) -> Iterator[Callable[[], None]]:
        """The reads, in storage order, that copy each row to its place.

        Args:
            rows: (R,) ascending, none twice.
            places: (R,) the place of each row in `out`.
            out: C-contiguous, of the array's dtype.
        """
        if not len(rows):
            return
        target = out.reshape(-1).view(np.uint8).reshape(len(out), self.row_bytes)
        block = rows // self.block_rows
        at_most = max(1, READ_BYTES // self.row_bytes)
        files = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(rows)]
        for first, last in pairwise(files):
            extent = self.extents[int(block[first])]
            for start in range(first, last, at_most):
                part = slice(start, min(start + at_most, last))
                yield partial(self.files.copy_rows, extent, rows[part], places[part], target)
