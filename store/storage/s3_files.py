"""The objects of a store in a bucket: read by ranges, or through a cache on a local disk."""

import os
from collections import defaultdict
from threading import Lock
from typing import BinaryIO

import numpy as np

from store.arrays.raw import Extent
from store.errors import StoreError
from store.storage.cache import Cache
from store.storage.mmap_files import MappedFiles, check_not_cut, check_not_forked, check_same_tail
from store.storage.s3 import Bucket


class S3Files:
    """Like `MappedFiles`, for objects; each is checked for its size and end at its first use."""

    most_threads = 32  # they mostly wait for answers

    def __init__(self, bucket: Bucket):
        self._bucket = bucket
        self._whole: set[str] = set()
        self._process = os.getpid()

    def threads(self, n_bytes: int) -> int:
        """Always the most: with one thread each, a row from many objects takes no longer than one row."""
        return self.most_threads

    def read(self, extent: Extent, offset: int, target: memoryview) -> None:
        """Fill `target` from `offset` on."""
        (content,) = self.contents(extent, [(offset, offset + len(target))])
        target[:] = content

    def contents(self, extent: Extent, ranges: list[tuple[int, int]]) -> list[np.ndarray]:
        """Bytes of each range of an object; near ranges are fetched together."""
        check_not_forked(self._process, extent)
        self._check_whole(extent)
        return self._fetch(extent, ranges)

    def end(self, extent: Extent, n_bytes: int) -> tuple[bytes, int]:
        """The last bytes of an object, and its size."""
        check_not_forked(self._process, extent)
        try:
            tail, size = self._bucket.end(extent.path.name, n_bytes)
        except FileNotFoundError as error:
            raise StoreError(f"{extent.path}: is missing") from error
        check_not_cut(extent, size)
        return tail, size

    def copy_rows(self, extent: Extent, rows: np.ndarray, places: np.ndarray, target: np.ndarray) -> None:
        """Copy rows of an object to their places; neighbouring rows are one range."""
        row_bytes = target.shape[1]
        cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        first = (extent.offset + (rows[cuts[:-1]] - extent.start) * row_bytes).tolist()
        counts = np.diff(cuts).tolist()
        ranges = [(start, start + n * row_bytes) for start, n in zip(first, counts, strict=True)]
        for begin, n, content in zip(cuts, counts, self.contents(extent, ranges), strict=False):
            target[places[begin : begin + n]] = content.reshape(n, row_bytes)

    def _fetch(self, extent: Extent, ranges: list[tuple[int, int]]) -> list[np.ndarray]:
        try:
            found = self._bucket.ranges(extent.path.name, ranges)
        except FileNotFoundError as error:
            raise StoreError(f"{extent.path}: is missing") from error
        for content, (start, stop) in zip(found, ranges, strict=True):
            if len(content) != stop - start:
                raise StoreError(f"{extent.path}: ends too early")
        return found

    def _check_whole(self, extent: Extent) -> None:
        if extent.path.name not in self._whole:
            tail, _ = self.end(extent, max(1, len(extent.tail or b"")))
            if extent.tail is not None:
                check_same_tail(extent, tail)
            self._whole.add(extent.path.name)


class CachedFiles(MappedFiles):
    """Like `MappedFiles`, for objects that are downloaded whole at their first use."""

    def __init__(self, bucket: Bucket, cache: Cache):
        super().__init__()
        self._bucket, self._cache = bucket, cache
        self._version = bucket.read_tagged("zarr.json")[1]  # changes when the store is rewritten
        self._fetching: defaultdict[str, Lock] = defaultdict(Lock)

    def _open(self, extent: Extent) -> BinaryIO:
        name = extent.path.name
        check_not_forked(self._process, extent)
        with self._lock:
            fetching = self._fetching[name]
        with fetching:  # else two threads would fetch the same object twice
            version = (self._bucket.url, self._version)
            return self._cache.open(version, name, extent.file_bytes, lambda: self._bucket.fetch(name))
