"""Writing a store: arrays filled row by row, in order, one whole shard at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from store.errors import StoreError
from store.schema import CLASSIFIER, FORMAT, SCHEMA_VERSION, split_arrays
from store.zarr_store import create_array, create_group


class StoreWriter:
    """Fills one new store; `finish` marks it complete, and a reader refuses one that is not."""

    def __init__(self, path: Path, class_names: list[str], provenance: dict[str, Any], map_dtype: str):
        self._root = create_group(path)
        self._root.attrs.update(
            format=FORMAT, schema_version=SCHEMA_VERSION, class_names=class_names, provenance=provenance
        )
        self.map_dtype = map_dtype
        self._arrays: dict[str, _RowWriter] = {}

    def write_classifier(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Phase I's FC layer: weight (K, C), bias (K,), both to float32."""
        group = self._root.create_group("classifier")
        for name, value in {"weight": weight, "bias": bias}.items():
            create_array(group, name, value.shape, CLASSIFIER[name].dtype)[:] = value

    def create_split(self, split: str, sizes: dict[str, int]) -> None:
        """Make the empty arrays of a split; `sizes` maps axis letters (N, C, H, W) to lengths."""
        group = self._root.create_group(split)
        for name, spec in split_arrays(split, self.map_dtype).items():
            shape = tuple(sizes[axis] for axis in spec.axes)
            self._arrays[f"{split}/{name}"] = _RowWriter(create_array(group, name, shape, spec.dtype))

    def append(self, split: str, **rows: np.ndarray) -> None:
        """Add the next rows of arrays of a split, by array name."""
        for name, value in rows.items():
            self._arrays[f"{split}/{name}"].append(value)

    def finish(self) -> None:
        """Write what is buffered, prove that every row came, and mark the store complete."""
        for name, writer in self._arrays.items():
            writer.flush()
            if writer.n_written != writer.array.shape[0]:
                raise StoreError(f"{name}: {writer.n_written} of {writer.array.shape[0]} rows were written")
        self._root.attrs["complete"] = True


class _RowWriter:
    """Gathers appended rows until a shard is full: a shard written in parts is read and rewritten."""

    def __init__(self, array: zarr.Array):
        self.array = array
        self.n_written = 0
        shard_rows = array.shards[0]
        self._buffer = np.empty((shard_rows, *array.shape[1:]), array.dtype)
        self._filled = 0

    def append(self, rows: np.ndarray) -> None:
        while len(rows):
            take = min(len(rows), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + take] = rows[:take]
            self._filled += take
            rows = rows[take:]
            if self._filled == len(self._buffer):
                self.flush()

    def flush(self) -> None:
        self.array[self.n_written : self.n_written + self._filled] = self._buffer[: self._filled]
        self.n_written += self._filled
        self._filled = 0
