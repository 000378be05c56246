"""Reading a store: refuses what is incomplete or foreign, and gives arrays by name."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from store.errors import StoreError
from store.schema import CLASSIFIER, FORMAT, SCHEMA_VERSION, SPLITS, split_arrays
from store.zarr_store import open_group


@dataclass(frozen=True)
class SplitArrays:
    """What a split holds besides its maps, in memory.

    Attributes:
        label: (N,) int32, ascending.
        sample_index: (N,) int64.
        pooled: (N, C) float32.
    """

    label: np.ndarray
    sample_index: np.ndarray
    pooled: np.ndarray


class FeatureStore:
    """A finished feature store, read-only.

    Attributes:
        path: where it lies.
        class_names: K names.
        provenance: what made it.

    Raises:
        StoreError: on opening, if the store is missing, incomplete, foreign, or of another version.
    """

    def __init__(self, path: Path):
        self.path = path
        self._root = open_group(path)
        attributes = dict(self._root.attrs)
        if attributes.get("format") != FORMAT:
            raise StoreError(
                f"{path}: not a feature store (its format is {attributes.get('format')!r}, "
                f"expected {FORMAT!r}); `extract` writes one"
            )
        if attributes.get("schema_version") != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: schema version {attributes.get('schema_version')}, this program reads "
                f"{SCHEMA_VERSION}; extract again"
            )
        if attributes.get("complete") is not True:
            raise StoreError(f"{path}: was never finished; extract again with --overwrite")
        self.class_names: list[str] = attributes["class_names"]
        self.provenance: dict[str, Any] = attributes["provenance"]

    @property
    def splits(self) -> list[str]:
        """Names of the splits it holds, in the order train, val, test."""
        return [name for name in SPLITS if name in self._root]

    @cached_property
    def classifier(self) -> tuple[np.ndarray, np.ndarray]:
        """Phase I's FC layer: weight (K, C) and bias (K,), float32."""
        weight, bias = (self._read(f"classifier/{name}") for name in CLASSIFIER)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise StoreError(
                f"{self.path}: classifier holds NaN or infinite weights; train and extract again"
            )
        return weight, bias

    def read(self, split: str) -> SplitArrays:
        """Labels, source indices and pooled features of a split.

        Raises:
            StoreError: a label that is none of the K classes or out of order, or arrays of unequal length.
        """
        arrays = SplitArrays(*(self._read(f"{split}/{n}") for n in ("label", "sample_index", "pooled")))
        label = arrays.label
        ascending = not (np.diff(label) < 0).any()
        if not (len(label) == len(arrays.sample_index) == len(arrays.pooled) and ascending):
            raise StoreError(f"{self.path}: {split}/label is damaged; extract again with --overwrite")
        if len(label) and not (label[0] >= 0 and label[-1] < len(self.class_names)):
            raise StoreError(
                f"{self.path}: {split}/label has classes {label[0]} to {label[-1]}, expected 0 to "
                f"{len(self.class_names) - 1}; extract again with --overwrite"
            )
        return arrays

    def read_cam(self) -> np.ndarray:
        """Class activation maps of the train split, (N, H, W) float16 in [0, 1]."""
        return self._read("train/cam")

    @property
    def map_shape(self) -> tuple[int, int, int, int]:
        """Shape (N, H, W, C) of the train split's feature maps."""
        return self._array("train/feature_map").shape

    @property
    def map_bytes(self) -> int:
        """Bytes that the train split's feature maps take in memory."""
        return self._array("train/feature_map").nbytes

    def read_feature_map(self) -> np.ndarray:
        """All feature maps of the train split, (N, H, W, C), in the store's dtype."""
        return self._read("train/feature_map")

    def _read(self, name: str) -> np.ndarray:
        array = self._array(name)
        # The writer leaves no shard out, and zarr reads an absent one as zeros.
        n_shards = math.ceil(array.shape[0] / array.shards[0])
        n_present = sum(file.is_file() for file in (self.path / name / "c").rglob("*"))
        try:
            if n_present == n_shards:
                return array[:]
            reason = f"{n_shards - n_present} of its {n_shards} files are missing"
        except (ValueError, RuntimeError) as error:
            reason = str(error)
        raise StoreError(f"{self.path}: {name} is damaged ({reason}); extract again with --overwrite")

    def _array(self, name: str) -> zarr.Array:
        try:
            return self._root[name]
        except KeyError as error:
            expected = ", ".join(split_arrays("train", "float16"))
            raise StoreError(
                f"{self.path}: lacks {name} (a split holds {expected}); extract again"
            ) from error
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{self.path}: metadata of {name} are damaged ({error}); extract again with --overwrite"
            ) from error
