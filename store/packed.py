"""Arrays whose chunks are compressed: a row is read by decoding the chunk that holds it."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np

from store.codecs import decompress
from store.errors import StoreError
from store.extents import Extent, StoredArray
from store.shard import parse_index


class PackedArray(StoredArray):
    """One compressed array of a store, read-only.

    Attributes:
        chunk_rows: rows that are compressed together.
        codec: a member of CODECS, not "none".
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, extents: list[Extent], cut: tuple[int, str]
    ):
        super().__init__(name, shape, dtype, extents)
        self.chunk_rows, self.codec = cut
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
        """As of StoredArray: one read decodes one chunk, however many of its rows are asked for."""
        chunk = rows // self.chunk_rows
        cuts = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(rows)] if len(rows) else []
        for begin, end in pairwise(cuts):
            within = rows[begin:end] - chunk[begin] * self.chunk_rows
            yield partial(self._scatter, int(chunk[begin]), within, places[begin:end], out)

    def _scatter(self, chunk: int, within: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        out[places] = self._decoded(chunk)[within]

    def _decoded(self, chunk: int) -> np.ndarray:
        index = chunk * self.chunk_rows // self.block_rows
        extent = self.extents[index]
        rows = np.empty((self.chunk_rows, *self.shape[1:]), self.dtype)
        number, where = chunk - extent.start // self.chunk_rows, self._index(index)
        if number >= len(where):
            raise StoreError(f"{extent.path}: chunk {number} is missing")
        offset, size = where[number].tolist()
        try:
            decompress(self.codec, self._mapped(index)[offset : offset + size], rows)
        except ValueError as error:
            raise StoreError(f"{extent.path}: chunk {number} cannot be decompressed ({error})") from error
        return rows

    def _index(self, index: int) -> np.ndarray:
        """Offset and size (n, 2) of the chunks in one file."""
        if index not in self._indexes:
            extent, content = self.extents[index], self._mapped(index)
            end = len(content) - extent.index_bytes
            try:
                where = parse_index(content[end:].tobytes())
            except ValueError as error:
                raise StoreError(f"{extent.path}: {error}") from error
            if where.sum(axis=1).max(initial=0) != end:
                raise StoreError(f"{extent.path}: has {len(content):,} bytes, other than its index says")
            self._indexes[index] = where
        return self._indexes[index]
