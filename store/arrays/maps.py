"""Maps as they are stored, and as they are read: those of the last layer, and of earlier ones."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from store.arrays.dtypes import buffer_dtype, computing_dtype, decode, encode
from store.arrays.finite import first_not_finite
from store.arrays.gather import gather
from store.arrays.raw import StoredArray
from store.schema import SCALED, maps_name, scale_name

Arrays = dict[str, np.ndarray]


class StoredMaps:
    """The maps of one layer of the train split.

    Attributes:
        layer: name of an earlier layer; None for the last one.
        path: of the array in the store's tree.
        scale_path: of its scales, which only lossy dtypes have.
        dtype: a member of MAP_DTYPES.
    """

    def __init__(self, store: Any, layer: str | None, dtype: str):
        """The maps of an earlier layer of a FeatureStore; of its last layer for None."""
        name = maps_name(layer)
        self._store, self.layer, self.dtype = store, layer, dtype
        self.path, self.scale_path = f"train/{name}", f"train/{scale_name(name)}"

    @property
    def array(self) -> StoredArray:
        """The array."""
        return self._store.array(self.path)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return self.array.shape

    @property
    def n_bytes(self) -> int:
        """Bytes of all maps in the dtype that they are computed in."""
        return math.prod(self.shape) * computing_dtype(self.dtype).itemsize

    @property
    def is_lossy(self) -> bool:
        """Whether values are codes times scales."""
        return self.dtype in SCALED

    @property
    def block_rows(self) -> int:
        """Rows of a block, which has scales of its own."""
        return self._store.block_rows(self.path)

    @cached_property
    def scale(self) -> np.ndarray:
        """Scales of a lossy dtype, (blocks, C) float32."""
        return self._store.read_array(self.scale_path)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Maps (B, H, W, C) of a range of rows, all by default, in `computing_dtype`.

        Raises:
            IndexError: a row number out of range.
            StoreError: a file is missing or damaged, or a value is not finite.
        """
        n = self.shape[0]
        stop = n if stop is None else min(stop, n)
        if not 0 <= start <= stop:
            raise IndexError(f"rows {start} to {stop} of {n} feature maps")
        maps = self._read(start, stop)
        bad = first_not_finite(maps)
        self._store.check_finite_row(self.path, None if bad is None else start + bad)
        return maps

    def _read(self, start: int, stop: int) -> np.ndarray:
        if not self.is_lossy:
            return self.decoded(self._store.read_array(self.path, start, stop), start)
        maps = np.empty((stop - start, *self.shape[1:]), computing_dtype(self.dtype))
        for begin in range(start, stop, self.block_rows):
            codes = self._store.read_array(self.path, begin, min(begin + self.block_rows, stop))
            maps[begin - start : begin - start + len(codes)] = self.decoded(codes, begin)
        return maps

    def take(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Maps (B, H, W, C) of any rows, in any order, repeats allowed; errors as of `FeatureStore`."""
        rows = np.asarray(rows)
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            raise TypeError(f"rows: expected a list of row numbers, found {rows.dtype} {rows.shape}")
        codes, scale = gather(self.array, rows), None
        if self.is_lossy:
            scale = self.scale[rows.astype(np.int64) // self.block_rows]
        maps = decode(codes, self.dtype, scale, computing_dtype(self.dtype))
        bad = first_not_finite(maps)
        self._store.check_finite_row(self.path, None if bad is None else int(rows[bad]))
        return maps

    def decoded(self, codes: np.ndarray, start: int, dtype: np.dtype | None = None) -> np.ndarray:
        """Decode stored codes of the rows from `start` on to maps (B, H, W, C)."""
        scale = None
        if self.is_lossy:
            scale = self.scale[np.arange(start, start + len(codes)) // self.block_rows]
        return decode(codes, self.dtype, scale, dtype or computing_dtype(self.dtype))


def buffer_dtypes(map_dtypes: dict[str, str]) -> dict[str, np.dtype]:
    """The dtypes in which blocks of maps are collected before they are encoded, by path."""
    return {path: buffer_dtype(dtype) for path, dtype in map_dtypes.items()}


def encoded(block: Arrays, map_dtypes: dict[str, str]) -> Arrays:
    """One block of arrays by path, with its maps as they are stored, and the scales (1, C) of lossy ones.

    Maps whose scales are in the block are codes already.
    """
    stored = dict(block)
    for path, map_dtype in map_dtypes.items():
        split, _, name = path.partition("/")
        scales = f"{split}/{scale_name(name)}"
        if path not in block or scales in block:
            continue
        stored[path], scale = encode(block[path].astype(buffer_dtype(map_dtype), copy=False), map_dtype)
        stored |= {} if scale is None else {scales: scale}
    return stored
