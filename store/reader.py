"""Reading a store: checks that it is a complete store of this version, and returns arrays by name."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from store.arrays.finite import first_not_finite
from store.arrays.maps import StoredMaps
from store.arrays.raw import StoredArray
from store.arrays.shapes import check_shapes
from store.arrays.split import SplitArrays
from store.containers.attributes import check_ours, recorded_dtypes
from store.containers.detect import open_container, stamp_of
from store.errors import StoreError, UnreadableError
from store.notes import note
from store.schema import (
    CLASSIFIER,
    FINISHED,
    MAP_DTYPES,
    SPLITS,
    in_blocks,
    is_scale,
    split_arrays,
)
from store.storage.cache import Cache
from store.storage.s3 import Bucket, BucketError

SPLIT_ARRAYS = ("label", "sample_index", "view", "pooled")


class FeatureStore:
    """A finished feature store, read-only.

    Attributes:
        path: where the store is; may be in a bucket.
        class_names: K names.
        provenance: what made it.
        map_dtype: of the feature maps, a member of MAP_DTYPES.
        layer_dtypes: of the maps of earlier layers, by the layer's name.
        attributes: of the root, as written.
        arrays: every array, by its path in the tree.

    Raises:
        StoreError: on opening, if the store is missing, incomplete, not one of ours or of another version, or
            if its arrays do not fit together.
    """

    def __init__(self, path: Path | Bucket, cache: Cache | None = None):
        self.path = path
        self._stamp = stamp_of(path)
        self._splits: dict[str, SplitArrays] = {}
        attributes, self.arrays = open_container(path, partial(check_ours, path), cache)
        self.attributes = attributes
        self.class_names: list[str] = attributes.get("class_names")
        self.provenance: dict[str, Any] = attributes.get("provenance")
        names = self.class_names
        if not (isinstance(names, list) and len(names) > 1 and all(isinstance(name, str) for name in names)):
            raise StoreError(f"{path}: class_names is not a list of two or more names; extract again")
        if not isinstance(self.provenance, dict):
            raise StoreError(f"{path}: provenance does not say what made it; extract again")
        dtypes = recorded_dtypes(path, attributes)
        self._maps = {layer: StoredMaps(self, layer, dtype) for layer, dtype in dtypes.items()}
        self.map_dtype = dtypes.pop(None)
        self.layer_dtypes: dict[str, str] = dtypes
        check_shapes(self)
        self._check_blocks()

    @property
    def splits(self) -> list[str]:
        """Names of the splits it holds, in the order train, val, test."""
        return [name for name in SPLITS if name != "val" or f"{name}/label" in self.arrays]

    def _check_blocks(self) -> None:
        """Raise StoreError unless block_rows has the rows of a block for every split."""
        block_rows = self.attributes.get("block_rows")
        rows = [block_rows.get(split) for split in self.splits] if isinstance(block_rows, dict) else [None]
        if not all(type(n) is int and n > 0 for n in rows):
            raise StoreError(f"{self.path}: block_rows is not a number of rows for each split; extract again")
        n_blocks = -(-self.array("train/label").shape[0] // block_rows["train"])
        for maps in self._maps.values():
            if maps.is_lossy and self.array(maps.scale_path).shape[0] != n_blocks:
                raise StoreError(
                    f"{self.path}: does not have a scale for each of {n_blocks} blocks; extract again"
                )

    @property
    def finished(self) -> int | None:
        """When writing finished, in seconds since 1970 UTC; None if the store does not record it."""
        return int(self.read_array(FINISHED)[0]) if FINISHED in self.arrays else None

    @cached_property
    def classifier(self) -> tuple[np.ndarray, np.ndarray]:
        """Phase I's FC layer: weight (K, C) and bias (K,), float32."""
        weight, bias = (self.read_array(f"classifier/{name}") for name in CLASSIFIER)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise StoreError(
                f"{self.path}: classifier holds NaN or infinite weights; train and extract again"
            )
        for values in (weight, bias):
            values.setflags(write=False)
        return weight, bias

    def check_not_replaced(self) -> None:
        """Raise StoreError if the store at the path was replaced since this one was opened.

        Some of this one may be read already, and maps are read by path.
        """
        try:
            found = stamp_of(self.path, patient=True)
        except BucketError as error:  # not worth losing what was computed meanwhile
            note(f"{error}; so whether the store was replaced since it was opened is unknown")
            return
        if found != self._stamp:
            raise StoreError(f"{self.path}: was replaced since it was opened; open it again")

    def read(self, split: str) -> SplitArrays:
        """Labels, source indices, views and pooled features of a split.

        They are read once and cached: every call returns the same arrays, which are read-only.

        Raises:
            StoreError: no such split, labels that are not sorted or not among the K classes, or pooled
                features that are not finite.
        """
        if split not in self.splits:
            raise StoreError(f"{self.path}: has no split {split!r}, expected one of {', '.join(self.splits)}")
        if split not in self._splits:
            self._splits[split] = self._read_split(split)
        return self._splits[split]

    def _read_split(self, split: str) -> SplitArrays:
        label, sample_index, view, pooled = (self.read_array(f"{split}/{n}") for n in SPLIT_ARRAYS)
        if (np.diff(label) < 0).any():
            raise StoreError(f"{self.path}: {split}/label is damaged; extract again with --overwrite")
        if not (label[0] >= 0 and label[-1] < len(self.class_names)):
            raise StoreError(
                f"{self.path}: {split}/label has classes {label[0]} to {label[-1]}, expected 0 to "
                f"{len(self.class_names) - 1}; extract again with --overwrite"
            )
        self._check_finite(f"{split}/pooled", pooled)
        arrays = SplitArrays(label, sample_index, view, pooled.view(), pooled)
        for values in (label, sample_index, view, arrays.pooled):
            values.setflags(write=False)
        return arrays

    def _check_finite(self, name: str, values: np.ndarray) -> None:
        self.check_finite_row(name, first_not_finite(values))

    def check_finite_row(self, name: str, row: int | None) -> None:
        """Raise StoreError for a row that holds NaN or infinity; None passes."""
        if row is not None:
            raise StoreError(
                f"{self.path}: {name} has NaN or infinite features in row {row}; "
                "extract again, with --precision fp32 if this was bf16"
            )

    def read_cam(self) -> np.ndarray:
        """Class activation maps of the train split, (N, H, W) float16 in [0, 1].

        Raises:
            StoreError: a value that is not finite.
        """
        cam = self.read_array("train/cam")
        self._check_finite("train/cam", cam)
        return cam

    def block_rows(self, name: str) -> int:
        """Rows of an array that were written together and share a checksum."""
        if is_scale(name):
            return 1
        split = name.partition("/")[0]
        return self.attributes["block_rows"][split] if in_blocks(name) else self.arrays[name].shape[0]

    @property
    def map_shape(self) -> tuple[int, int, int, int]:
        """Shape (N, H, W, C) of the train split's feature maps."""
        return self.array("train/feature_map").shape

    @property
    def map_bytes(self) -> int:
        """Bytes that the train split's feature maps take in memory, decoded."""
        return self.maps().n_bytes

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the earlier layers whose maps it holds, in the order in which they run."""
        return tuple(self.layer_dtypes)

    def maps(self, layer: str | None = None) -> StoredMaps:
        """The maps of one layer.

        Args:
            layer: one of `layers`; None for the last one.

        Raises:
            StoreError: the store does not hold them.
        """
        if layer not in self._maps:
            found = f"holds {', '.join(self.layers)}" if self.layers else "holds none of earlier layers"
            raise StoreError(
                f"{self.path}: has no maps of layer {layer!r} ({found}; the last one needs no name); extract "
                "with --layers"
            )
        return self._maps[layer]

    def read_feature_map(
        self, start: int = 0, stop: int | None = None, layer: str | None = None
    ) -> np.ndarray:
        """Feature maps of the train split, all or a range of rows.

        Args:
            start: number of the first row.
            stop: the row after the last; None for all.
            layer: one of `layers`; None for the last layer.

        Returns:
            (B, H, W, C) in `computing_dtype`; bfloat16 is ml_dtypes'.

        Raises:
            IndexError: a row number out of range.
            StoreError: a value that is not finite, or no such layer.
        """
        return self.maps(layer).read(start, stop)

    def feature_map(self, rows: Sequence[int] | np.ndarray, layer: str | None = None) -> np.ndarray:
        """Feature maps of any rows of the train split, in any order, repeats allowed.

        Args:
            rows: (B,) row numbers, as `read("train")` counts them.
            layer: one of `layers`; None for the last layer.

        Returns:
            (B, H, W, C) in `computing_dtype`, map i that of row `rows[i]`.

        Raises:
            TypeError: rows are not integers; a mask, for example.
            IndexError: a row number out of range.
            StoreError: a file is missing or damaged, a value is not finite, or there is no such layer.
        """
        return self.maps(layer).take(rows)

    def decoded(self, codes: np.ndarray, start: int, dtype: np.dtype | None = None) -> np.ndarray:
        """Decode stored codes of the rows from `start` on to feature maps (B, H, W, C)."""
        return self.maps().decoded(codes, start, dtype)

    @property
    def scale(self) -> np.ndarray:
        """Scales of a lossy dtype, (blocks, C) float32."""
        return self.maps().scale

    def read_array(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows of an array by its path, all by default, as they are stored.

        Raises:
            StoreError: there is no such array, or a file is missing or damaged.
        """
        try:
            return self.array(name).read(start, stop)
        except UnreadableError:
            raise
        except StoreError as error:
            if isinstance(self.path, Path) and not self.path.exists():
                raise StoreError(f"{self.path}: is gone since it was opened; open it where it is") from error
            raise StoreError(f"{self.path}: {name} is damaged ({error}); extract again") from error

    def array(self, name: str) -> StoredArray:
        """An array by its path.

        Raises:
            StoreError: there is no such array.
        """
        if name not in self.arrays:
            expected = ", ".join(split_arrays("train", MAP_DTYPES[0]))
            raise StoreError(f"{self.path}: lacks {name} (a split holds {expected}); extract again")
        return self.arrays[name]
