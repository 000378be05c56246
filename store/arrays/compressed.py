"""Arrays whose chunks are compressed: a row is read by decoding the chunk that holds it."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np

from store.arrays.codecs import decompress
from store.arrays.raw import READ_BYTES, Extent, Files, StoredArray
from store.arrays.shard import parse_index
from store.errors import StoreError


class PackedArray(StoredArray):
    """One compressed array of a store, read-only.

    Attributes:
        chunk_rows: rows that are compressed together.
        codec: a member of CODECS, not "none".
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        extents: list[Extent],
        files: Files,
        packing: tuple[int, str],
    ):
        super().__init__(name, shape, dtype, extents, files)
        self.chunk_rows, self.codec = packing
        self._indexes = {i: extent.index for i, extent in enumerate(extents) if extent.index is not None}

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, all by default."""
        stop = self.shape[0] if stop is None else stop
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        rows = np.arange(start, stop)
        for read in self.reads(rows, rows - start, out):
            read()
        return out

    def reads(self, rows: np.ndarray, places: np.ndarray, out: np.ndarray) -> Iterator[Callable[[], None]]:
        """Like StoredArray.reads; each chunk is decoded once, however many of its rows are requested.

        One read decodes a few chunks of one file, which are fetched together.
        """
        if not len(rows):
            return
        chunk, block = rows // self.chunk_rows, rows // self.block_rows
        at_most = max(1, READ_BYTES // (self.chunk_rows * self.row_bytes))
        starts = np.flatnonzero(np.diff(chunk, prepend=-1))  # where the next chunk begins
        while len(starts):
            begin = starts[0]
            together = int(np.count_nonzero(block[starts[:at_most]] == block[begin]))
            end = starts[together] if together < len(starts) else len(rows)
            part = slice(begin, end)
            yield partial(self._scatter, int(block[begin]), rows[part], places[part], out)
            starts = starts[together:]

    def _scatter(self, index: int, rows: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        """Decode the chunks of one file that hold `rows`, and copy the rows to their places."""
        extent, where = self.extents[index], self._index(index)
        number = (rows - extent.start) // self.chunk_rows
        cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(rows)]
        numbers = number[cuts[:-1]].tolist()
        if numbers[-1] >= len(where):
            raise StoreError(f"{extent.path}: chunk {numbers[-1]} is missing")
        ranges = [(offset, offset + size) for offset, size in where[numbers].tolist()]
        decoded = np.empty((self.chunk_rows, *self.shape[1:]), self.dtype)
        for n, content, (begin, end) in zip(
            numbers, self.files.contents(extent, ranges), pairwise(cuts), strict=True
        ):
            try:
                decompress(self.codec, content, decoded)
            except ValueError as error:
                raise StoreError(f"{extent.path}: chunk {n} cannot be decompressed ({error})") from error
            out[places[begin:end]] = decoded[rows[begin:end] - extent.start - n * self.chunk_rows]

    def _index(self, index: int) -> np.ndarray:
        """Offset and size (n, 2) of the chunks in one file."""
        if index not in self._indexes:
            extent = self.extents[index]
            tail, size = self.files.end(extent, extent.index_bytes)
            try:
                where = parse_index(tail)
            except ValueError as error:
                raise StoreError(f"{extent.path}: {error}") from error
            if where.sum(axis=1).max(initial=0) != size - extent.index_bytes:
                raise StoreError(f"{extent.path}: has {size:,} bytes, which does not match its index")
            self._indexes[index] = where
        return self._indexes[index]
