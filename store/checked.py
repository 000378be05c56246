"""Reads that are checked against a store's checksums, for copies.

A copy gets new checksums: rows that were damaged before would look intact forever after.
"""

from collections.abc import Iterator
from hashlib import sha256

import numpy as np

from store.arrays.checksum import crc32c, metadata_checksum
from store.errors import StoreError
from store.layout import ArrayLayout
from store.reader import FeatureStore
from store.schema import CHECKSUM

REPAIR = "put an intact copy in its place and continue with --resume, or extract again"


class CheckedReader:
    """A finished store that only returns rows that match their checksums.

    Attributes:
        store: the store.
        digest: SHA-256 of its checksums; stores with the same digest have the same rows and attributes.

    Raises:
        StoreError: on opening, if it has no checksums, or its attributes do not match theirs.
    """

    def __init__(self, store: FeatureStore):
        self.store = store
        names = sorted(name for name in store.arrays if name.startswith(f"{CHECKSUM}/"))
        self._recorded = {name.removeprefix(f"{CHECKSUM}/"): self._read(name) for name in names}
        layouts = {name: ArrayLayout(a.shape, a.dtype.name, 1, 1) for name, a in store.arrays.items()}
        if metadata_checksum(store.attributes, layouts) not in self._recorded_of("metadata"):
            raise StoreError(
                f"{store.path}: its attributes, shapes or dtypes do not match their checksum; {REPAIR}"
            )
        digest = sha256()
        for name, values in self._recorded.items():
            digest.update(f"{name} {values.tolist()}\n".encode())
        self.digest = digest.hexdigest()

    def blocks(self, name: str) -> Iterator[tuple[int, int]]:
        """First row of each block of an array, and the row after its last one."""
        n_rows, step = self.store.arrays[name].shape[0], self.store.block_rows(name)
        n_blocks, n_recorded = -(-n_rows // step), len(self._recorded_of(name))
        if n_blocks != n_recorded:
            raise StoreError(
                f"{self.store.path}: {name} has {n_blocks} blocks but {n_recorded} checksums; {REPAIR}"
            )
        for start in range(0, n_rows, step):
            yield start, min(start + step, n_rows)

    def block(self, name: str, start: int, stop: int) -> np.ndarray:
        """The rows of one block.

        Raises:
            StoreError: they cannot be read, or do not match their checksum.
        """
        rows = self._read(name, start, stop)
        if crc32c(rows) != self._recorded_of(name)[start // self.store.block_rows(name)]:
            raise StoreError(
                f"{self.store.path}: {name}: rows {start} to {stop - 1} do not match their checksum; {REPAIR}"
            )
        return rows

    def whole(self, name: str) -> np.ndarray:
        """All rows of an array."""
        return np.concatenate([self.block(name, *block) for block in self.blocks(name)])

    def _recorded_of(self, name: str) -> np.ndarray:
        if name not in self._recorded:
            raise StoreError(f"{self.store.path}: {name} has no checksums; extract again")
        return self._recorded[name]

    def _read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        array = self.store.arrays[name]
        try:
            return array.read(start, stop)
        except StoreError as error:
            last = (stop or array.shape[0]) - 1
            raise StoreError(
                f"{self.store.path}: {name}: rows {start} to {last}: {error}; {REPAIR}"
            ) from error
