"""Reads that are checked as they are made, for whoever passes a store's rows on.

A copy gets checksums of its own: rows that were damaged before would look sound for ever after.
"""

from collections.abc import Iterator
from hashlib import sha256

import numpy as np

from store.arrays.checksum import crc32c, metadata_checksum
from store.errors import StoreError
from store.layout import ArrayLayout
from store.reader import FeatureStore
from store.schema import CHECKSUM

MEND = "put a sound copy in its place and go on with --resume, or extract again"


class CheckedReader:
    """A finished store, of which only what was written comes out.

    Attributes:
        store: it.
        digest: SHA-256 of its checksums: stores of one digest hold the same rows, and know the same of them.

    Raises:
        StoreError: on opening, if it has no checksums, or its attributes are not those that were written.
    """

    def __init__(self, store: FeatureStore):
        self.store = store
        names = sorted(name for name in store.arrays if name.startswith(f"{CHECKSUM}/"))
        self._recorded = {name.removeprefix(f"{CHECKSUM}/"): self._read(name) for name in names}
        layouts = {name: ArrayLayout(a.shape, a.dtype.name, 1, 1) for name, a in store.arrays.items()}
        if metadata_checksum(store.attributes, layouts) not in self._recorded_of("metadata"):
            raise StoreError(
                f"{store.path}: its attributes, shapes or dtypes are not those that were written; {MEND}"
            )
        digest = sha256()
        for name, values in self._recorded.items():
            digest.update(f"{name} {values.tolist()}\n".encode())
        self.digest = digest.hexdigest()

    def blocks(self, name: str) -> Iterator[tuple[int, int]]:
        """First row of each block of an array, and the row after its last."""
        n_rows, step = self.store.arrays[name].shape[0], self.store.block_rows(name)
        n_blocks, n_recorded = -(-n_rows // step), len(self._recorded_of(name))
        if n_blocks != n_recorded:
            raise StoreError(
                f"{self.store.path}: {name} has {n_blocks} blocks, and checksums of {n_recorded}; {MEND}"
            )
        for start in range(0, n_rows, step):
            yield start, min(start + step, n_rows)

    def block(self, name: str, start: int, stop: int) -> np.ndarray:
        """The rows of one block.

        Raises:
            StoreError: they cannot be read, or are not those that were written.
        """
        rows = self._read(name, start, stop)
        if crc32c(rows) != self._recorded_of(name)[start // self.store.block_rows(name)]:
            raise StoreError(
                f"{self.store.path}: {name}: rows {start} to {stop - 1} are not those that were written; "
                f"{MEND}"
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
            raise StoreError(f"{self.store.path}: {name}: rows {start} to {last}: {error}; {MEND}") from error
